"""What tests of named questions share: calls by hand in a ledger of their own, and a question's answer."""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from tallystick.attribution.questions import Given, Question, ask_query
from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.client import result
from tallystick.ingest.store import Store

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Call:
    """An entry of the ledger; the columns are those of `ledger`, and `more` has any others."""

    started_at: datetime
    cost_usd: Decimal | None = Decimal("0.01")
    customer: str = "acme"
    feature: str = "chat"
    agent: str = ""
    session: str = ""
    response_model: str = "gpt-5"
    input_tokens: int | None = 100
    output_tokens: int | None = 10
    entry: str = "call"
    calls: int = 1
    status: str = "ok"
    tags: Mapping[str, str] = field(default_factory=dict)
    trace_id: bytes = bytes(16)
    more: Mapping[str, Any] = field(default_factory=dict)


def enter(store: Store, tenant: str, calls: Iterable[Call]) -> None:
    """Put them into the ledger as this tenant's: a test's own, so that others see none of them."""
    columns: dict[tuple[str, ...], list[list[Any]]] = {}
    for call in calls:
        row = {name: value for name, value in vars(call).items() if name != "more"} | dict(call.more) | {"tenant": tenant}
        columns.setdefault(tuple(row), []).append(list(row.values()))
    for names, rows in columns.items():
        store.client().insert("ledger", rows, column_names=names)


def asked(store: Store, tenant: str | None, name: str, now: datetime = NOW, /, **given: Any) -> list[dict[str, Any]]:
    """The rows by column name, as the client has them: decimals are Decimal."""
    query = ask_query(name, given, now)
    with store.reader(tenant, READER_SETTINGS) as reader:
        found = run(reader, query.text, query.params)
    return result(((column.name, column.type) for column in found.columns), found.rows, found.elapsed_ms).dicts()


def of_example(question: Question) -> Given:
    """The parameters that a question's example gives."""
    program, command, name, *words = shlex.split(question.example)
    assert (program, command, name) == ("tallystick", "ask", question.name)
    given: dict[str, list[str]] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        key, text = value.split("=", 1) if flag == "--param" else (flag.removeprefix("--"), value)
        given.setdefault(key, []).append(text)
    return given
