"""An estimate as one HTML file."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tallystick.probes.report.blocks import Block, Section, Table
from tallystick.probes.report.plots import COLOURS, Plot, Point, Rule, Series
from tallystick.probes.report.rendering import Verdict, page

_FIGURES: Final = (
    "usd_per_month", "usd_per_call", "input_usd_per_month", "cache_read_usd_per_month", "cache_write_usd_per_month", "output_usd_per_month",
)  # fmt: skip
_NAMED: Final = COLOURS
"""Models that are drawn over months: as many as there are colours."""


def estimate_page(rows: Sequence[Mapping[str, Any]], assumed: Sequence[str], notes: Sequence[str]) -> str:
    """rows: those of the command that have a price, the cheapest first."""
    cheapest = rows[0]
    verdicts = [Verdict(f"{cheapest['model']}: {_usd(cheapest['usd_per_month'])} USD a month", "good")]
    sections = [
        Section("cost", "Monthly cost", [_costs(rows), *([_months(rows)] if len(rows[0]["months"]) > 1 else [])]),
        Section("sensitivity", "What it hangs on", [_tornado(row) for row in rows]),
        Section("assumed", "What was assumed", [Block(texts=[*assumed, *notes])]),
    ]
    return page("Estimate", "traffic that doesn't exist yet", verdicts, sections, "tallystick estimate")


def _costs(rows: Sequence[Mapping[str, Any]]) -> Block:
    series = [
        Series(row["model"], [Point(0.0, len(rows) - at), Point(float(row["usd_per_month"]), len(rows) - at, label=row["model"])], at % COLOURS, "spans")
        for at, row in enumerate(rows)
    ]  # fmt: skip
    said = "; ".join(f"{row['model']} {_usd(row['usd_per_month'])} USD" for row in rows)
    plot = Plot("USD a month", said, "USD a month", "", series, y_ticks=False)
    table = Table(
        "USD a month and a call",
        ("model", "USD a month", "USD a call", "of it input", "cache read", "cache write", "output"),
        [[row["model"], *(_usd(row[name]) for name in _FIGURES)] for row in rows],
    )  # fmt: skip
    return Block("By model", plot=plot, table=table)


def _months(rows: Sequence[Mapping[str, Any]]) -> Block:
    series = [
        Series(row["model"], [Point(float(at), float(usd)) for at, usd in enumerate(row["months"], 1)], at)
        for at, row in enumerate(rows[:_NAMED])
    ]
    header = ("month", *(row["model"] for row in rows))
    cells = [[str(at + 1), *(_usd(row["months"][at]) for row in rows)] for at in range(len(rows[0]["months"]))]
    plot = Plot("USD a month as users grow", "cost of each month by model", "month", "USD", series)
    return Block("As users grow", plot=plot, table=Table("USD of each month", header, cells))


def _tornado(row: Mapping[str, Any]) -> Block:
    swings = row["sensitivity"]
    spans = []
    for at, one in enumerate(swings):
        ends = sorted((float(one["usd_low"]), float(one["usd_high"])))
        # None lies on the axis.
        points = [Point(end, len(swings) - at, label=one["input"]) for end in ends]
        spans.append(Series(one["input"], points, at % COLOURS, "spans"))
    cells = [[one["input"], one["low"], one["high"], _usd(one["usd_low"]), _usd(one["usd_high"])] for one in swings]
    table = Table(f"{row['model']}: USD a month", ("input", "lower", "higher", "USD at the lower", "USD at the higher"), cells)
    as_assumed = Rule("x", float(row["usd_per_month"]), "as assumed")
    title = f"{row['model']}: USD a month between a lower and a higher value"
    plot = Plot(title, "ranges by input", "USD a month", "", spans, [as_assumed], y_ticks=False)
    return Block(str(row["model"]), plot=plot, table=table)


def _usd(amount: Decimal | None) -> str:
    return "–" if amount is None else f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.6f}"
