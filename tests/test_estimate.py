"""Traffic that doesn't exist yet: what it would cost, by the prices that the ledger has, and which input matters most."""

import csv
import io
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tallystick.cli import cli
from tallystick.estimate.bars import bar, span
from tallystick.estimate.models import meant
from tallystick.estimate.sensitivity import months, tornado
from tallystick.estimate.traffic import Traffic, bill, left_out
from tallystick.estimating import Rates

D = Decimal
TRAFFIC = Traffic(D(1000), D(20), D(1200), D(300), D("0.5"))
ASKED = ("--users", "1000", "--calls-per-user-day", "20", "--prompt", "1200", "--completion", "300")

PRICES = """
prices:
  models:
    - {model: lab-a, provider: lab, per_million_tokens: {input: 2, cache_read: 0.5, cache_write: 3, output: 10}}
    - {model: lab-b, provider: lab, per_million_tokens: {input: 1, output: 5}, per_request: 0.001,
       above: [{input_tokens: 1000, per_million_tokens: {input: 4}}]}
"""


def rates(**changed: str) -> Rates:
    """USD a million tokens."""
    usd = {"input": "2", "cache_read": "0.5", "cache_write_5m": "2", "output": "10"} | changed
    named = {name: D(value).scaleb(-6) for name, value in usd.items()}
    rest = dict.fromkeys(("cache_write_1h", "reasoning", "audio_input", "audio_output", "image_input", "request"), D(0))
    return Rates("price", **{**rest, **named}, larger=())


def test_a_month_by_hand() -> None:
    found = bill(TRAFFIC, rates())
    # 600 × 2 + 600 × 0.5 + 300 × 10 USD a million calls
    assert found.usd_per_call == D("0.0045")
    assert TRAFFIC.calls_per_month == D(608750)
    assert found.usd_per_month == D("2739.375")
    assert found.by_bucket["cache_write"] == 0


def test_writes_to_a_cache_are_charged_where_the_provider_does() -> None:
    dear = rates(cache_write_5m="2.5")
    assert bill(TRAFFIC, dear).by_bucket["cache_write"] == D("0.0015")
    assert bill(TRAFFIC, dear).by_bucket["input"] == 0
    assert "100% of what isn't read" in next(left_out(TRAFFIC, dear))
    half = TRAFFIC._replace(cache_write_share=D("0.5"))
    assert bill(half, dear).usd_per_call - bill(half, rates()).usd_per_call == D("0.00015")
    nothing = TRAFFIC._replace(cache_share=D(0))
    assert bill(nothing, dear) == bill(nothing, rates())
    assert not list(left_out(nothing, dear))


shares = st.decimals(0, 1, places=3)
counts = st.decimals(1, 100_000, places=1)


@given(counts, counts, counts, counts, shares, shares)
def test_more_of_anything_costs_no_less(
    users: Decimal, calls: Decimal, prompt: Decimal, completion: Decimal, cached: Decimal, written: Decimal
) -> None:
    traffic = Traffic(users, calls, prompt, completion, cached, written)
    of = rates(cache_write_5m="2.5")
    for swing in tornado(traffic, lambda changed: bill(changed, of).usd_per_month, D("0.5")):
        if swing.input != "cache share":
            assert swing.usd_low <= bill(traffic, of).usd_per_month <= swing.usd_high
    monthly = bill(traffic, of).usd_per_call * traffic.calls_per_month
    assert abs(monthly - bill(traffic, of).usd_per_month) < D("1e-9") * max(D(1), monthly)


def test_what_matters_most_comes_first() -> None:
    found = tornado(TRAFFIC, lambda traffic: bill(traffic, rates()).usd_per_month, D("0.5"))
    assert [one.input for one in found] == ["users", "calls a user and day", "completion tokens", "prompt tokens", "cache share"]
    assert (found[0].low, found[0].high, found[0].usd_low) == (D(500), D(1500), D("1369.6875"))
    assert (found[-1].low, found[-1].high) == (D("0.3"), D("0.7"))
    assert found[-1].usd_low > found[-1].usd_high
    ends = tornado(TRAFFIC._replace(cache_share=D("0.9")), lambda traffic: traffic.cache_share, D("0.5"))
    assert next(one for one in ends if one.input == "cache share").high == 1


