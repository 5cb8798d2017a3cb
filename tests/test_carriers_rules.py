"""Rules: what they read of a request, what they say of a mistake, and what wins over what."""

import base64
import json
import logging
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from carried import run
from hypothesis import example, given
from hypothesis import strategies as st

import tallystick
from tallystick.collectors import failures
from tallystick.collectors.carriers.baggage import MAX_VALUE, is_attribution
from tallystick.collectors.carriers.incoming import INCOMING, Head
from tallystick.collectors.carriers.rules import SOURCES, BadRule, Rule, rule, rules, rules_of_file

ROOT = Path(__file__).parent.parent


def token(claims: object) -> str:
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims))
    return ".".join((*parts, "signature"))


def head(path: str = "/", query: str = "", **headers: str) -> Head:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Head(lambda name: given.get(name, ""), path, query, "127.0.0.1")


CLAIMS = {
    "org": {"id": "acme", "size": 7, "on": True, "list": [1]},
    "https://x.io/org": "dotted",
    "a.b": "whole",
    "a": {"b": "inner"},
    "n": None,
}


@pytest.mark.parametrize(
    ("words", "request_", "value"),
    [
        ({"header": "X-Customer"}, head(x_customer=" acme "), "acme"),
        ({"header": "x-customer"}, head(), None),
        ({"header": "x-customer"}, head(x_customer="  "), None),
        ({"path": "/v1/{customer}/chats"}, head("/v1/acme/chats/7"), "acme"),
        ({"path": "/v1/{customer}/chats"}, head("/v1/acme/chatsworth"), None),
        ({"path": "/v1/{customer}"}, head("/v1/acme"), "acme"),
        ({"path": "/{version}/{customer}/"}, head("/v2/acme/x"), "acme"),
        ({"path": "/v1/{customer}"}, head("/v1/"), None),
        ({"path": "/v1.0/{customer}"}, head("/v1x0/acme"), None),
        ({"path": "/v1/{customer}"}, head("/api/v1/acme"), None),
        ({"pattern": r"/(?P<feature>\w+)/c-(?P<customer>\w+)$"}, head("/chat/c-acme"), "acme"),
        ({"pattern": r"c-(\w+)"}, head("/chat/c-acme/x"), "acme"),
        ({"pattern": r"c-(\w+)?"}, head("/chat/c-"), None),
        ({"query": "customer"}, head(query="x=1&customer=ac%20me&customer=2"), "ac me"),
        ({"query": "customer"}, head(query="x=1"), None),
        ({"jwt": "org.id"}, head(authorization=f"Bearer {token(CLAIMS)}"), "acme"),
        ({"jwt": "org.id"}, head(authorization=f"bearer   {token(CLAIMS)}"), "acme"),
        ({"jwt": "org.size"}, head(authorization=f"Bearer {token(CLAIMS)}"), "7"),
        ({"jwt": "org.on"}, head(authorization=f"Bearer {token(CLAIMS)}"), "true"),
        ({"jwt": "org"}, head(authorization=f"Bearer {token(CLAIMS)}"), None),
        ({"jwt": "org.list"}, head(authorization=f"Bearer {token(CLAIMS)}"), None),
        ({"jwt": "org.id.deeper"}, head(authorization=f"Bearer {token(CLAIMS)}"), None),
        ({"jwt": "n"}, head(authorization=f"Bearer {token(CLAIMS)}"), None),
        ({"jwt": "https://x.io/org"}, head(authorization=f"Bearer {token(CLAIMS)}"), "dotted"),
        ({"jwt": "a.b"}, head(authorization=f"Bearer {token(CLAIMS)}"), "whole"),
        ({"jwt": "org.id", "header": "X-Id-Token"}, head(x_id_token=token(CLAIMS)), "acme"),
        ({"jwt": "org.id"}, head(authorization="Bearer x.y.z"), None),
        ({"jwt": "org.id"}, head(authorization="Basic eDp5"), None),
        ({"jwt": "org.id"}, head(authorization=f"Bearer {token([1])}"), None),
        ({"jwt": "org.id"}, head(), None),
        ({"value": "acme"}, head(), "acme"),
        ({"value": "acme", "match": "/v1"}, head("/v1/x"), "acme"),
        ({"value": "acme", "match": "/v1"}, head("/v1"), "acme"),
        ({"value": "acme", "match": "/v1/"}, head("/v1/x"), "acme"),
        ({"value": "acme", "match": "/v1"}, head("/v10"), None),
        ({"header": "x-customer", "map": {"1": "acme"}}, head(x_customer="1"), "acme"),
        ({"header": "x-customer", "map": {"1": "acme"}}, head(x_customer="2"), None),
        ({"header": "x-customer"}, head(x_customer="x" * 999), "x" * MAX_VALUE),
    ],
)
def test_a_rule_reads(words: dict[str, Any], request_: Head, value: str | None) -> None:
    assert rule({"set": "customer", **words}).value(request_) == value


