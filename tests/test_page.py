"""The page in a real browser on the real server: its totals are SQL's, names stay text, it speaks to its server only."""

import base64
import hashlib
import importlib.util
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from otlp import SCOPE, request, span
from server import Server, free_port

import tallystick.attribution
from tallystick.attribution.spend import DIMENSIONS
from tallystick.client import Client

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

PAGE = Path(tallystick.attribution.__file__ or "").with_name("page.html").read_text(encoding="utf-8")
HOUR_NS = 3_600_000_000_000
LONG = "long" * 60
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\">",
    "</script><script>document.title='owned'</script>",
    'o\'reilly "quoted" `ticked`',
    "back\\slash \\' \\n",
    "tab\tnew\nline",
    "{since:Int64} ${name} /*dimensions*/",
    "\u202egnp.exe",
    "Łódź 🧾",
    LONG,
    "",
)
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


# Without a browser


def test_policy_allows_the_inline_text_and_no_other() -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', PAGE)
    assert policy
    wanted = {}
    for tag in ("style", "script"):
        (inline,) = re.findall(rf"^<{tag}>(.*?)</{tag}>$", PAGE, re.DOTALL | re.MULTILINE)
        wanted[f"{tag}-src"] = f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules == {
        **wanted,
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_dimensions_are_those_of_spend() -> None:
    block = re.search(r"^const DIMENSIONS = \{(.*?)^\};", PAGE, re.DOTALL | re.MULTILINE)
    assert block
    found = dict(re.findall(r'(\w+): "([^"]*)"', block[1]))
    assert len(found) > 10
    for name, expression in found.items():
        assert expression in (DIMENSIONS[name], f"toString({DIMENSIONS[name]})")


def colours(block: str) -> dict[str, tuple[float, float, float]]:
    def parsed(text: str) -> tuple[float, float, float]:
        text = "".join(2 * digit for digit in text) if len(text) == 3 else text
        red, green, blue = (int(text[at : at + 2], 16) / 255 for at in (0, 2, 4))
        return red, green, blue

    return {name: parsed(text) for name, text in re.findall(r"--([\w-]+): #([0-9a-f]{6}|[0-9a-f]{3});", block)}


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Of two sRGB colours, 1 to 21. https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(colour: tuple[float, float, float]) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_is_aa(scheme: int) -> None:
    colour = colours(re.findall(r":root \{(.*?)\}", PAGE, re.DOTALL)[scheme])
    for text in ("text", "muted", "bad", "warn", "accent"):
        for ground in ("panel", "ground", "hover"):
            assert contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
    assert contrast(colour["on-accent"], colour["accent"]) >= 4.5
    for series in range(7):
        assert contrast(colour[f"s{series}"], colour["panel"]) >= 3, series


# In a browser


class Page:
    """A tab at the server's page. `allowed`: what the console may complain of, by a part of its message."""

    def __init__(self, driver: "Chrome", url: str) -> None:
        self.driver = driver
        self.url = url
        self.allowed: tuple[str, ...] = ()
        # What came before, such as the browser's own first page.
        driver.get("about:blank")
        for log in ("browser", "performance"):
            driver.get_log(log)  # type: ignore[no-untyped-call]

    def run(self, script: str, *args: Any) -> Any:
        return self.driver.execute_script(script, *args)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.text('body')}"
            time.sleep(0.02)

    def open(self, where: str = "") -> None:
        """A view in a fresh document of the same tab."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/{where}")
        self.settled()

    def settled(self) -> None:
        """Wait until the view that the address asks for is there, with all that is in it."""
        self.until(lambda: self.run("return document.body?.dataset.shown === location.hash"), "not loaded")
        assert self.run("return document.getElementById('failure').hidden"), self.text("#failure")

    def click(self, selector: str, index: int = 0) -> None:
        self.driver.find_elements("css selector", selector)[index].click()

    def keys(self, selector: str, text: str) -> None:
        self.driver.find_element("css selector", selector).send_keys(text)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def texts(self, selector: str) -> list[str]:
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map(node => node.textContent)", selector))

    def title(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0]).title", selector))

    def shown(self) -> dict[str, Any]:
        """The totals as the page has them, to the last digit."""
        cost = self.title("#spend").removesuffix(" USD")
        buckets = {
            name: self.title(f"[data-bucket={name}]").split(", ")[0] for name in ("input", "cache_read", "cache_write", "output")
        }
        return {
            "cost": Decimal(cost) if cost else None,
            "calls": int(self.text("#calls").replace(",", "")),
            "tokens": int(self.title("#tokens").replace(",", "")),
            **{name: None if text == "–" else int(text.replace(",", "")) for name, text in buckets.items()},
        }

    def rows(self) -> dict[str, int]:
        """Calls by name in the table."""
        cells = "[...row.cells].find(cell => cell.dataset.column === 'calls').textContent"
        pairs = self.run(
            f"return [...document.querySelectorAll('#groups tbody tr')].map(row => [row.cells[0].textContent, {cells}])"
        )
        assert len(dict(pairs)) == len(pairs)
        return {name: int(calls.replace(",", "")) for name, calls in pairs}

    def end(self) -> None:
        logs = [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]  # type: ignore[no-untyped-call]
        assert not [entry["message"] for entry in logs if not any(text in entry["message"] for text in self.allowed)]
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]  # type: ignore[no-untyped-call]
        asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
        assert {url for url in asked if not url.startswith((f"{self.url}/", "data:"))} == set()
        assert asked
        assert self.driver.title == "tallystick"


def missing() -> str:
    """What the browser tests lack here; '' if nothing."""
    if importlib.util.find_spec("selenium") is None:
        return "selenium isn't installed: pip install -e '.[dev]'"
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "chromium isn't installed: apt-get install chromium chromium-driver"
    return ""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chrome]":
    if reason := missing():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Calls for hostile names over five hours: priced, unpriced, failed, broken off, and the dearest one told twice."""
    with Server(tmp_path_factory.mktemp("page") / "data") as running:
        now = time.time_ns()
        none = {"gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "gen_ai.response.finish_reasons": None}
        spans = []
        for index, name in enumerate(HOSTILE):
            who = {"tallystick.customer": name, "tallystick.feature": f"feature {index % 3}", "tallystick.tag.plan": name}
            for call in range(index + 1):
                usage = {"gen_ai.usage.input_tokens": 1000 * index + 7 * call + 300, "gen_ai.usage.cache_read.input_tokens": 128}
                stream = {"gen_ai.request.stream": True, "gen_ai.response.time_to_first_chunk": 0.1 * (call + 1)}
                start = now - (1 + call % 5) * HOUR_NS
                spans.append(span(f"{index} {call}", start_ns=start, attributes=who | usage | stream))
            house = {"gen_ai.provider.name": "vllm", "gen_ai.request.model": name or "house-7b", "gen_ai.response.model": None}
            spans.append(span(f"{index} unpriced", attributes=who | house))
            for error in ("RateLimitError", "CancelledError"):
                spans.append(span(f"{index} {error}", error=error, attributes=who | none | {"error.type": error}))
        assert running.post(request(*spans)).status_code == 200
        # The inner span tells more of the usage, so that it takes the place of the outer one, which came first.
        for name, parent, scope in (("outer", None, "opentelemetry.instrumentation.openai_v2"), ("inner", "outer", SCOPE)):
            twice = {"tallystick.customer": "twice", "gen_ai.response.id": "one", "gen_ai.usage.input_tokens": 100_000_000}
            start = now - HOUR_NS + (parent is not None)
            told = request(span("twice", name, parent=parent, start_ns=start, attributes=twice), scope=scope)
            assert running.post(told).status_code == 200
        yield running


@pytest.fixture
def page(browser: "Chrome", ledger: Server) -> Iterator[Page]:
    tab = Page(browser, ledger.url)
    yield tab
    tab.end()


def sums(server: Server, condition: str = "1", **params: str) -> dict[str, Any]:
    """What the page should show, asked over single entries."""
    query = f"""
        SELECT sum(cost_usd) AS cost, sum(calls) AS calls, sum(input_tokens) AS input, sum(cache_read_tokens) AS cache_read,
            sum(output_tokens) AS output, if(isNull(sum(cache_write_5m_tokens)) AND isNull(sum(cache_write_1h_tokens)), NULL,
            ifNull(sum(cache_write_5m_tokens), 0) + ifNull(sum(cache_write_1h_tokens), 0)) AS cache_write,
            ifNull(input, 0) + ifNull(cache_read, 0) + ifNull(cache_write, 0) + ifNull(output, 0) AS tokens
        FROM charges WHERE {condition}"""
    with Client(server.url) as client:
        (row,) = client.sql(query, params).dicts()
    return row


def test_totals_are_those_of_sql(page: Page, ledger: Server) -> None:
    page.open()
    wanted = sums(ledger)
    assert wanted["cost"] > 0
    assert page.shown() == wanted
    for name, status in (("errors", "error"), ("cancelled", "cancelled")):
        share = ledger.sql(f"SELECT sumIf(calls, status = '{status}') / sum(calls) AS share FROM charges")[0]["share"]
        assert share > 0
        assert page.text(f"#{name}") == f"{name} {int(share * 1000) / 10} %"


def test_spend_says_how_much_is_priced(page: Page, ledger: Server) -> None:
    page.open("#by=model")
    (share,) = ledger.sql("SELECT sumIf(output_tokens + input_tokens + cache_read_tokens, isNotNull(cost_usd)) AS priced, "
                          "sum(output_tokens + input_tokens + cache_read_tokens) AS tokens FROM charges")  # fmt: skip
    assert 0 < share["priced"] < share["tokens"]
    assert page.text("#coverage") == f"{int(share['priced'] / share['tokens'] * 1000) / 10} % of tokens priced"
    assert page.text("#totals dt") == "Spend, at least"
    unpriced = ledger.sql(
        f"SELECT {DIMENSIONS['model']} AS model, sum(calls) AS calls FROM charges WHERE cost_usd IS NULL GROUP BY model"
    )
    assert len(unpriced) >= len(HOSTILE)
    listed = page.run(
        "return [...document.querySelectorAll('#unpriced tbody tr')].map(tr => [...tr.cells].map(cell => cell.textContent))"
    )
    assert {(row[0], int(row[3])) for row in listed} == {(row["model"], row["calls"]) for row in unpriced}
    page.open("#by=model&is.model=house-7b")
    assert page.text("#spend") == "not priced"
    assert page.text("#groups tbody [data-column=cost]") == "not priced"
    assert "$0" not in page.text("#totals") + page.text("#groups .wide")


def test_a_click_filters_and_goes_on_to_the_next_dimension(page: Page, ledger: Server) -> None:
    page.open()
    names = page.texts("#groups tbody td:first-child")
    assert sorted(names) == sorted([*filter(None, HOSTILE), "(none)", "twice"])
    page.click("#groups tbody button", names.index(HOSTILE[0]))
    page.settled()
    assert page.text(".chip") == f"customer: {HOSTILE[0]} ×"
    assert page.text("#groups h2") == "By feature"
    assert page.shown() == sums(ledger, "customer = {name:String}", name=HOSTILE[0])
    page.click("#groups tbody tr td:last-child")
    page.settled()
    assert page.texts(".chip")[1].startswith("feature: feature ")
    assert page.text("#groups h2") == "By agent"
    page.driver.back()
    page.driver.back()
    page.settled()
    assert page.shown() == sums(ledger)


@pytest.mark.parametrize("name", [*HOSTILE[2:6], ""])
def test_names_stay_text_and_bind(page: Page, ledger: Server, name: str) -> None:
    page.open("#" + str(httpx.QueryParams({"by": "customer", "is.customer": name, "is.tag:plan": name})))
    assert page.texts("#groups tbody td:first-child") == [name or "(none)"]
    wanted = sums(ledger, "customer = {name:String}", name=name)
    assert wanted["calls"] > 0
    assert page.shown() == wanted
    # What is shown as SQL can be run as it stands, and means the same.
    assert ledger.sql(page.texts("#totals details pre")[0])[0]["cost"] == wanted["cost"]
    assert page.run("return document.images.length + document.scripts.length") == 1


def test_a_filter_is_taken_off(page: Page, ledger: Server) -> None:
    page.open("#is.customer=&is.tag:plan=")
    assert page.texts(".chip") == ["customer: (none) ×", "tag plan: (none) ×"]
    page.click(".chip")
    page.settled()
    assert page.shown() == sums(ledger, "tags['plan'] = ''")


@pytest.mark.parametrize("by", ["tag:plan", "tag:it's \\ odd"])
def test_tags_divide(page: Page, ledger: Server, by: str) -> None:
    page.open("#" + str(httpx.QueryParams({"by": by})))
    assert page.text("#groups h2") == f"By tag {by[4:]}"
    tag = by[4:].replace("\\", "\\\\").replace("'", "\\'")
    wanted = {
        row["name"]: row["calls"]
        for row in ledger.sql(f"SELECT tags['{tag}'] AS name, sum(calls) AS calls FROM charges GROUP BY name")
    }
    assert page.rows() == {name or "(none)": calls for name, calls in wanted.items()}


def test_dimensions_divide_the_same_total(page: Page, ledger: Server) -> None:
    page.open()
    for name in ("model", "team", "status", "usage_source", "entry"):
        page.run("const by = document.getElementById('by'); by.value = arguments[0]; by.dispatchEvent(new Event('change'))", name)
        page.settled()
        assert page.text("#groups h2") == f"By {name}"
        divided = (
            f"SELECT toString({DIMENSIONS[name]}) AS name, sum(calls) AS calls, sum(cost_usd) AS cost FROM charges GROUP BY name"
        )
        wanted = {row["name"] or "(none)": row["calls"] for row in ledger.sql(divided) if row["calls"] or row["cost"]}
        assert page.rows() == wanted
        assert page.title("#groups tfoot [data-column=cost]") == page.title("#spend")


def test_the_chart_is_the_ledger_by_the_hour(page: Page, ledger: Server) -> None:
    page.open("#period=24h&show=calls")
    rows = page.run("return chart.bars.flatMap(([time, rows]) => rows.map(row => [time, row.series, row.all_calls]))")
    by_hour = {hour: sum(calls for time, _, calls in rows if time == hour) for hour, _, _ in rows}
    query = "SELECT toUnixTimestamp(toStartOfHour(started_at)) AS hour, sum(calls) AS calls FROM charges GROUP BY hour"
    assert by_hour == {row["hour"]: row["calls"] for row in ledger.sql(query)}
    series = [sum(calls for _, number, calls in rows if number == index) for index in range(7)]
    table = list(page.rows().items())
    assert series == [sum(calls for _, calls in table[6:]), *(calls for _, calls in table[:6])]
    assert page.texts(".legend li") == [*(name for name, _ in table[:6]), "all others"]
    # The bars of an hour stand upon each other, from the ground to the hour's sum.
    tops, ground, top, label = page.run("""
        const tops = {}, lines = [...document.querySelectorAll('#bars line')].map(line => line.y1.baseVal.value);
        for (const bar of document.querySelectorAll('#bars rect:not(.cursor)')) {
            const x = bar.x.baseVal.value, y = bar.y.baseVal.value;
            tops[x] = Math.min(tops[x] ?? y, y);
        }
        const labels = [...document.querySelectorAll('#bars text[text-anchor=end]')].map(text => text.textContent);
        return [Object.entries(tops).sort((a, b) => a[0] - b[0]).map(entry => entry[1]), lines[0], lines.at(-1), labels.at(-1)];""")
    drawn = [(ground - y) / (ground - top) * float(label) for y in tops]
    assert drawn == pytest.approx([by_hour[hour] for hour in sorted(by_hour)], rel=1e-3)


def test_the_keyboard_reads_and_zooms_the_chart(page: Page, ledger: Server) -> None:
    page.open("#period=24h")
    hours = page.run("return chart.bars.map(([time]) => time)")
    page.keys("#bars", "\ue011")  # Home
    page.keys("#bars", "\ue014")  # right
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(hours[1]))
    assert page.text("#spoken").startswith(f"{moment}, 1 hour\n")
    assert page.text("#tip") == page.text("#spoken")
    page.keys("#bars", "\ue007")  # Enter
    page.settled()
    assert page.shown() == sums(ledger, f"toUnixTimestamp(toStartOfHour(started_at)) = {hours[1]}")
    assert page.run("return [document.getElementById('since').value, document.getElementById('custom').hidden]") == [
        time.strftime("%Y-%m-%dT%H:%M", time.gmtime(hours[1])), False,
    ]  # fmt: skip