def test_users_grow() -> None:
    assert months(lambda traffic: traffic.users, TRAFFIC, D("0.1"), 3) == [D(1000), D(1100), D(1210)]


def test_bars() -> None:
    assert bar(D(50), D(100), 10) == "█████"
    assert bar(D("0.0001"), D(100), 10) == "▏"
    assert bar(D(0), D(100)) == ""
    assert span(D(25), D(75), D(50), D(100), 9) == "··━━┃━━··"
    assert span(D(75), D(25), D(50), D(100), 9) == "··━━┃━━··"


@pytest.mark.parametrize(
    ("name", "said"),
    [("openai/gpt-5-minni", "openai/gpt-5-mini"), ("gpt-5-minni", "gpt-5-mini"), ("äöü", "tallystick prices list")],
)
def test_a_name_without_a_price_is_told_what_may_be_meant(name: str, said: str) -> None:
    assert said in meant(name)


def estimate(*args: str, code: int = 0) -> Any:
    done = CliRunner().invoke(cli, ["estimate", *ASKED, *args], standalone_mode=True)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "prices.yaml"
    file.write_text(PRICES)
    return str(file)


def test_by_the_users_prices_and_without_a_server(config: str) -> None:
    rows = json.loads(
        estimate("--models", "lab/lab-b,lab/lab-a,lab/lab-c", "--cache-share", "50%", "--config", config, "--json").stdout
    )
    assert [row["model"] for row in rows] == ["lab/lab-a", "lab/lab-b", "lab/lab-c"]
    # 600 × 0.5 written at 3, and 1,200 at the price of calls over 1,000
    assert D(rows[0]["usd_per_call"]) == (600 * D("0.5") + 600 * D(3) + 300 * D(10)) / 1_000_000
    assert D(rows[1]["usd_per_call"]) == (1200 * D(4) + 300 * D(5)) / 1_000_000 + D("0.001")
    assert rows[0]["price_id"].startswith("file@")
    assert "no discount for cached input" in rows[1]["note"]
    assert (rows[2]["usd_per_month"], rows[2]["sensitivity"]) == (None, [])
    assert "no price is known" in rows[2]["note"]


def test_the_public_list_is_what_there_is_without_a_file() -> None:
    (row,) = json.loads(estimate("--models", "openai/gpt-5-mini", "--json").stdout)
    assert row["price_id"].startswith("genai-prices@")
    assert D(row["usd_per_month"]) == D(608750) * (1200 * D("0.25") + 300 * D(2)) / 1_000_000


def test_a_table_and_a_page(config: str, tmp_path: Path) -> None:
    page = tmp_path / "estimate.html"
    done = estimate(
        "--models", "lab/lab-a,openai/gpt-5-mini", "--config", config, "--growth", "10%", "--months", "3", "--html", str(page)
    )
    assert "608,750 calls a month" in done.stdout
    assert "What lab/lab-a hangs on" in done.stdout
    assert "As users grow" in done.stdout
    html = page.read_text()
    assert html.count("<svg") >= 4
    assert "openai/gpt-5-mini" in html
    assert "http" not in html.split("<body>")[1]


def test_csv_has_a_line_a_model(config: str) -> None:
    rows = list(csv.DictReader(io.StringIO(estimate("--models", "lab/lab-a", "--config", config, "--csv").stdout)))
    assert [row["model"] for row in rows] == ["lab/lab-a"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--users", "0"), "more than 0"), (("--prompt", "many"), "no number"), (("--cache-share", "60"), "more than 1"),
        (("--swing", "0"), "more than 0"), (("--users", "NaN"), "isn't"), (("--users", "1e20"), "is more than"), (("--growth", "-2"), "at least -1"),
    ],
)  # fmt: skip
def test_numbers_that_are_none(args: tuple[str, ...], said: str) -> None:
    assert said in estimate("--models", "openai/gpt-5-mini", *args, code=2).output


def test_nothing_priced_is_a_failure() -> None:
    assert "nothing is left to estimate" in estimate("--models", "openai/gpt-99", code=1).output


def test_it_needs_none_of_the_probes_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("tallystick.estimate", "tallystick.probes"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("numpy", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    assert json.loads(estimate("--models", "openai/gpt-5-mini", "--json").stdout)
