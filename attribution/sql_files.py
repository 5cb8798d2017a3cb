"""Statements that stand in files: read, filled and run."""

import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def fill(name: str, /, **parts: str) -> str:
    """A statement of attribution/queries with its {{…}} filled."""
    return filled(statement(name), parts)


def statement(name: str, folder: str = "attribution/queries") -> str:
    """A file of SQL without what explains it, which may name the parts that are to be filled."""
    text = files("tallystick").joinpath(f"{folder}/{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


def shared(name: str) -> str:
    """A statement of schema/sql, without what explains it."""
    return statement(name, "schema/sql")


def filled(text: str, parts: Mapping[str, str]) -> str:
    """All at once: what is filled in isn't looked at again, and may hold braces of its own."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts.get(found[1], found[0]), text)


def scalar(client: "Client", query: str, params: dict[str, Any] | None = None) -> Any:
    """The one value that a query answers."""
    return client.query(query, params).result_rows[0][0]


def insert_json(client: "Client", table: str, rows: Iterable[Mapping[str, object]]) -> None:
    """Insert rows by column, decimals exactly. The client's own insert loads numpy and pandas, a second and 100 MB of them."""
    lines = "\n".join(json.dumps(row, default=str) for row in rows)
    client.raw_insert(table, None, lines.encode(), fmt="JSONEachRow")