def test_the_dearest_calls_have_no_voided_one(page: Page, ledger: Server) -> None:
    assert ledger.sql("SELECT count() AS entries, sum(calls) AS calls FROM charges WHERE customer = 'twice'") == [
        {"entries": 3, "calls": 1}
    ]
    page.open()
    query = "SELECT cost_usd FROM charges WHERE customer != 'twice' AND cost_usd > 0 ORDER BY cost_usd DESC LIMIT 9"
    dearest = ledger.sql("SELECT sum(cost_usd) AS cost FROM charges WHERE customer = 'twice'") + ledger.sql(query)
    found = page.run("return [...document.querySelectorAll('#dearest tbody tr')].map(row => row.cells[1].title)")
    assert [Decimal(text.removesuffix(" USD")) for text in found] == [next(iter(row.values())) for row in dearest]
    page.open("#is.customer=twice")
    assert len(page.texts("#dearest tbody tr")) == 1


def test_order_and_measure_stand_in_the_address(page: Page) -> None:
    page.open()
    page.run("[...document.querySelectorAll('th button')].find(button => button.textContent === 'calls').focus()")
    page.keys(":focus", "\ue007")
    page.settled()
    assert page.text(":focus") == "calls ↓"
    page.run("document.querySelector('#measures input[value=tokens]').click()")
    page.settled()
    address = page.run("return location.hash")
    assert {"sort=calls", "show=tokens"} <= set(address.strip("#").split("&"))
    calls = list(page.rows().values())
    assert calls == sorted(calls, reverse=True)
    assert calls[0] > calls[-1]
    page.open(address)
    assert page.text("#time h2") == "Tokens by hour, UTC"
    assert list(page.rows().values()) == calls


