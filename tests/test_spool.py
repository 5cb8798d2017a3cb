"""The queue on disk: whatever is done to its process, its file and its disk, what was put is read, in its order."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from server import CLEAN

from tallystick.ingest.errors import DataDirectoryInUse, StoreUnavailable
from tallystick.ingest.spool import FILE, Message, Spool, SpoolFull


def message(number: int, size: int = 100) -> Message:
    """Of bytes that can't be compressed."""
    return Message(b"%d " % number + os.urandom(size), [("tallystick-number", b"%d" % number), ("tenant", "ä".encode())], number)


def numbers(spool: Spool) -> list[int]:
    """Of all that is in it, as it is read."""
    found: list[int] = []
    last = 0
    while read := spool.read(last, 10_000):
        found += [one.message.timestamp_ms for one in read]
        last = read[-1].number
    return found


def filled(spool: Spool, put: int, size: int) -> int:
    """The number of the message that isn't taken any more."""
    for number in range(put, put + 1_000):
        try:
            spool.put([message(number, size)])
        except SpoolFull:
            return number
    raise AssertionError("it takes everything")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "data", 10 << 20)
    yield made
    made.close()


def test_what_was_put_is_read(spool: Spool) -> None:
    one, two = message(1), message(2, 200_000)
    spool.put([one, two])
    assert [read.message for read in spool.read(0, 1 << 20)] == [one, two]
    assert [read.message for read in spool.read(0, 1)] == [one], "one at least"
    assert (spool.waiting.messages, spool.waiting.refused) == (2, 0)


def test_a_second_process_gets_a_clear_error(spool: Spool, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tallystick.ingest.spool import Spool; Spool(Path(sys.argv[1]), 1 << 20)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "data"], capture_output=True, text=True, env=CLEAN, check=False)
    assert f"DataDirectoryInUse: another process holds {tmp_path / 'data' / FILE}" in done.stderr
    spool.put([message(1)])
    # Nor after an error, when the file is opened anew.
    filled(spool, 2, 3_000_000)
    spool.remove(10)
    spool.put([message(1)])
    with pytest.raises(DataDirectoryInUse):
        Spool(tmp_path / "data", 1 << 20)
    assert numbers(spool) == [1]


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="can't be used: Not a directory"):
        Spool(tmp_path / "file" / "data", 1 << 20)


def test_it_takes_no_more_than_it_may_and_gives_the_room_back(spool: Spool, tmp_path: Path) -> None:
    put = filled(spool, 0, 100_000)
    assert 85 < put <= 105
    assert numbers(spool) == list(range(put)), "what was refused left nothing"
    # What is refused for its size doesn't hinder what is smaller.
    spool.put([message(put, 10)])
    assert spool.remove(30) == 30
    for number in range(put + 1, put + 25):
        spool.put([message(number, 100_000)])
    assert numbers(spool) == list(range(30, put + 25))
    held = sum(one.stat().st_size for one in (tmp_path / "data").iterdir())
    assert held < (10 << 20) + (18 << 20), "the file and its log"
    spool.remove(10_000)
    assert spool.waiting.messages == 0
    assert sum(one.stat().st_size for one in (tmp_path / "data").iterdir()) < 1 << 20


def test_a_full_disk_loses_nothing_and_is_gone_on_with(tmp_path: Path) -> None:
    """A limit of the file's size is to a process what a full disk is."""
    spool = Spool(tmp_path, 1 << 30)
    spool.put([message(0, 500_000)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
    put = 1
    try:
        # A queue that is closed after an error of the disk has room in its log again, where that was what grew too large.
        for _ in range(4):
            put = filled(spool, put, 500_000)
        assert numbers(spool) == list(range(put))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    spool.put([message(put)])
    spool.close()
    again = Spool(tmp_path, 1 << 30)
    assert numbers(again) == list(range(put + 1))
    again.close()


def test_what_no_broker_takes_is_kept_until_the_next_start(spool: Spool, tmp_path: Path) -> None:
    spool.put([message(number) for number in range(4)])
    second = spool.read(0, 10_000)[1].number
    spool.refuse(second)
    assert (numbers(spool), spool.waiting.refused) == ([0, 2, 3], 1)
    spool.remove(second)
    spool.close()
    again = Spool(tmp_path / "data", 10 << 20)
    assert (numbers(again), again.waiting.refused) == ([2, 3, 1], 0)
    again.close()


def test_a_file_of_garbage_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_bytes(os.urandom(100_000))
    spool = Spool(tmp_path, 1 << 20)
    spool.put([message(1)])
    assert numbers(spool) == [1]
    spool.close()
    (aside,) = tmp_path.glob("spool.damaged-*")
    assert aside.stat().st_size == 100_000
    assert "the spool is damaged" in caplog.text
    assert str(aside) in caplog.text


def test_of_a_damaged_file_what_can_be_read_is_carried_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, 10 << 20)
    spool.put([message(number, 40_000) for number in range(100)])
    spool.close()
    with (tmp_path / FILE).open("r+b") as file:
        file.seek(2_000_000)
        file.write(os.urandom(50_000))
    again = Spool(tmp_path, 10 << 20)
    found = numbers(again)
    assert 90 <= len(found) < 100
    assert found == sorted(found)
    again.put([message(100)])
    assert numbers(again) == [*found, 100]
    again.close()
    assert f"{len(found)} messages that can be read are carried over" in caplog.text


def test_a_file_that_is_damaged_under_way_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path, 10 << 20)
    spool.put([message(number, 40_000) for number in range(20)])
    connection = spool._connection
    assert connection is not None
    connection.execute("UPDATE waiting SET value = zeroblob(100) WHERE number = 3")
    assert numbers(spool) == [0, 1, *range(3, 20)]
    spool.put([message(20)])
    assert numbers(spool) == [0, 1, *range(3, 21)]
    spool.close()
    assert "19 messages that can be read are carried over of 20" in caplog.text
    (aside,) = [one for one in tmp_path.glob("spool.damaged-*") if not one.name.endswith(("-wal", "-shm"))]
    with sqlite3.connect(aside) as kept:
        assert kept.execute("SELECT count(*) FROM waiting").fetchone() == (20,)
    kept.close()


