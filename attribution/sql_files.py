"""SQL of attribution/queries, filled and run."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_QUERIES: Final = Path(__file__).parent / "queries"


def fill(name: str, /, **parts: str) -> str:
    """A statement of attribution/queries with its {{…}} filled."""
    lines = (_QUERIES / f"{name}.sql").read_text(encoding="utf-8").splitlines()
    # What explains a statement names its parts, too.
    return filled("\n".join(line for line in lines if not line.lstrip().startswith("--")), parts)


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