@pytest.mark.parametrize(
    "where",
    [
        "#by=constructor&period=__proto__&sort=toString&show=valueOf&is.evil=1&rows=1e9",
        "#by=customer)&period=custom&since=1.5&until=abc&is.customer%27=1",
        "#%E0%A4%A&=&&by",
    ],
)
def test_a_broken_address_is_the_first_view(page: Page, ledger: Server, where: str) -> None:
    page.open(where)
    assert page.shown() == sums(ledger)
    assert page.text("#groups h2") == "By customer"
    assert page.run("return document.querySelector('#periods :checked').value") == "30d"


def test_a_period_without_calls(page: Page, ledger: Server) -> None:
    page.open("#period=custom&since=1000000800&until=1000087200")
    assert (page.text("#calls"), page.text("#spend")) == ("0", "–")
    assert page.text("#span") == "2001-09-09 02:00 to 2001-09-10 02:00 UTC"
    page.click("#groups .wide button")
    page.settled()
    assert page.shown() == sums(ledger)


def test_nothing_can_be_made_from_text(page: Page) -> None:
    page.open()
    assert page.run("try { document.body.innerHTML = '<b>x</b>'; } catch (error) { return error.name; }") == "TypeError"
    page.allowed = ("TrustedHTML", "Trusted Type")


