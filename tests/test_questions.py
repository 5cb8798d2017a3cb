"""The registry of named questions: what their heads promise, and what is said of parameters that can't be."""

import re
from datetime import UTC, datetime

import pytest
from asked import NOW, asked, of_example

from tallystick.attribution.questions import BadParameter, Question, UnknownQuestion, ask_query, fill, questions, read_question
from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.ingest.store import Store

ALL = list(questions().values())
HEAD = """-- What is it?
--
-- definition:
-- * n: how many; that
--   goes on
-- parameters:
-- * by dimensions customer|day|kind|tag: = customer: what to group by
-- * since time = 7d: from when
-- * until time = now: before when
-- * rate number = 0.5: a rate
-- * name text: a name
-- * mode choice plain|fancy = plain: how
-- * note text = tag:x: a note
-- example: tallystick ask it --param name=x
"""


def of(body: str) -> Question:
    return read_question("it", HEAD + body)


@pytest.mark.parametrize("question", ALL, ids=lambda one: one.name)
def test_a_question_is_told_in_full(question: Question) -> None:
    assert question.sentence.endswith((".", "?"))
    assert question.name == question.name.lower().replace("_", "-")
    for parameter in question.parameters.values():
        assert parameter.kind != "choice" or parameter.choices
        assert parameter.default is None or parameter.kind in ("text", "filters") or parameter.default
    used = set(re.findall(r"\{(\w+):", question.body)) | set(re.findall(r"/\*(\w+)", question.body))
    assert used - {"now", "period", "before"} <= question.parameters.keys()


@pytest.mark.parametrize("question", ALL, ids=lambda one: one.name)
def test_its_example_runs_and_its_figures_are_defined(question: Question, chdb_store: Store) -> None:
    given = of_example(question)
    query = ask_query(question.name, given, NOW)
    columns = set(query_columns(chdb_store, query.text, query.params))
    by = given.get("by") or (question.parameters["by"].default if "by" in question.parameters else "")
    names = set(str(by[0] if isinstance(by, list) else by).split(",")) - {"", "total"}
    assert columns == names | question.definition.keys()


@pytest.mark.parametrize("question", [one for one in ALL if "by" in one.parameters], ids=lambda one: one.name)
def test_everything_can_be_asked_as_one_row_and_by_a_tag(question: Question, chdb_store: Store) -> None:
    offered = question.parameters["by"].choices
    for by in ("total", "tag:plan", "tag:it's `quoted`"):
        if by == "total" or not offered or "tag:" in offered:
            asked(chdb_store, None, question.name, **{**of_example(question), "by": by})


def query_columns(store: Store, text: str, params: dict[str, object]) -> list[str]:
    with store.reader(None, READER_SETTINGS) as reader:
        return [column.name for column in run(reader, text, params).columns]


def test_a_head_is_read() -> None:
    question = of("SELECT 1")
    assert question.sentence == "What is it?"
    assert question.definition == {"n": "how many; that goes on"}
    assert [(p.name, p.kind, p.default) for p in question.parameters.values()] == [
        ("by", "dimensions", "customer"),
        ("since", "time", "7d"),
        ("until", "time", "now"),
        ("rate", "number", "0.5"),
        ("name", "text", None),
        ("mode", "choice", "plain"),
        ("note", "text", "tag:x"),
    ]
    assert question.parameters["by"].choices == ("customer", "day", "kind", "tag:")
    assert question.body == "SELECT 1"


@pytest.mark.parametrize("left_out", ["definition", "parameters", "example"])
def test_a_head_must_be_whole(left_out: str) -> None:
    with pytest.raises(ValueError, match=left_out):
        read_question("it", HEAD.replace(f"-- {left_out}:", "--") + "SELECT 1")


def test_a_parameter_must_be_of_a_kind() -> None:
    with pytest.raises(ValueError, match="note texts"):
        read_question("it", HEAD.replace("note text", "note texts") + "SELECT 1")


def test_places_are_filled() -> None:
    question = of("/*by:expressions*/ | /*by:names*/ | {rate:Float64} {name:String} {since:DateTime64(9, 'UTC')}")
    query = fill(question, {"by": "day,kind,tag:a`b", "name": "it's", "since": "2026-11-01T12:00:00"}, NOW)
    assert query.text == (
        "toDate(started_at) AS `day`, `kind` AS `kind`, tags[{by_2:String}] AS `tag:a\\`b`,  | `day`, `kind`, `tag:a\\`b`,  | "
        "{rate:Float64} {name:String} {since:DateTime64(9, 'UTC')}"
    )
    assert query.params == {"by_2": "a`b", "rate": "0.5", "name": "it's", "since": "2026-11-01 12:00:00.000000000"}


def test_the_period_before_is_as_long() -> None:
    query = fill(of("/*period*/ /*before*/"), {"name": "x", "since": "2026-11-08", "until": "2026-11-15"}, NOW)
    day = (datetime(2026, 11, 8, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    assert query.params == {"period_since": day, "period_until": day + 7, "before_since": day - 7, "before_until": day}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nam": "x"}, "nam: it has no such parameter: did you mean name?"),
        ({}, "name: it must be given: a name"),
        ({"name": ["x", "y"]}, "name: it is given more than once"),
        ({"name": "x", "by": "customr"}, "by: no dimension 'customr': did you mean customer?"),
        ({"name": "x", "by": "model"}, "by: no dimension 'model': there are customer, day, kind, tag:"),
        ({"name": "x", "by": " , "}, "by: nothing to group by; `total` is one row of everything"),
        ({"name": "x", "since": "last week"}, "since: 'last week' is no time: write 30d"),
        ({"name": "x", "since": "2026-11-02", "until": "2026-11-02"}, "since: it isn't before `until`"),
        ({"name": "x", "rate": "half"}, "rate: 'half' is no number"),
        ({"name": "x", "rate": "NaN"}, "rate: 'NaN' is no number"),
        ({"name": "x", "rate": "1e30"}, "rate: '1e30' is no number"),
        ({"name": "x", "mode": "fanci"}, "mode: 'fanci' is no choice: did you mean fancy?"),
    ],
)
def test_a_bad_parameter_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(BadParameter) as refused:
        fill(of("SELECT /*by:expressions*/ {name:String}"), given, NOW)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"where": "customer"}, "where: 'customer' isn't DIMENSION=VALUE"),
        ({"where": ["customer=a", "costumer=b"]}, "where: no dimension 'costumer': did you mean customer?"),
        ({"limit": "-1"}, "limit: '-1' is no whole number from 0 to 1,000,000,000"),
        ({"limit": "1.5"}, "limit: '1.5' is no whole number"),
    ],
)
def test_a_bad_filter_or_count_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(BadParameter) as refused:
        ask_query("spend", given, NOW)
    assert str(refused.value).startswith(said)


def test_an_unknown_question_is_guessed() -> None:
    with pytest.raises(UnknownQuestion, match=r"no question 'spent': did you mean spend\?"):
        ask_query("spent", {}, NOW)
