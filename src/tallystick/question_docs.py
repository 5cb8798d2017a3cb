"""docs/questions.md: what each named question answers, from its head, and what three of them say of the traffic that ships with tallystick."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.questions import Question, questions
from tallystick.attribution.spend import DIMENSIONS
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store
from tallystick.ingest.writer import Item, Writer
from tallystick.traffic import shipped
from tallystick.traffic.calls import Call, calls, moved_to_yesterday
from tallystick.traffic.files import open_trace
from tallystick.traffic.send import batched
from tallystick.traffic.spans import Encoder

_DAY: Final = datetime(2026, 11, 19, tzinfo=UTC)
_NEXT_NS: Final = int(_DAY.timestamp() + 86_400) * 10**9
_BATCH: Final = 64

_SHOWN: Final = (
    "tallystick ask spend --by customer --since 2026-11-19 --until 2026-11-20 --param limit=5",
    "tallystick ask unit-costs --by feature --since 2026-11-19 --until 2026-11-20",
    "tallystick ask cache-money --by feature --since 2026-11-19 --until 2026-11-20",
)

_INTRODUCTION: Final = """\
# Named questions

Made by `make docs` from the heads of the files in [attribution/questions](../attribution/questions).

The questions that everybody asks, as SQL with parameters. Every figure is defined, and says how much of it is priced.

```
tallystick ask
tallystick ask spend --by customer,feature --since 30d
tallystick ask top-drivers --by model --since 7d --param order=change --json
curl 'localhost:4318/v1/q/spend?by=customer,feature&since=30d&where=environment%3Dprod'
```

`tallystick ask NAME --describe` says what stands here, `--sql` prints the SQL. `GET /v1/q` lists the questions, `GET /v1/q/NAME` answers
`{"name", "definition", "columns", "rows", "elapsed_ms", "sql", "params"}`; in Python it is `Client(url).ask("spend", by="customer")`. A key
sees its tenant's rows. A parameter that can't be is an error that names it (`bad_parameter`), one of 404 `no_such_question` names the nearest.

| kind | what is understood |
| --- | --- |
| time | an age (`30d`, `24h`, `15m`; days and weeks begin at midnight), a time (`2026-11-01T12:00:00+01:00`; UTC if no zone), `now`, `end of today` |
| dimensions | {{dimensions}}; several with commas between; `total` is one row |
| filters | `DIMENSION=VALUE`; given several times, all must hold |
| count, number | a whole number; a number |
| choice | one of the words |

Shares are of 1. Amounts are USD; NULL is unknown, not 0.
"""


def markdown(outputs: Mapping[str, str]) -> str:
    """The text of docs/questions.md. outputs: command → what it printed."""
    shown = (f"```\n$ {command}\n{text}```\n" for command, text in outputs.items())
    dimensions = ", ".join(f"`{name}`" for name in (*DIMENSIONS, "tag:NAME"))
    return "\n".join([
        _INTRODUCTION.replace("{{dimensions}}", dimensions),
        "| question | |\n| --- | --- |",
        *(f"| [{one.name}](#{one.name}) | {_cell(one.sentence)} |" for one in questions().values()),
        "",
        "## On real traffic\n",
        "What they say of the 40,216 calls of `tallystick demo`:\n",
        *shown,
        *(_described(one) for one in questions().values()),
    ])  # fmt: skip


def real_outputs() -> dict[str, str]:
    """What the commands print of the traffic that ships with tallystick, on a day that is always the same."""
    with tempfile.TemporaryDirectory(prefix="tallystick-docs-") as place:
        data, before = Path(place) / "data", Path.cwd()
        with open_store(data) as store:
            migrate(store, 0)
            writer, encoder = Writer(store, PriceBook()), Encoder()
            bodies = [(len(batch), encoder.request(batch)) for batch in batched(_traffic())]
            for first in range(0, len(bodies), _BATCH):
                writer.write([Item(body, spans, "default", _NEXT_NS) for spans, body in bodies[first : first + _BATCH]])
        # The store moves into its directory, which goes away.
        os.chdir(before)
        return {command: _printed(command, data) for command in _SHOWN}


def _traffic() -> Iterator[Call]:
    for path in shipped():
        trace = open_trace(path)
        yield from (call for call in calls(trace, 0, moved_to_yesterday(trace, _NEXT_NS)) if isinstance(call, Call))


def _printed(command: str, data: Path) -> str:
    words = [sys.executable, "-m", "tallystick.cli", *command.split()[1:], "--data", str(data)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    lines = subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout.splitlines()  # noqa: S603
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())


def _described(one: Question) -> str:
    parameters = (
        f"| `{p.name}` | {p.kind} | {'' if p.default is None else f'`{p.default}`'} | {_cell(p.meaning)}{_choices(p.choices)} |"
        for p in one.parameters.values()
    )
    return "\n".join([
        f"## {one.name}\n",
        f"{one.sentence}\n",
        f"```\n{one.example}\n```\n",
        "| figure | definition |\n| --- | --- |",
        *(f"| {', '.join(f'`{figure}`' for figure in same)} | {_cell(meaning)} |" for meaning, same in _by_meaning(one).items()),
        "",
        "| parameter | kind | default | |\n| --- | --- | --- | --- |",
        *parameters,
        "",
    ])  # fmt: skip


def _by_meaning(one: Question) -> dict[str, list[str]]:
    figures: dict[str, list[str]] = {}
    for figure, meaning in one.definition.items():
        figures.setdefault(meaning, []).append(figure)
    return figures


def _choices(choices: tuple[str, ...]) -> str:
    return ": " + ", ".join(f"`{f'{choice}NAME' if choice.endswith(':') else choice}`" for choice in choices) if choices else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(markdown(real_outputs()), encoding="utf-8")