def test_all_controls_have_names(page: Page) -> None:
    page.open("#by=tag:plan&is.customer=back%5Cslash%20%5C'%20%5Cn&period=custom&since=0&until=4000000000")
    page.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    controls = [
        node
        for node in tree
        if not node["ignored"]
        and node["role"]["value"] in ("button", "combobox", "textbox", "radio", "region", "img", "DateTime")
    ]
    assert len(controls) > 30
    assert [node for node in controls if not node.get("name", {}).get("value", "").strip()] == []


def test_a_narrow_screen_scrolls_down_only(page: Page) -> None:
    size = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open("#by=tag:plan&period=custom&since=0&until=4000000000&is.tag:plan=" + LONG)
        assert len(page.rows()) == 1
        assert page.run("return document.documentElement.scrollWidth") <= 320
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


amounts = st.decimals(min_value=Decimal("-1e12"), max_value=Decimal("1e12"), places=12, allow_nan=False)


def test_money_is_exact_and_never_nothing(page: Page) -> None:
    page.open()

    @settings(deadline=None)
    @given(st.lists(amounts, min_size=1, max_size=50))
    @example(
        [
            Decimal(text)
            for text in (
                "0",
                "0.000000000001",
                "0.0099999999",
                "0.999999999999",
                "1",
                "999.995",
                "1234567.885",
                "-0.004",
                "-12.345",
            )
        ]
    )
    def check(values: list[Decimal]) -> None:
        texts = [f"{value:f}" for value in values]
        for value, text in zip(values, page.run("return arguments[0].map(money)", texts), strict=True):
            match = re.fullmatch(r"(−?)\$(\d{1,3}(?:,\d{3})*\.\d+)", text)
            assert match, text
            shown = Decimal(match[2].replace(",", "")) * (-1 if match[1] else 1)
            decimals = len(text.rpartition(".")[2])
            assert shown == value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
            assert (shown == 0) == (value == 0)
            # Two decimals, or enough for three digits.
            assert decimals == 2 if abs(value) >= 1 or value == 0 else abs(shown - value) <= abs(value) / 100 or decimals == 12

    check()
    assert page.run("return [money(null), percent(999999, 1000000), percent(1, 1), percent(null, 1), percent(0, 0)]") == [
        "not priced", "99.9 %", "100.0 %", "–", "–",
    ]  # fmt: skip


