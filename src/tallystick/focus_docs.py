"""`python -m tallystick.focus_docs docs/focus.md`: writes the table of columns into the page."""

import sys
from pathlib import Path

from tallystick.attribution.focus.columns import table

_START, _END = "<!-- columns: made by `make docs` -->\n", "<!-- end of columns -->\n"


def with_columns(page: str) -> str:
    """The page with the present table between its two marks."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}\n{table()}\n{_END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_columns(path.read_text(encoding="utf-8")), encoding="utf-8")
