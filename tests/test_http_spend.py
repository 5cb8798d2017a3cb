"""/v1/spend and /v1/dimensions on the real server: the ledger's figures, in pages that fit together, and 304 only when nothing has changed."""

import csv
import io
import random
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp import request, span
from pydantic import BaseModel
from server import Server

from tallystick.ingest.payload import PayloadError
from tallystick.server.ledger_state import etag, unchanged
from tallystick.server.pages import read, written

CUSTOMERS = 7


class Asker:
    """GET requests with one key."""

    def __init__(self, server: Server, key: str) -> None:
        self.server, self.key = server, key

    def get(self, path: str, tag: str | None = None, **params: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}"} | ({"if-none-match": tag} if tag else {})
        return self.server.http.get(path, params=params or None, headers=headers)

    def send(self, name: str, customer: str, input_tokens: int = 1000, **attributes: Any) -> None:
        who = {"tallystick.customer": customer, "gen_ai.usage.input_tokens": input_tokens, **attributes}
        self.server.post_all([request(span(name, attributes=who))], self.key)

    def pages(self, path: str, meanwhile: Any = None, **params: Any) -> list[dict[str, Any]]:
        """All of them; `meanwhile` is done after each."""
        found = [self.get(path, **params).raise_for_status().json()]
        while found[-1]["next"]:
            if meanwhile:
                meanwhile()
            found.append(self.get(path, **params, cursor=found[-1]["next"]).raise_for_status().json())
        return found


@pytest.fixture(scope="module")
def acme(server: Server) -> Asker:
    """28 calls of seven customers, one of whom is called as a spreadsheet's formula; one call has no price."""
    asker = Asker(server, server.key("spend-acme"))
    calls = [
        span(
            f"spend-{number}",
            attributes={
                "tallystick.customer": f"c{number % CUSTOMERS}" if number % CUSTOMERS else "=1+1",
                "tallystick.feature": ["chat", "search"][number % 2],
                "gen_ai.usage.input_tokens": 1000 + number,
                **({"gen_ai.request.model": "lab", "gen_ai.response.model": "lab"} if number == 1 else {}),
            },
        )
        for number in range(4 * CUSTOMERS)
    ]
    server.post_all([request(*calls)], asker.key)
    return asker


def test_the_figures_are_the_ledgers(acme: Asker) -> None:
    told = acme.get("/v1/spend", by="customer,feature").json()
    rows = acme.server.sql(
        "SELECT customer, feature, sum(calls) AS calls, sum(input_tokens) AS input, sum(output_tokens) AS output, sum(cost_usd) AS cost"
        " FROM charges GROUP BY customer, feature",
        acme.key,
    )
    assert {(one["by"]["customer"], one["by"]["feature"]): one for one in told["rows"]}.keys() == {
        (row["customer"], row["feature"]) for row in rows
    }
    for row in rows:
        one = next(one for one in told["rows"] if one["by"] == {"customer": row["customer"], "feature": row["feature"]})
        assert (one["calls"], one["input_tokens"], one["output_tokens"]) == (row["calls"], row["input"], row["output"])
        assert Decimal(one["cost_usd"]) == row["cost"]
    total = told["total"]
    assert Decimal(total["cost_usd"]) == sum(row["cost"] for row in rows)
    assert (total["calls"], total["groups"], total["calls_priced"]) == (28, len(rows), 27 / 28)
    assert sum(one["share"] for one in told["rows"]) == pytest.approx(1)
    costs = [Decimal(one["cost_usd"]) for one in told["rows"]]
    assert costs == sorted(costs, reverse=True)
    assert told["definition"].keys() == told["rows"][0].keys() - {"by"}


def test_filters_and_tags(acme: Asker) -> None:
    one = acme.get("/v1/spend", by="feature", where=["customer=c1", "feature=search"]).json()
    assert [(row["by"], row["calls"]) for row in one["rows"]] == [({"feature": "search"}, 2)]
    assert acme.get("/v1/spend", by="total").json()["rows"][0]["by"] == {}
    assert acme.get("/v1/spend", by="tag:plan").json()["rows"][0]["by"] == {"tag:plan": ""}
    nothing = acme.get("/v1/spend", where="customer=nobody").json()
    assert (nothing["rows"], nothing["total"]["calls"], nothing["total"]["cost_usd"]) == ([], 0, None)