def test_a_key_is_asked_for_and_the_first_call_appears(browser: "Chrome", tmp_path: Path) -> None:
    port = free_port()
    server = Server(tmp_path / "data", port=port, env={"TALLYSTICK_HOST": "0.0.0.0"})
    process = server.launch()
    page = Page(browser, f"http://127.0.0.1:{port}")
    # The console tells of every answer that is an error: keys refused, and /v1/status, which isn't for tenants.
    page.allowed = (" 401 ", " 403 ", "net::ERR_")
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready "), server.log()
        key = server.key("acme")
        page.driver.get(page.url)
        page.until(lambda: page.run("return document.getElementById('door').open"), "no question for a key")
        assert page.text("#door-why") == "A key is needed."
        page.keys("#key", "ts_wrong\ue007")
        page.until(lambda: page.text("#door-why") == "The key is unknown or revoked.", "wrong key taken")
        page.keys("#key", f" {key} \ue007")
        page.settled()
        assert page.run(
            "return [document.getElementById('ledger').hidden, sessionStorage.getItem('key'), localStorage.length]"
        ) == [True, key, 0]
        assert page.texts("#empty pre") == [
            f"export TALLYSTICK_URL={page.url}\nexport TALLYSTICK_KEY=ts_…\nimport tallystick.auto"
        ]
        old = span("old", start_ns=time.time_ns() - 100 * 24 * HOUR_NS)
        headers = {"content-type": "application/x-protobuf", "authorization": f"Bearer {key}"}
        assert httpx.post(f"{page.url}/v1/traces", content=request(old).SerializeToString(), headers=headers).status_code == 200
        page.until(lambda: not page.run("return document.getElementById('ledger').hidden"), "the page doesn't look again")
        page.until(lambda: page.text("#calls") == "1", "no call")
        assert page.shown()["cost"] == Decimal("0.00021")
        assert page.text("#span").endswith("where the data ends")
        process.kill()
        process.wait()
        page.click("#refresh")
        page.until(lambda: "can't be reached" in page.text("#failure"), "no word of a server that is gone")
        page.click("#forget")
        assert page.run("return sessionStorage.length") == 0
        page.end()
    finally:
        process.kill()
        process.communicate()
