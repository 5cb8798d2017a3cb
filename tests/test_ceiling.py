"""Too many dead letters: in a row, or among the last messages."""

from hypothesis import given
from hypothesis import strategies as st

from tallystick.ingest.ceiling import Ceiling


def reached(ceiling: Ceiling, noted: str) -> str:
    for one in noted:
        ceiling.note(one == "x")
    return ceiling.reached


def test_a_run() -> None:
    assert not reached(Ceiling(run=3, percent=0), "xx.xx.")
    assert reached(Ceiling(run=3, percent=0), "x.xxx") == "3 dead letters in a row"


def test_once_reached_it_stays() -> None:
    assert reached(Ceiling(run=3, percent=0), "xxx...") == "3 dead letters in a row"


def test_a_share_of_the_last_messages() -> None:
    assert not reached(Ceiling(run=0, percent=20, window=10), "x....x....x....x....")
    assert reached(Ceiling(run=0, percent=20, window=10), "...............x..x.x") == "3 of the last 10 messages are dead letters"


def test_the_first_messages_of_a_process_are_no_share() -> None:
    assert not reached(Ceiling(run=0, percent=20, window=10), "xx")
    assert reached(Ceiling(run=0, percent=20, window=10), "xxx")


def test_none_is_none() -> None:
    assert not reached(Ceiling(run=0, percent=0, window=10), "x" * 100)


@given(st.text("x.", max_size=60), st.integers(0, 5), st.integers(0, 100), st.integers(1, 12))
def test_it_is_what_counting_again_would_say(noted: str, run: int, percent: int, window: int) -> None:
    most = window * percent // 100
    expected = any(
        (run and noted[:end].endswith("x" * run)) or (most and noted[:end][-window:].count("x") > most)
        for end in range(1, len(noted) + 1)
    )
    assert bool(reached(Ceiling(run=run, percent=percent, window=window), noted)) == expected