def test_as_it_was_known(acme: Asker) -> None:
    assert acme.get("/v1/spend", as_of="2026-01-01").json()["total"]["calls"] == 0
    assert acme.get("/v1/spend", as_of="now").json()["total"]["calls"] == 28


def test_pages_are_of_the_ledger_as_the_first_page_saw_it(server: Server) -> None:
    asker = Asker(server, server.key("spend-pages"))
    for number in range(5):
        asker.send(f"paged-{number}", f"c{number}", 1000 - number)
    whole = asker.get("/v1/spend").json()
    numbers = iter(range(100))

    def more() -> None:
        # It would come first, and push others to the next page.
        asker.send(f"paged-more-{next(numbers)}", "c4", 100_000)

    for meanwhile in (None, more):
        pages = asker.pages("/v1/spend", meanwhile, limit=2)
        assert [len(page["rows"]) for page in pages] == [2, 2, 1]
        assert [row for page in pages for row in page["rows"]] == whole["rows"]
        assert all(page["total"] == whole["total"] for page in pages)
    assert asker.get("/v1/spend").json()["rows"][0]["by"] == {"customer": "c4"}


def test_the_next_page_is_linked(acme: Asker) -> None:
    first = acme.get("/v1/spend", by="customer", limit=3, format="csv", where="feature=chat")
    link = first.links["next"]["url"]
    second = acme.get(link)
    assert len(first.text.splitlines()) == len(second.text.splitlines()) == 4
    assert set(first.text.splitlines()) & set(second.text.splitlines()) == {first.text.splitlines()[0]}
    assert "next" not in acme.get(second.links["next"]["url"]).links


def test_csv_holds_no_formulas(acme: Asker) -> None:
    answer = acme.get("/v1/spend", by="customer", format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    told = acme.get("/v1/spend", by="customer").json()["rows"]
    assert "'=1+1" in [row["customer"] for row in rows]
    assert [row["cost_usd"] for row in rows] == [row["cost_usd"] for row in told]


@pytest.mark.parametrize(
    ("params", "code", "said"),
    [
        ({"by": "custmer"}, 400, "did you mean customer?"),
        ({"by": ""}, 400, "0 dimensions"),
        ({"by": "tag:"}, 400, "no dimension 'tag:'"),
        ({"by": "tag:\0"}, 400, "nothing is called so"),
        ({"where": "customer"}, 400, "isn't DIMENSION=VALUE"),
        ({"where": "nobody=x"}, 400, "no dimension 'nobody'"),
        ({"where": ["customer=a", "customer=b"]}, 400, "two values at once"),
        ({"where": "customer=" + "x" * 1001}, 400, "nothing is called so"),
        ({"since": "soon"}, 400, "since: 'soon' is no time"),
        ({"since": "2026-05-02", "until": "2026-05-01"}, 400, "since isn't before until"),
        ({"as_of": "2300-01-01"}, 400, "as_of"),
        ({"cursor": "x"}, 400, "of no answer to this question"),
        ({"limit": "0"}, 422, "limit"),
        ({"format": "xml"}, 422, "format"),
    ],
)
def test_bad_questions_are_told_what_is_wrong(acme: Asker, params: dict[str, Any], code: int, said: str) -> None:
    answer = acme.get("/v1/spend", **params)
    assert answer.status_code == code
    assert said in answer.json()["error"]["message"]
    assert answer.json()["error"]["hint"]


def test_a_cursor_is_of_one_question(acme: Asker) -> None:
    cursor = acme.get("/v1/spend", limit=2).json()["next"]
    others: list[dict[str, Any]] = [{"by": "feature"}, {"since": "29d"}, {"where": "feature=chat"}, {"as_of": "now"}]
    for other in others:
        answer = acme.get("/v1/spend", cursor=cursor, **other)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor")
    assert acme.get("/v1/charges", cursor=cursor).json()["error"]["code"] == "bad_cursor"
    assert len(acme.get("/v1/spend", cursor=cursor, limit=4).json()["rows"]) == 4


class Number(BaseModel):
    n: int


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: written(["q"], data.hex())))
def test_no_cursor_of_somebody_elses_making_does_more_than_be_refused(cursor: str) -> None:
    with pytest.raises(PayloadError, match="of no answer to this question"):
        read(["q"], cursor, Number)


