"""Invoices beside a real ledger: fetched, compared, explained and trued up, on the command line and over HTTP."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import otlp
import pytest
from server import CLEAN, COMMAND, Server

from tallystick.cli import main
from tallystick.client import Client, Refused
from tallystick.testing.billing import ADMIN_KEY, BillingServer, Failure, Used

FIRST = datetime.now(UTC).date() - timedelta(days=9)
LAST = FIRST + timedelta(days=1)
"""Days with calls of tenants acme (customers a, b, c) and globex."""

MINI = "gpt-4o-mini-2024-07-18"
RATES = (Decimal("0.15"), Decimal("0.075"), Decimal(0), Decimal(0), Decimal("0.60"))
CALL = Decimal("0.00021")


def used(day: date, calls: int, *, model: str = MINI, rates: tuple[Decimal, ...] = RATES) -> Used:
    """What so many calls of otlp.GOOD are on an invoice."""
    return Used(day, model, (1000 * calls, 0, 0, 0, 100 * calls), rates)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Ten calls on the first day, four on the last, of one customer each by turns; the last two are globex'."""
    with Server(tmp_path_factory.mktemp("reconcile") / "data") as running:
        acme, globex = running.key("acme"), running.key("globex")
        noon = int(datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=UTC).timestamp()) * 10**9
        for at in range(14):
            start = noon + at * 10**9 + (86_400 * 10**9 if at >= 10 else 0)
            span = otlp.span(f"reconcile {at}", start_ns=start, attributes={"tallystick.customer": "abc"[at % 3]})
            running.post_all([otlp.request(span)], key=globex if at >= 12 else acme)
        yield running


class Done(NamedTuple):
    stdout: str
    stderr: str


