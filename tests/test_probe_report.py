"""The report in a real browser: every section is there, nothing runs, nothing is asked of anybody, nothing is wider than the page."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from made_runs import HEALTH, SECOND, STARTED, info, ladder, record, stage, write
from test_page import browser  # noqa: F401

from tallystick.probes.config import Cost
from tallystick.probes.figures.definitions import definition
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.loading import LoadedRun, find_runs
from tallystick.probes.money.breakeven import ApiModel, breakeven
from tallystick.probes.records import LoadPoint, Outcome, Stage
from tallystick.probes.report.facts import differing, shared
from tallystick.probes.report.html import report, write_report
from tallystick.probes.report.limits import limit_of
from tallystick.probes.report.money import Money, priced
from tallystick.probes.report.wording import titled
from tallystick.probes.runs import State

SECTIONS = [
    "measured", "comparison", "latency", "throughput", "stages", "distribution", "timeline", "engine", "cache", "money", "failures",
    "doubts",
]  # fmt: skip
EVIL = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
COST = {"cost": {"usd_per_hour": "0.5"}}


def with_cost(**of: Any) -> dict[str, Any]:
    return {"engines": [{"name": name, "variant": {"quantisation": name}, **COST, **of} for name in ("F32", "Q8_0", EVIL)]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedRun]:
    """Three runs: one that is fine, one with failures and cache groups, one that ended before its end, of a hostile name."""
    data = tmp_path_factory.mktemp("data")
    write(data, info("F32", **with_cost()), *ladder(40, count=60))
    at, grouped = 0, []
    for index in range(80):
        at += SECOND // 2
        group = ("control", "warm")[index % 2]
        grouped.append(record(index, at, ttft_ms=40 - 25 * (index % 2) + index % 7, group=group, cached=90 * (index % 2)))
    cached = Stage(1, LoadPoint("poisson", rate=2), 0, at + SECOND, grouped, [], HEALTH)
    failing = stage(2, 4, ttft_ms=30, tpot_ms=5, count=60, failed=12, started_ns=cached.ended_ns)
    write(data, info("Q8_0", started_ns=STARTED + SECOND, **with_cost()), cached, failing)
    failed = replace(
        info(EVIL, started_ns=STARTED + 2 * SECOND, **with_cost()), id="failed", state=State.FAILED, failure=f"died: {EVIL}"
    )
    write(data, failed, *ladder(20, rates=(2,), count=12))
    return find_runs(data, "quantised")


@pytest.fixture(scope="module")
def paid(runs: list[LoadedRun]) -> Money:
    found = priced(runs)
    calls = [Call(index * 60 * SECOND, 1000 + index % 500, 0, 100 + index % 300) for index in range(2000)]
    api = ApiModel("openai/gpt-5-mini", lambda call: Decimal(call.input_tokens + 8 * call.output_tokens) / 4_000_000)
    against = [api, ApiModel("no/price", None, note="nobody knows")]
    return replace(found, breakevens={run: breakeven(calls, price, against) for run, price in found.prices.items()})


@pytest.fixture(scope="module")
def file(runs: list[LoadedRun], paid: Money, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, runs, now_ns=STARTED, money=paid)
    assert list(path.parent.iterdir()) == [path]
    return path


@pytest.fixture
def tab(browser: Any, file: Path) -> Iterator[Any]:  # noqa: F811
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(file.as_uri())
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get("about:blank")


def test_every_section_is_there_and_nothing_is_asked_of_anybody(tab: Any) -> None:
    assert tab.execute_script("return [...document.querySelectorAll('section')].map(one => one.id)") == SECTIONS
    filled = tab.execute_script(
        "return [...document.querySelectorAll('section')].filter(one => one.querySelector('.block')).map(one => one.id)"
    )
    assert filled == SECTIONS
    events = [json.loads(entry["message"])["message"] for entry in tab.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert {url for url in asked if not url.startswith(("file:", "data:", "about:"))} == set()
    assert tab.get_log("browser") == []
    assert tab.title.startswith("Probe quantised: F32, Q8_0, <img")


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_page(tab: Any, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    tab.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    tab.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.execute_script("return document.documentElement.scrollWidth") <= width
    beyond = """
        return [...document.querySelectorAll('h1, h2, h3, p, li, summary, dd, .scroll, .block, section')]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 200))"""
    assert tab.execute_script(beyond) == []


def test_pictures_say_what_they_show_and_have_their_figures_beside_them(tab: Any) -> None:
    for one in tab.execute_script("""
        return [...document.querySelectorAll('.block')].filter(one => one.querySelector('svg[role=img]')).map(one => ({
            label: one.querySelector('svg[role=img]').getAttribute('aria-label'), rows: one.querySelectorAll('tbody tr').length}))"""):
        assert len(one["label"]) > 40
        assert one["rows"] > 0
    unlabelled = "return [...document.querySelectorAll('th')].filter(one => !one.scope || !one.textContent.trim()).length"
    assert tab.execute_script(unlabelled) == 0


def test_texts_in_pictures_do_not_stand_over_each_other(tab: Any) -> None:
    over = """
        const found = [];
        for (const svg of document.querySelectorAll('svg[role=img]')) {
            const boxes = [...svg.querySelectorAll('text')].map(one => [one.getBoundingClientRect(), one.textContent]);
            boxes.forEach(([a, one], index) => boxes.slice(index + 1).forEach(([b, other]) => {
                const across = Math.min(a.right, b.right) - Math.max(a.left, b.left), down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (across > 1 && down > 4) found.push([one, other]);
            }));
        }
        return found"""
    assert tab.execute_script(over) == []


def test_figures_are_explained_where_they_stand(tab: Any) -> None:
    titles = tab.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('th[title]')].map(one => [one.textContent, one.title]))"
    )
    for name in ("ttft_p50", "ttft_scheduled_p95", "tpot_p50", "good_share", "output_tokens_per_s"):
        assert titles[titled(name)] == definition(name)


def test_in_the_dark_texts_can_be_read(tab: Any) -> None:
    contrast = """
        const part = value => (value /= 255) <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
        const shade = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(part); return .2126 * r + .7152 * g + .0722 * b; };
        const panel = shade(getComputedStyle(document.querySelector('section')).backgroundColor);
        return Math.min(...[...document.querySelectorAll('section p, section th, section td, section h2, summary, svg text')].map(one => {
            const style = getComputedStyle(one), ink = shade(one.tagName == 'text' ? style.fill : style.color);
            return (Math.max(ink, panel) + .05) / (Math.min(ink, panel) + .05); }))"""
    for scheme in ("light", "dark"):
        tab.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        assert tab.execute_script(contrast) >= 4.5
    tab.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_on_paper_figures_are_shown_without_a_click(tab: Any) -> None:
    hidden = "return [...document.querySelectorAll('details table')].filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length"
    assert tab.execute_script(hidden) > 0
    tab.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    # Chromium unlocks what was hidden when it draws the next frame.
    give_up = time.monotonic() + 30
    while (left := tab.execute_script(hidden)) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert left == 0
    tab.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


# --- what it says ---


def test_the_head_says_what_was_found(runs: list[LoadedRun], paid: Money) -> None:
    html = report(runs, now_ns=STARTED, money=paid)
    head = html[: html.index("<nav")]
    assert "F32 carries" in head
    assert "USD a million tokens" in head
    assert "is failed: died: &lt;img" in head
    assert "no/price has no price: nobody knows" in html
    assert "<img" not in html
    assert "<script" not in html


def test_failures_and_doubts_are_told_in_words(runs: list[LoadedRun]) -> None:
    html = report(runs, now_ns=STARTED)
    assert "refused (HTTP 503)" in html
    assert "12 of 60" in html
    assert "12 of 60 requests failed: the others had the engine for themselves" in html


def test_a_run_of_nothing_has_a_report(tmp_path: Path) -> None:
    nothing = replace(info("F32"), engine=None, state=State.FAILED, failure="nothing listens there", ended_ns=None)
    write(tmp_path, nothing)
    html = report(find_runs(tmp_path, "last"), now_ns=STARTED)
    assert "nothing listens there" in html
    assert all(f'<section id="{name}"' in html for name in SECTIONS)


def test_closed_loops_are_drawn_over_concurrency(tmp_path: Path) -> None:
    stages = [
        Stage(
            number, LoadPoint("closed", concurrency=4**number), number * 100 * SECOND, (number + 1) * 100 * SECOND,
            [record(index, (number * 100 + index) * SECOND, open_loop=False, ttft_ms=20 * number + index % 9) for index in range(40)], [], HEALTH,
        )
        for number in (1, 2)
    ]  # fmt: skip
    write(tmp_path, info("F32"), *stages)
    html = report(find_runs(tmp_path, "last"), now_ns=STARTED)
    assert "requests at once" in html
    assert "TTFT from schedule" not in html[html.index('<section id="latency"') : html.index('<section id="stages"')]


def test_what_cannot_be_trusted_is_drawn_hollow(tmp_path: Path) -> None:
    fine = ladder(20, rates=(2,), count=40)[0]
    assert " hollow s1" not in points_of(tmp_path / "fine", fine)
    cancelled = [replace(one, outcome=Outcome.CANCELLED) for one in fine.records[-6:]]
    censored = replace(fine, records=[*fine.records[:-6], *cancelled])
    late = replace(fine, health=replace(HEALTH, cpu_share=0.99))
    for name, doubtful in (("censored", censored), ("late", late)):
        drawn = points_of(tmp_path / name, doubtful)
        assert " hollow s1" in drawn
        assert "not to be trusted" in drawn


def points_of(data: Path, one: Stage) -> str:
    """The picture of TTFT."""
    write(data, info("F32"), one)
    html = report(find_runs(data, "last"), now_ns=STARTED)
    html = html[html.index('<section id="latency"') :]
    return html[html.index("<svg") : html.index("</svg>")]


def test_a_report_that_cannot_be_written_leaves_the_one_before(runs: list[LoadedRun], tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("before")
    path.with_name("report.html.new").mkdir()
    with pytest.raises(OSError, match=r"report\.html\.new"):
        write_report(path, runs, now_ns=STARTED)
    assert path.read_text() == "before"


def test_only_what_differs_is_told_to_differ(runs: list[LoadedRun]) -> None:
    infos = [run.info for run in runs]
    unlike = differing(infos)
    assert set(unlike) == {"engine.settings.quant", "entry.variant.quantisation"}
    assert unlike["entry.variant.quantisation"] == ("F32", "Q8_0", EVIL)
    alike = shared(infos)
    assert alike["engine.version"] == "b6000"
    assert not set(alike) & set(unlike)
    told = {*alike, *unlike}
    assert not any(name.startswith(("asked.engines", "engine.url")) for name in told)


def test_the_stage_that_is_looked_into_is_the_highest_within_the_target(runs: list[LoadedRun]) -> None:
    limit = limit_of(runs[0])
    assert limit.good is not None
    assert limit.stage is not None
    assert limit.good.rate == limit.stage.load.rate
    assert sum(one.outcome is Outcome.OK for one in limit.stage.records) == 60


def test_prices_need_a_cost_and_a_stage_within_the_target(runs: list[LoadedRun]) -> None:
    found = priced(runs)
    assert found.prices[runs[0].info.id].hour.usd_per_hour == Cost(usd_per_hour=Decimal("0.5")).usd_per_hour
    assert set(found.prices) | set(found.lacking) == {run.info.id for run in runs}