def test_a_tag_is_named_in_a_path_by_its_own_name() -> None:
    found = rule({"set": "tag.plan", "path": "/{customer}/{plan}"})
    assert (found.attribute, found.value(head("/acme/pro/x"))) == ("tallystick.tag.plan", "pro")


WRONG = [
    ({}, "set is missing"),
    ({"set": "tenant", "value": "x"}, "set = 'tenant' is none of customer"),
    ({"set": "tag.", "value": "x"}, "none of customer"),
    ({"set": "customer"}, "here from none"),
    ({"set": "customer", "value": "x", "query": "y"}, "here from query and value"),
    ({"set": "customer", "jwt": "x", "query": "y"}, "here from query and jwt"),
    ({"set": "customer", "claim": "x"}, "unknown: claim; a rule has set, header"),
    ({"set": "customer", "header": 1}, "header isn't a text"),
    ({"set": "customer", "header": ""}, "header isn't a text"),
    ({"set": "customer", "path": "/v1/{feature}"}, "has no segment {customer}"),
    ({"set": "customer", "path": "/{customer}/{customer}"}, "or several"),
    ({"set": "customer", "path": "v1/{customer}"}, "doesn't begin with /"),
    ({"set": "customer", "pattern": "("}, "no regular expression: missing ), unterminated subpattern"),
    ({"set": "customer", "pattern": "x"}, "no group, such as (?P<customer>"),
    ({"set": "customer", "value": "x", "map": {"a": 1}}, "map isn't a table of texts"),
    ({"set": "customer", "value": "x", "match": ["/"]}, "match isn't a text"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_mistake_is_named(words: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRule, match=re.escape(said)):
        rule(words)


@pytest.fixture(autouse=True)
def as_if_nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(failures, "_reported", type(failures._reported)())
    before = INCOMING.rules
    yield
    INCOMING.rules = before


def test_the_others_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        'strange = 1\n[[rule]]\nset = "customer"\nheader = "x-customer"\n'
        '[[rule]]\nset = "custommer"\nvalue = "x"\n[[rule]]\nset = "team"\nvalue = "search"\n'
    )
    assert [found.attribute for found in rules_of_file(str(file))] == ["tallystick.customer", "tallystick.team"]
    said = [record.message for record in caplog.records]
    assert said[0] == f"tallystick: scope rules in {file}: strange means nothing here; rules are [[rule]]"
    assert said[1].startswith(f"tallystick: scope rules in {file}: rule 2 is left out: set = 'custommer' is none of")
    assert len(said) == 2
    assert rules(["no table", {"set": "team", "value": "x"}], "scope_rules")[0].attribute == "tallystick.team"
    assert "scope_rules: rule 1 is left out: it is no table" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file or directory"), (b"[[rule]\n", "at line 1, column 7"), (b"\xff", "codec can't decode")],
)
def test_a_file_that_cannot_be_read_leaves_no_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, said: str
) -> None:
    file = tmp_path / "rules.toml"
    if content is not None:
        file.write_bytes(content)
    assert rules_of_file(str(file)) == ()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert said in record.message
    assert "there are no rules" in record.message


