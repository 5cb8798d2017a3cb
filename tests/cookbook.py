"""The ledger of docs/cookbook.md: two months of a small company, made by rule, so that every answer can be worked out by other means.

`python tests/cookbook.py` writes the answers into the page again.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TENANT = "cookbook"
PAGE = Path(__file__).parent.parent / "docs" / "cookbook.md"
SEPTEMBER, OCTOBER = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)

USD = {"gpt-5": ("1.25", "0.125", "10"), "gpt-5-mini": ("0.25", "0.025", "2"), "claude-sonnet-4-5": ("3", "0.30", "15")}
"""A million tokens of input, cache read, output. llama-3-70b has no price."""


@dataclass(frozen=True)
class Entry:
    """A row of the ledger, in the words of `charges`."""

    started_at: datetime
    customer: str
    feature: str
    team: str
    user: str
    session: str
    response_model: str
    input_tokens: int | None
    cache_read_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: Decimal | None
    duration_ms: int
    ttft_ms: int | None
    entry: str = "call"
    calls: int = 1
    provider: str = "openai"
    status: str = "ok"
    error_type: str = ""
    cache_hit: str = ""
    usage_source: str = "provider"
    reason: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    entered_at: datetime = OCTOBER


def _cost(model: str, fresh: int, cached: int, output: int) -> Decimal | None:
    if model not in USD:
        return None
    return sum((Decimal(price) * n for price, n in zip(USD[model], (fresh, cached, output), strict=True)), Decimal()) / 1_000_000


def _calls() -> Iterator[Entry]:
    for n in range(732):
        # Two hours apart, in October a third of them twice.
        for again in range(2 if n >= 360 and n % 3 == 0 else 1):
            at = SEPTEMBER + timedelta(hours=2 * n, minutes=again)
            feature, team = (("chat", "support"), ("search", "growth"), ("summary", "support"))[n % 3]
            customer = ("acme", "acme", "globex", "initech")[n % 4]
            model = {"chat": "gpt-5", "search": "gpt-5-mini", "summary": "claude-sonnet-4-5" if n < 500 else "gpt-5"}[feature]
            model = "llama-3-70b" if n % 61 == 60 else model
            fresh, cached, output = 1000 + n, (3000 if feature == "chat" and n >= 360 else 0), 50 + n % 7 * 100
            whose = {"claude-sonnet-4-5": "anthropic", "llama-3-70b": "vllm"}.get(model, "openai")
            one = Entry(
                started_at=at, customer=customer, feature=feature, team=team, user=f"{customer}-{n % 5}", session=f"s{n // 4}",
                response_model=model, provider=whose, input_tokens=fresh, cache_read_tokens=cached, output_tokens=output,
                reasoning_tokens=output // 2 if model == "gpt-5" else 0, cost_usd=_cost(model, fresh, cached, output),
                duration_ms=500 + output * 10 + n % 11, ttft_ms=200 + n % 13 * 10, tags={"plan": "free" if customer == "initech" else "paid"},
                entered_at=at + timedelta(minutes=1),
            )  # fmt: skip
            yield _ended(one, n)


def _ended(one: Entry, n: int) -> Entry:
    nothing: dict[str, Any] = {
        "input_tokens": None, "cache_read_tokens": None, "output_tokens": None, "reasoning_tokens": None, "ttft_ms": None,
        "usage_source": "none", "cost_usd": Decimal(0),
    }  # fmt: skip
    if n % 37 == 36:
        return replace(one, status="error", error_type="rate_limit" if n % 2 else "timeout", **nothing)
    if n % 29 == 28:
        return replace(one, status="cancelled", usage_source="partial")
    if n % 23 == 22:
        return replace(one, cache_hit="response", **nothing)
    return one


def _entries() -> list[Entry]:
    calls = list(_calls())
    told_twice = next(one for one in calls if one.started_at >= OCTOBER and one.cost_usd)
    assert told_twice.cost_usd is not None
    buckets = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens")
    taken_back: dict[str, Any] = {name: -(getattr(told_twice, name) or 0) for name in buckets}
    taken_back |= {"cost_usd": -told_twice.cost_usd, "entered_at": OCTOBER + timedelta(days=3)}
    void = replace(told_twice, entry="void", calls=-1, reason="told twice", **taken_back)
    minis = [one for one in calls if one.response_model == "gpt-5-mini" and one.started_at < OCTOBER and one.cost_usd]
    none: dict[str, Any] = {"input_tokens": None, "cache_read_tokens": None, "output_tokens": None, "reasoning_tokens": None}
    repriced = [
        replace(one, entry="reprice", calls=0, reason="the price was wrong", cost_usd=-one.cost_usd / 2, entered_at=OCTOBER + timedelta(days=5), **none)
        for one in minis
        if one.cost_usd is not None
    ]  # fmt: skip
    shared = replace(
        calls[0], entry="allocation", calls=0, reason="platform fee", started_at=OCTOBER, cost_usd=Decimal("0.5"), customer="globex",
        feature="", team="", user="", session="", response_model="", provider="", entered_at=OCTOBER + timedelta(days=31), tags={}, **none,
    )  # fmt: skip
    return [*calls, void, *repriced, shared]


ENTRIES: Sequence[Entry] = tuple(_entries())


def enter(client: "Client") -> None:
    """Put them into the ledger, for the tenant TENANT."""
    names = [one.name for one in fields(Entry) if one.name not in ("duration_ms", "ttft_ms")]
    rows = [
        (
            TENANT,
            one.duration_ms * 10**6,
            None if one.ttft_ms is None else one.ttft_ms * 10**6,
            *(getattr(one, name) for name in names),
        )
        for one in ENTRIES
    ]
    client.insert("ledger", rows, column_names=["tenant", "duration_ns", "ttft_ns", *names])


class Recipe(NamedTuple):
    """A section of the page: what is asked, the query, and the answer as it is printed there."""

    title: str
    query: str
    answer: str


RECIPE = re.compile(r"^### (?P<title>.+?)\n.*?```sql\n(?P<query>.*?)```\n\n(?P<answer>(?:\|[^\n]*\n)*)", re.MULTILINE | re.DOTALL)


def recipes(page: str) -> list[Recipe]:
    return [Recipe(found["title"], found["query"], found["answer"]) for found in RECIPE.finditer(page)]


def table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows of an answer as the page has them."""
    lines = [names, ["---"] * len(names), *rows]
    return "".join(f"| {' | '.join('NULL' if cell is None else str(cell) for cell in line)} |\n" for line in lines)


def _write() -> None:
    from tempfile import TemporaryDirectory

    from tallystick.attribution.user_sql import READER_SETTINGS, run
    from tallystick.ingest.migrate import migrate
    from tallystick.ingest.store import open_store

    page = PAGE.resolve()
    text = page.read_text(encoding="utf-8")
    with TemporaryDirectory() as data, open_store(Path(data)) as store:
        migrate(store, 0)
        enter(store.client())

        def answered(found: re.Match[str]) -> str:
            with store.reader(TENANT, READER_SETTINGS) as reader:
                answer = run(reader, found["query"], None)
            start, end = found.start("answer") - found.start(), found.end("answer") - found.start()
            return found[0][:start] + table([column.name for column in answer.columns], answer.rows) + found[0][end:]

        text = RECIPE.sub(answered, text)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write()
