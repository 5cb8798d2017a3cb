"""docs/clients.md: what the runs of all clients say. `make clients` writes it, the tests hold it to what they see."""

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from server import Server

from clients.environment import HERE, ROOT
from clients.matrix import CHECKS, Result, result, runs, version_of

PAGE: Final = ROOT / "docs" / "clients.md"

HEAD: Final = """# Clients

What the collector meters, and what of it is right. This page is made by running real client libraries against a local server of the
providers' protocols that knows what each call used, once with `import tallystick.auto` and once without, and reading the ledger of a real
tallystick server afterwards (`make clients`; the tests run the same and fail when the page says something else).

| column | ✓ means |
| --- | --- |
| tokens | input, output and reasoning are the provider's, to the token; where it told none (a stream cut short), they are counted and marked so |
| cache | tokens read from the provider's cache and written to it for 5 minutes and for an hour stand in their own columns |
| first token | a streamed call has its time to first token |
| scope | the call carries the customer and the feature of the `tallystick.scope` in which it was made |
| one call | one billable call in the ledger for each answer of the provider, however many spans told of it |
| private | no span leaves with a prompt, an answer or a key |
| unchanged | result, types, exceptions and output of the application are those without the import |

✗ is a failure whose reason stands below the table, – is nothing to check: not streamed, no cache in use.
"""

MARKS: Final = {"yes": "✓", "no": "✗", "–": "–"}


def section(found: Result) -> str:
    """The part of the page that tells of one run."""
    reasons = {
        (scenario, check): found.reason(scenario, check) or ""
        for scenario, checks in found.cells.items()
        for check in checks
        if found.cells[scenario][check] == "no"
    }
    return _section(found.run.client, f"{found.run.library} {version_of(found.run)}", found.run.metered_by, found.cells, reasons)


def disagreements(name: str, server: Server) -> list[str]:
    """Runs it, and says where it isn't as its scenario file declares and as the page says."""
    found = result(runs()[name], server)
    stale = [] if section(found) in PAGE.read_text(encoding="utf-8") else ["the page says something else: make clients"]
    return found.unexpected() or stale


def recorded() -> Iterator[str]:
    """Sections of runs that tests can't repeat: engines that need an accelerator. recorded/NAME.json has `client`, `version`,
    `metered_by` (library → instrumentation), `cells` (scenario → check → `yes`, `no` or `–`), `reasons` (`scenario.check` → why) and
    `recorded` (when and on what).
    """
    for path in sorted((HERE / "recorded").glob("*.json")):
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        reasons = {tuple(place.split(".")): why for place, why in held["reasons"].items()}
        text = _section(held["client"], held["version"], held["metered_by"], held["cells"], reasons)
        yield f"{text}\nRecorded: {held['recorded']}\n"


def page(sections: list[str]) -> str:
    return "\n".join([HEAD, *sections])


def _section(
    client: str,
    version: str,
    metered_by: Mapping[str, str],
    cells: Mapping[str, Mapping[str, str]],
    reasons: Mapping[tuple[Any, ...], str],
) -> str:
    by = ", ".join(f"`{by}` ({library})" for library, by in sorted(metered_by.items()))
    notes: list[str] = []
    lines = [f"| scenario | {' | '.join(CHECKS.values())} |", f"| --- | {' | '.join('---' for _ in CHECKS)} |"]
    for scenario, checks in cells.items():
        row: list[str] = []
        for check in CHECKS:
            mark = MARKS[checks.get(check, "–")]
            if why := reasons.get((scenario, check)):
                notes += [] if why in notes else [why]
                mark += f" {notes.index(why) + 1}"
            row.append(mark)
        lines.append(f"| `{scenario}` | {' | '.join(row)} |")
    told = "".join(f"\n{number}. {why}" for number, why in enumerate(notes, 1))
    return f"## {client}\n\n{version}, metered by {by}.\n\n" + "\n".join(lines) + "\n" + (f"{told}\n" if told else "")


def main(*names: str) -> None:
    """Runs all, or those named; the sections of the others stay as they are."""
    kept = {
        part.partition("\n")[0]: part for part in re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    }
    sections: list[str] = []
    with tempfile.TemporaryDirectory() as directory, Server(Path(directory) / "data") as server:
        for name, run in runs().items():
            old = kept.get(f"## {run.client}", "").rstrip("\n")
            sections.append(f"{old}\n" if old and names and name not in names else section(result(run, server)))
    PAGE.write_text(page([*sections, *recorded()]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