def test_one_table_is_one_rule(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[rule]\nset = "team"\nvalue = "x"\n')
    assert len(rules_of_file(str(file))) == 1


def test_code_wins_over_rules_and_rules_over_baggage() -> None:
    tallystick.scope_rules([
        {"set": "feature", "header": "x-feature"},
        {"set": "feature", "value": "second"},
        {"set": "team", "value": "by rule"},
    ])  # fmt: skip
    came = INCOMING.of(lambda: head(baggage="tallystick.feature=b,tallystick.customer=b,tallystick.team=b"))
    assert came == {"tallystick.customer": "b", "tallystick.feature": "second", "tallystick.team": "by rule"}
    came = INCOMING.of(lambda: head(x_feature="first"))
    assert came["tallystick.feature"] == "first"
    tallystick.scope_rules([])
    assert INCOMING.of(head) == {}


def test_rules_in_a_service(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(
        '[[rule]]\nset = "customer"\njwt = "org.id"\n[[rule]]\nset = "feature"\npath = "/v1/{feature}"\n'
        '[[rule]]\nset = "tag.plan"\nquery = "plan"\nmap = { p = "pro" }\n'
    )
    found = run(
        """
        import json, os
        import tallystick.auto, tallystick
        from tallystick.collectors.scope import attribution
        import fastapi, flask
        from fastapi.testclient import TestClient
        asked = {"authorization": "Bearer " + os.environ["TOKEN"], "baggage": "tallystick.customer=b,tallystick.user=u"}
        one, two = fastapi.FastAPI(), flask.Flask("two")
        @one.get("/v1/{feature}")
        def answer(feature):
            with tallystick.scope(agent="a"):
                return attribution()
        @two.get("/v1/<feature>")
        def answer(feature):
            with tallystick.scope(feature="code's"):
                return attribution()
        print(json.dumps([
            TestClient(one).get("/v1/search?plan=p", headers=asked).json(),
            two.test_client().get("/v1/search?plan=p", headers=asked).json,
        ]))
        """,
        TALLYSTICK_SCOPE_RULES=str(file),
        TOKEN=token(CLAIMS),
    )
    ruled = {"tallystick.customer": "acme", "tallystick.user": "u", "tallystick.feature": "search", "tallystick.tag.plan": "pro"}
    assert found == [ruled | {"tallystick.agent": "a"}, ruled | {"tallystick.feature": "code's"}]


def test_a_service_runs_without_the_file_it_is_told_of() -> None:
    said = re.escape("scope rules in /missing.toml: No such file or directory; there are no rules")
    with pytest.raises(AssertionError, match=said):
        run("import tallystick.auto\nprint(1)", TALLYSTICK_SCOPE_RULES="/missing.toml")


ANY = st.text(max_size=30) | st.integers() | st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(), max_size=2)
SETS = st.sampled_from(["customer", "tag.x", "tenant", ""])


@given(st.dictionaries(st.sampled_from(["set", *SOURCES, "match", "map", "x"]) | st.text(max_size=5), ANY | SETS, max_size=4))
@example({"set": "customer", "path": "/{customer}"})
def test_any_words_are_a_rule_or_a_mistake(words: dict[str, Any]) -> None:
    with suppress(BadRule):
        found = rule(words)
        assert isinstance(found, Rule)
        assert is_attribution(found.attribute)


@given(
    st.text(max_size=80),
    st.text(max_size=80),
    st.text(max_size=200) | st.recursive(st.text() | st.integers(), st.lists).map(token),
)
@example("/", "", f"a.{base64.urlsafe_b64encode(b'[' * 6000).decode()}.b")
@example("/", "", f"a.{base64.urlsafe_b64encode(b'9' * 5000).decode()}.b")
def test_any_request_is_read_or_ignored(path: str, query: str, authorization: str) -> None:
    asked = Head(lambda _: authorization, path, query, None)
    for words in ({"header": "x"}, {"path": "/{customer}"}, {"query": "q"}, {"jwt": "a.b"}, {"pattern": "(.*)"}):
        value = rule({"set": "customer", **words}).value(asked)
        assert value is None or 0 < len(value) <= MAX_VALUE


def test_the_examples_in_the_documentation_are_rules() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "propagation.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        for words in tomllib.loads(block)["rule"]:
            rule(words)