def test_nothing_is_told_twice_to_who_has_it_and_everything_to_who_doesnt(server: Server) -> None:
    """A timeline of questions and of calls, the asker's own and others'."""
    own, other = Asker(server, server.key("spend-etag")), Asker(server, server.key("spend-etag-other"))
    operator = Asker(server, server.key("spend-etag-ops", operator=True))
    script = random.Random(6)
    # Of the operator's customers, who are all tests', those that are meant here: a page of all may not show them.
    paths = ["/v1/spend", "/v1/charges", "/v1/dimensions/customer/values?prefix=etag-"]
    kept: dict[tuple[str, str], tuple[str, bytes, int]] = {}
    entered = {"own": 0, "all": 0}
    answers: list[int] = []
    for step in range(40):
        match script.choice(["own", "other", "ask", "ask", "ask"]):
            case "own":
                own.send(f"etag-{step}", f"etag-c{step % 3}")
                entered = {name: number + 1 for name, number in entered.items()}
            case "other":
                other.send(f"etag-{step}", "etag-c0")
                entered["all"] += 1
            case _:
                path, (who, asker) = script.choice(paths), script.choice([("own", own), ("all", operator)])
                tag, body, version = kept.get((path, who), ("", b"", -1))
                answer = asker.get(path, tag or None)
                answers.append(answer.status_code)
                assert answer.status_code == (304 if version == entered[who] else 200), (step, path, who)
                assert answer.headers["cache-control"] == "private, no-cache"
                if answer.status_code == 304:
                    assert answer.headers["etag"] == tag
                    assert answer.content == b""
                    assert asker.get(path).content == body
                else:
                    assert answer.content != body
                    kept[path, who] = answer.headers["etag"], answer.content, entered[who]
    assert answers.count(304) > 3
    assert answers.count(200) > 8


def test_tags_differ_by_question_and_asker(acme: Asker, server: Server) -> None:
    questions: list[dict[str, Any]] = [
        {},
        {"by": "feature"},
        {"limit": 5},
        {"format": "csv"},
        {"where": "feature=chat"},
        {"since": "29d"},
    ]
    asked = [acme.get("/v1/spend", **params).headers["etag"] for params in questions]
    asked.append(Asker(server, server.key("spend-nobody")).get("/v1/spend").headers["etag"])
    assert len(set(asked)) == len(asked)


def test_which_tags_match() -> None:
    tag = etag("acme", "state", ["q"])
    assert unchanged(tag, tag)
    assert unchanged(f'"other", W/{tag}', tag)
    assert not unchanged(None, tag)
    assert not unchanged("*", tag)
    assert not unchanged(tag[:-2] + '"', tag)
    assert etag("acme", "state", ["q", None]) != etag("acme", "state", ["q"]) != etag(None, "state", ["q"])


def test_dimensions_and_their_values(acme: Asker) -> None:
    names = [one["name"] for one in acme.get("/v1/dimensions").json()["dimensions"]]
    assert {"customer", "model", "day", "correction"} - set(names) <= {"correction"}
    for name in [*names, "tag", "tag:plan"]:
        assert acme.get(f"/v1/dimensions/{name}/values").status_code == 200, name
    values = acme.get("/v1/dimensions/customer/values", prefix="c", limit=3).json()
    assert ([value["value"] for value in values["values"]], values["more"]) == (["c1", "c2", "c3"], True)
    assert {value["calls"] for value in values["values"]} == {4}
    assert acme.get("/v1/dimensions/customer/values", prefix="=").json()["more"] is False
    assert acme.get("/v1/dimensions/custmer/values").status_code == 400


def test_every_dimension_has_a_meaning() -> None:
    from tallystick.attribution.dimensions import MEANINGS
    from tallystick.attribution.spend import DIMENSIONS

    assert MEANINGS.keys() == DIMENSIONS.keys()


def test_a_tenant_sees_its_own(server: Server, acme: Asker) -> None:
    stranger = Asker(server, server.key("spend-stranger"))
    cursor = acme.get("/v1/spend", limit=2).json()["next"]
    for path, params in [("/v1/spend", {}), ("/v1/charges", {}), ("/v1/spend", {"cursor": cursor})]:
        answer = stranger.get(path, **params).json()
        assert not [*answer.get("rows", []), *answer.get("charges", [])], path
    assert stranger.get("/v1/dimensions/tenant/values").json()["values"] == []
