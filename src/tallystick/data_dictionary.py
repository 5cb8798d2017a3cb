"""docs/charges.md: made from the schema and from what attribution/meanings.py says of it. `make docs` writes it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tallystick.attribution.meanings import ABOUT, MEANINGS

_INTRODUCTION: Final = """\
# The data dictionary

Made by `make docs` from the schema and attribution/meanings.py. These are the tables that SQL can ask: [sql.md](sql.md) says how, and
[cookbook.md](cookbook.md) has queries to start from.

Rows of `charges` are only ever added. Amounts are signed, so `sum(calls)`, `sum(input_tokens)` and `sum(cost_usd)` are right over any
rows, corrected ones included; `count()` counts entries.

Unknown is NULL, never 0; for text it is `''`. Token buckets are disjoint: what a call read in all is `input_tokens + cache_read_tokens +
cache_write_5m_tokens + cache_write_1h_tokens`, each with `ifNull(…, 0)`. Times are UTC.
"""


def markdown(columns: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """The page. columns: of each view, names and types as DESCRIBE has them. Raises KeyError for one that isn't described, or isn't there."""
    parts = [_INTRODUCTION]
    for view, headings in MEANINGS.items():
        types = dict(columns[view])
        parts.append(f"## `{view}`\n\n{ABOUT[view]}.\n")
        for heading, meanings in headings.items():
            rows = "".join(f"| `{name}` | `{types.pop(name)}` | {text} |\n" for name, text in meanings.items())
            parts.append(f"### {heading}\n\n| column | type | meaning |\n| --- | --- | --- |\n{rows}")
        if types:
            raise KeyError(f"attribution/meanings.py doesn't say what these are: {', '.join(f'{view}.{name}' for name in types)}")
    return "\n".join(parts)


def _write(page: Path) -> None:
    from tallystick.ingest.migrate import migrate
    from tallystick.ingest.store import open_store

    with TemporaryDirectory() as data, open_store(Path(data)) as store:
        client = store.client()
        migrate(store, 0)
        described = {view: client.query(f"DESCRIBE TABLE {view}").result_rows for view in MEANINGS}
    page.write_text(markdown({view: [(row[0], row[1]) for row in rows] for view, rows in described.items()}), encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]).absolute())