def cli(*arguments: str, code: int = 0, **env: str) -> Done:
    """The command in this process: a process each would take longer than what is tested."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.object(sys, "argv", ["tallystick", "reconcile", *arguments]),
        patch.dict(os.environ, CLEAN | env, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert (ended.value.code or 0) == code, f"{out.getvalue()}\n{err.getvalue()}"
    return Done(out.getvalue(), err.getvalue())


def fetched(billing: BillingServer, file: Path, provider: str = "openai", *, code: int = 0) -> Done:
    span = ("--since", f"{FIRST}", "--until", f"{LAST + timedelta(days=1)}")
    env = {f"{provider.upper()}_ADMIN_KEY": ADMIN_KEY}
    return cli("fetch", provider, *span, "-o", str(file), "--api-url", billing.url, code=code, **env)


def compared(ledger: Server, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    return list(json.loads(cli(*arguments, "--url", ledger.url, "--json", code=code).stdout))


def plain(tmp_path: Path, *rows: str) -> str:
    file = tmp_path / "invoice.csv"
    file.write_text("day,provider,model,input_tokens,output_tokens,cost_usd,item\n" + "\n".join(rows) + "\n")
    return str(file)


def cost(ledger: Server, day: date) -> Decimal:
    (row,) = ledger.sql(f"SELECT sum(cost_usd) AS cost FROM charges WHERE toDate(started_at) = '{day}'")
    return Decimal(row["cost"])


def test_what_is_fetched_agrees_with_the_ledger(ledger: Server, tmp_path: Path) -> None:
    file = tmp_path / "october.ndjson"
    with BillingServer([used(FIRST, 10), used(LAST, 4)], page_days=1) as billing:
        done = fetched(billing, file)
        assert "6 pages" in done.stderr
        assert ADMIN_KEY not in file.read_text() + done.stdout + done.stderr
        assert "had all pages" in fetched(billing, file).stderr
        assert len(billing.paths) == 6
    rows = compared(ledger, str(file))
    assert [(row["day"], row["model"], row["calls"], row["verdict"], row["difference_usd"]) for row in rows] == [
        (f"{FIRST}", "gpt-4o-mini", 10, "within", "0.000000000000"), (f"{LAST}", "gpt-4o-mini", 4, "within", "0.000000000000"),
    ]  # fmt: skip
    assert [(row["tokens"], row["invoice_tokens"]) for row in rows] == [(11_000, 11_000), (4_400, 4_400)]


def test_anthropics_reports_are_fetched_and_read(ledger: Server, tmp_path: Path) -> None:
    file = tmp_path / "anthropic.ndjson"
    with BillingServer([used(FIRST, 10, model="claude-sonnet-4-5-20250929")]) as billing:
        assert "2 pages" in fetched(billing, file, "anthropic").stderr
    (row,) = compared(ledger, str(file))
    assert (row["provider"], row["model"], row["calls"], row["verdict"]) == ("anthropic", "claude-sonnet-4-5", 0, "over")
    assert [part["kind"] for part in row["parts"]] == ["unmetered"]


def test_a_fetch_waits_when_asked_to_and_goes_on_where_it_stopped(ledger: Server, tmp_path: Path) -> None:
    file = tmp_path / "october.ndjson"
    failures = {0: Failure(429, "0"), 2: Failure(200, body=b'{"object": "page", "data": [{"obj')}
    with BillingServer([used(FIRST, 10), used(LAST, 4)], page_days=1, failures=failures) as billing:
        broken = fetched(billing, file, code=1)
        assert "answered something other than a page of a report" in broken.stderr
        assert "1 pages are kept: run it again" in broken.stderr
        with file.open("a") as half:
            half.write('{"report": "/v1/organi')
        assert "it goes on where it stopped" in cli(str(file), code=1).stderr
        fetched(billing, file)
        assert sum("/costs?" in path for path in billing.paths) == 4
    assert [row["verdict"] for row in compared(ledger, str(file))] == ["within", "within"]


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (Failure(401), "OPENAI_ADMIN_KEY must hold an admin key of the organization"),
        (Failure(404), "openai answered 404 to /v1/organization/costs: failed as asked for"),
    ],
)
def test_a_fetch_that_is_refused(tmp_path: Path, failure: Failure, said: str) -> None:
    with BillingServer([], failures={0: failure}) as billing:
        done = fetched(billing, tmp_path / "x", code=1)
        assert len(billing.paths) == 1
    assert said in done.stderr
    assert "nothing was fetched yet" in done.stderr


def test_a_wrong_key_is_not_printed(tmp_path: Path) -> None:
    wrong = "sk-not-this-one"
    with BillingServer([]) as billing:
        arguments = ("fetch", "openai", "--since", f"{FIRST}", "-o", str(tmp_path / "x"), "--api-url", billing.url)
        done = cli(*arguments, code=1, OPENAI_ADMIN_KEY=wrong)
    assert "Incorrect API key provided" in done.stderr
    assert wrong not in done.stderr
    assert "OPENAI_ADMIN_KEY isn't set" in cli(*arguments, code=1).stderr


def test_a_key_goes_nowhere_in_the_clear(tmp_path: Path) -> None:
    arguments = ("fetch", "openai", "--since", f"{FIRST}", "-o", str(tmp_path / "x"), "--api-url", "http://example.com")
    assert "in the clear" in cli(*arguments, code=1, OPENAI_ADMIN_KEY=ADMIN_KEY).stderr


def test_a_file_of_another_fetch_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_text("my own notes")
    with BillingServer([]) as billing:
        assert "holds something other than pages" in fetched(billing, file, code=1).stderr
    assert file.read_text() == "my own notes"


def test_differences_are_explained(ledger: Server, tmp_path: Path) -> None:
    rows = compared(
        ledger,
        plain(
            tmp_path,
            f"{FIRST},openai,{MINI},10000,1000,0.00189,",
            f"{LAST},openai,gpt-4o-mini,5000,500,0.00105,",
            f"{LAST},openai,,,,0.5,tax",
        ),
    )
    assert [[(part["kind"], Decimal(part["usd"])) for part in row["parts"]] for row in rows] == [
        [("price", Decimal("-0.00021"))], [("other_item", Decimal("0.5"))], [("unmetered", Decimal("0.00021"))],
    ]  # fmt: skip
    assert rows[0]["parts"][0]["text"] == "0.1718 instead of 0.1909 USD per million tokens"
    assert [row["verdict"] for row in rows] == ["over"] * 3


def test_calls_that_the_invoice_does_not_name(ledger: Server, tmp_path: Path) -> None:
    rows = compared(ledger, plain(tmp_path, f"{FIRST},openai,gpt-5,10,10,1,", f"{LAST},openai,gpt-5,10,10,1,"))
    assert [(row["model"], row["on_invoice"], row["parts"][0]["kind"]) for row in rows] == [
        ("gpt-4o-mini", False, "not_billed"), ("gpt-5", True, "unmetered"),
    ] * 2  # fmt: skip


def test_usage_alone_is_compared_by_tokens(ledger: Server, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(
        f"day,provider,model,input_tokens,output_tokens\n{FIRST},openai,{MINI},10000,1000\n{LAST},openai,{MINI},4000,500\n"
    )
    rows = compared(ledger, str(file))
    assert [(row["verdict"], row["invoice_usd"], row["difference_usd"]) for row in rows] == [
        ("within", None, None),
        ("over", None, None),
    ]
    assert [row["verdict"] for row in compared(ledger, str(file), "--tolerance", "3%")] == ["within", "within"]


def test_csv_and_table_and_over(ledger: Server, tmp_path: Path) -> None:
    file = plain(tmp_path, f"{FIRST},openai,{MINI},10000,1000,0.0021,", f"{LAST},openai,,,,0.5,=tax")
    shown = cli(file, "--url", ledger.url, "--csv").stdout
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(shown))] == ["within", "over", "over"]
    table = cli(file, "--url", ledger.url, "--over")
    assert f"{FIRST}" not in table.stdout
    assert "the difference is, in USD: other_item 0.50" in table.stderr.replace("not_billed -0.00084000, ", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--true-up",), "needs a --reason"),
        (("--reason", "x"), "--reason is for --true-up"),
        (("--tolerance", "much"), "is no percentage"),
        (("--rate", "EUR"), "isn't as EUR=1.08"),
        (("--since", "2026-10-01T05:00:00"), "whole days"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in cli(plain(tmp_path, f"{FIRST},openai,x,1,1,1,"), *arguments, code=2).stderr


def test_bad_files_and_foreign_money(ledger: Server, tmp_path: Path) -> None:
    half = tmp_path / "half.json"
    half.write_text('{"object": "page", "da')
    assert "isn't whole JSON; nothing of it was used" in cli(str(half), code=1).stderr
    euros = tmp_path / "euros.csv"
    euros.write_text(f"day;provider;model;cost;currency\n{FIRST};openai;{MINI};0,00105;EUR\n")
    refused = cli(str(euros), code=1).stderr
    assert "the amount is in EUR" in refused
    assert "--rate EUR=1.08" in refused
    row = compared(ledger, str(euros), "--rate", "EUR=2")[0]
    assert (row["invoice_usd"], row["verdict"]) == ("0.002100000000", "within")


def test_true_up_spreads_to_the_last_decimal_once(ledger: Server, tmp_path: Path) -> None:
    """The last test: it changes the ledger."""
    file = plain(
        tmp_path,
        f"{FIRST},openai,{MINI},10000,1000,0.0022,",
        f"{LAST},openai,{MINI},4000,400,0.0001,",
        f"{LAST},openai,,,,0.5,tax",
    )
    before = ledger.sql("SELECT count() AS n FROM charges")[0]["n"]
    command = [*COMMAND, "reconcile", file, "--url", ledger.url, "--true-up", "--reason", "invoice 4711"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=CLEAN, timeout=60)
    assert "trued up as" in done.stderr
    assert cost(ledger, FIRST) == Decimal("0.0022")
    assert cost(ledger, LAST) == Decimal("0.5001")
    trued = ledger.sql(
        "SELECT tenant, customer, cost_usd, reason, calls, toString(started_at) AS at FROM charges WHERE entry = 'trueup' ORDER BY ALL"
    )
    assert len(trued) == ledger.sql("SELECT count() AS n FROM charges")[0]["n"] - before
    assert {row["tenant"] for row in trued} == {"acme", "globex", "default"}
    assert {(row["reason"], row["calls"]) for row in trued} == {("invoice 4711", 0)}
    by_customer = {
        row["customer"]: row["cost"]
        for row in ledger.sql(
            f"SELECT customer, sum(cost_usd) AS cost FROM charges WHERE entry = 'trueup' AND toDate(started_at) = '{FIRST}' GROUP BY customer"
        )
    }
    # 0.0001 over 4, 3 and 3 calls.
    assert by_customer == {"a": Decimal("0.00004"), "b": Decimal("0.00003"), "c": Decimal("0.00003")}

    again = compared(ledger, file)
    assert {row["verdict"] for row in again} == {"within"}
    assert {Decimal(row["difference_usd"]) for row in again} == {Decimal(0)}
    # Nothing differs: there is nothing to enter.
    assert "trued up as" not in cli(file, "--url", ledger.url, "--true-up", "--reason", "again").stderr

    # A corrected invoice trues up the rest, in one line a model and day.
    corrected = plain(tmp_path, f"{FIRST},openai,{MINI},10000,1000,0.0020,")
    cli(corrected, "--url", ledger.url, "--true-up", "--reason", "credit note", "--spread", "none")
    assert cost(ledger, FIRST) == Decimal("0.0020")
    (rest,) = ledger.sql("SELECT customer, tenant, cost_usd FROM charges WHERE reason = 'credit note'")
    assert (rest["customer"], rest["tenant"], rest["cost_usd"]) == ("", "default", Decimal("-0.0002"))

    # What was invoiced before, and differs again, was made already.
    file = plain(
        tmp_path,
        f"{FIRST},openai,{MINI},10000,1000,0.0022,",
        f"{LAST},openai,{MINI},4000,400,0.0001,",
        f"{LAST},openai,,,,0.5,tax",
    )
    refused = cli(file, "--url", ledger.url, "--true-up", "--reason", "third", code=1).stderr
    assert "was made already" in refused
    assert "undo" in refused


def test_over_http_operators_only_and_bounded(ledger: Server) -> None:
    line = {"provider": "openai", "model": MINI, "day": f"{FIRST}", "cost_usd": "1"}
    with Client(ledger.url, ledger.key("acme")) as tenant, pytest.raises(Refused) as refused:
        tenant.reconcile({"lines": [line]})
    assert refused.value.status == 403
    with Client(ledger.url, ledger.key("acme", operator=True)) as operator:
        found = operator.reconcile({"lines": [line], "tolerance": "1"})
        assert (found["rows"][0]["model"], found["totals"]["over"], found["correction"]) == ("gpt-4o-mini", 0, None)
        for lines, code in (
            ([], 422),
            ([line | {"tokens": -1}], 422),
            ([line | {"cost_usd": "NaN"}], 422),
            ([line | {"bucket": "inputs"}], 422),
            ([line, line | {"day": "2020-01-01"}], 400),
            ([line | {"source": "a"}, line | {"source": "b"}], 400),
        ):
            with pytest.raises(Refused) as refused:
                operator.reconcile({"lines": lines})
            assert refused.value.status == code, lines
    too_long = ledger.http.post("/v1/reconcile", content=iter([b"{}"]))
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (413, "too_long")


def test_without_a_server_the_directory_answers(ledger: Server, tmp_path: Path) -> None:
    """Ends the server."""
    ledger.stop()
    file = plain(tmp_path, f"{LAST},openai,{MINI},4000,400,0.0003,")
    command = [*COMMAND, "reconcile", file, "--data", str(ledger.data), "--true-up", "--reason", "local", "--json"]
    told = [json.loads(_ran(command)), json.loads(_ran([*command[:-4], "--json"]))]
    mine = [next(row["difference_usd"] for row in rows if row["model"]) for rows in told]
    assert mine == ["0.000200000000", "0.000000000000"]


def _ran(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=CLEAN, timeout=60).stdout