WRITER = """
import sys
from pathlib import Path
from tallystick.ingest.spool import Message, Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
number, removed = int(sys.argv[2]), 0
while True:
    spool.put([Message(b"%d" % one * 5_000, [], one) for one in range(number, number + 3)])
    number += 3
    print("put", number, flush=True)
    if number % 2:
        first, second = spool.read(0, 1 << 20)[:2]
        print("removing", second.message.timestamp_ms, flush=True)
        spool.remove(second.number)
"""


def test_a_killed_process_loses_nothing_that_was_put(tmp_path: Path) -> None:
    put = removing = 0
    for round_ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, str(put)], stdout=subprocess.PIPE, text=True, env=CLEAN
        )
        assert process.stdout is not None
        for line in process.stdout:
            done, number = line.split()
            put, removing = (int(number), removing) if done == "put" else (put, int(number))
            if done == "put" and process.poll() is None and put % (7 + 5 * round_) < 3:
                process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.returncode == -signal.SIGKILL
        spool = Spool(tmp_path, 1 << 30)
        found = numbers(spool)
        spool.close()
        assert found == sorted(set(found))
        assert set(range(removing + 1, put)) <= set(found), "everything that was put and wasn't being removed"
        # Of the transaction under way all or nothing was kept.
        assert max(found) in {put - 1, put + 2}
        put = max(found) + 1


class Queue(RuleBasedStateMachine):
    """Beside a list. Opening it anew changes nothing but that what was refused comes back, last; so it is with a process that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.place.name), 4 << 20)
        self.waiting: list[int] = []
        self.refused: list[int] = []
        self.next = 0

    @rule(sizes=st.lists(st.sampled_from([0, 10, 20_000, 300_000]), min_size=1, max_size=4))
    def put(self, sizes: list[int]) -> None:
        messages = [message(self.next + place, size) for place, size in enumerate(sizes)]
        try:
            self.spool.put(messages)
        except SpoolFull:
            assert sum(sizes) + self.spool.waiting.used > 3 << 20
            return
        self.waiting += [one.timestamp_ms for one in messages]
        self.next += len(sizes)

    @precondition(lambda self: self.waiting)
    @rule(share=st.floats(0, 1))
    def remove(self, share: float) -> None:
        count = int(share * len(self.waiting))
        read = self.spool.read(0, 1 << 30)
        assert self.spool.remove(read[count].number) == count + 1
        del self.waiting[: count + 1]

    @precondition(lambda self: self.waiting)
    @rule(share=st.floats(0, 1, exclude_max=True))
    def refuse(self, share: float) -> None:
        place = int(share * len(self.waiting))
        self.spool.refuse(self.spool.read(0, 1 << 30)[place].number)
        self.refused.append(self.waiting.pop(place))

    @rule()
    def open_anew(self) -> None:
        self.spool.close()
        self.spool = Spool(Path(self.place.name), 4 << 20)
        self.waiting += sorted(self.refused)
        self.refused = []

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        assert numbers(self.spool) == self.waiting
        assert self.spool.waiting.messages == len(self.waiting)
        assert self.spool.waiting.refused == len(self.refused)

    def teardown(self) -> None:
        self.spool.close()
        self.place.cleanup()


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
