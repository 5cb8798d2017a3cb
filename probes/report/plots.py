"""Plots as SVG: lines, steps and dots over two axes, intervals as bands, marks with names. Colours are classes of the page's stylesheet.

Every point has its figures as a `<title>`; a plot has its own as `aria-label`. Marks and dashes differ too, so that colour isn't needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from markupsafe import Markup, escape

from tallystick.probes.report.ticks import Axis, linear, logarithmic, number

WIDTH: Final = 620
COLOURS: Final = 6
_HEIGHT: Final = 270
_LEFT, _RIGHT, _BOTTOM, _ROW = 56, 14, 42, 16
_CHARACTER: Final = 6.6
"""Width at most of one at 12 px of the fonts that a page gets."""


class Point(NamedTuple):
    """x, y and y's interval; `label` is what a pointer is told. sure: else its mark is hollow."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""
    sure: bool = True


@dataclass(frozen=True)
class Series:
    """Points in the order of x. colour: 0 to COLOURS - 1. faint: a second figure of the same thing (p95 beside p50).

    shape: `spans` are pairs of points, each a bar from the first to the second.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    shape: Literal["line", "step", "dots", "spans"] = "line"
    faint: bool = False
    marks: bool = True


class Rule(NamedTuple):
    """A line across at a value of `x` or `y`, with a name: a target, a limit."""

    axis: Literal["x", "y"]
    value: float
    name: str
    colour: int | None = None


@dataclass(frozen=True)
class Plot:
    """A picture and what it says in words (`alt`)."""

    title: str
    alt: str
    x: str
    y: str
    series: Sequence[Series]
    rules: Sequence[Rule] = ()
    log_x: bool = False
    log_y: bool = False
    top: float | None = None
    """Of the y axis; figures above it are cut off."""
    y_ticks: bool = True

    @property
    def svg(self) -> Markup:
        """An `<svg>` element, all text escaped."""
        return _drawn(self)


class _Frame(NamedTuple):
    x: Axis
    y: Axis
    top: float
    height: float

    def at_x(self, value: float) -> float:
        return _LEFT + self.x.share(value) * (WIDTH - _LEFT - _RIGHT)

    def at_y(self, value: float) -> float:
        share = min(max(self.y.share(value), 0.0), 1.0)
        return self.top + (1 - share) * (self.height - self.top - _BOTTOM)


def _drawn(plot: Plot) -> Markup:
    points = [point for series in plot.series for point in series.points]
    xs = [point.x for point in points] + [rule.value for rule in plot.rules if rule.axis == "x"]
    ys = [end for point in points for end in (point.y, point.low, point.high) if end is not None]
    ys += [rule.value for rule in plot.rules if rule.axis == "y"]
    if plot.top is not None:
        ys = [min(value, plot.top) for value in ys] + [plot.top]
    x, y = (logarithmic if log else linear for log in (plot.log_x, plot.log_y))
    placed = _rows([rule for rule in plot.rules if rule.axis == "x"], x(xs))
    top = 24 + _ROW * (1 + max(placed.values(), default=-1))
    frame = _Frame(x(xs), y(ys), top, _HEIGHT + top)
    parts = [*_axes(plot, frame), *_bands(plot, frame), *_rules(plot, frame, placed)]
    for series in plot.series:
        parts += _series(series, frame)
    inner = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, round(frame.height), f"{plot.title}. {plot.alt}", inner
    )


def _axes(plot: Plot, frame: _Frame) -> list[Markup]:
    bottom = frame.height - _BOTTOM
    parts = [_text(4, 14, plot.y, "start", "name")]
    for tick in frame.y.ticks if plot.y_ticks else ():
        parts.append(_line(_LEFT, frame.at_y(tick), WIDTH - _RIGHT, frame.at_y(tick), "grid"))
        parts.append(_text(_LEFT - 6, frame.at_y(tick) + 4, number(tick), "end"))
    free = 0.0
    for tick in frame.x.ticks:
        place, shown = frame.at_x(tick), number(tick)
        half = len(shown) * _CHARACTER / 2
        parts.append(_line(place, bottom, place, bottom + 4, "axis"))
        if place - half >= free:
            parts.append(_text(min(place, WIDTH - half), bottom + 17, shown, "middle"))
            free = place + half + 6
    parts.append(_line(_LEFT, bottom, WIDTH - _RIGHT, bottom, "axis"))
    parts.append(_text((WIDTH + _LEFT) / 2, frame.height - 6, plot.x, "middle", "name"))
    return parts


def _rows(rules: Sequence[Rule], axis: Axis) -> dict[Rule, int]:
    """In which row above the plot each name stands, so that none is over another."""
    ends: list[float] = []
    placed: dict[Rule, int] = {}
    for rule in sorted(rules, key=lambda rule: rule.value):
        start, end = _span(rule, axis)
        row = next((row for row, taken in enumerate(ends) if taken + 6 <= start), len(ends))
        ends[row:] = [end, *ends[row + 1 :]]
        placed[rule] = row
    return placed


def _span(rule: Rule, axis: Axis) -> tuple[float, float]:
    width = len(rule.name) * _CHARACTER
    middle = _LEFT + axis.share(rule.value) * (WIDTH - _LEFT - _RIGHT)
    start = min(max(middle - width / 2, _LEFT), max(WIDTH - width, 0))
    return start, start + width


def _rules(plot: Plot, frame: _Frame, rows: dict[Rule, int]) -> list[Markup]:
    parts: list[Markup] = []
    taken: list[float] = []
    for rule in plot.rules:
        colour = "rule" if rule.colour is None else f"rule s{rule.colour}"
        if rule.axis == "x":
            start, _ = _span(rule, frame.x)
            height = 24 + _ROW * rows[rule] + 10
            place = frame.at_x(rule.value)
            parts.append(_line(place, height + 3, place, frame.height - _BOTTOM, colour))
            parts.append(_text(start, height, rule.name, "start"))
            continue
        place = frame.at_y(rule.value)
        parts.append(_line(_LEFT, place, WIDTH - _RIGHT, place, colour))
        # Above its line, or below it where another name or the top is in the way.
        options = (place - 4, place + 13)
        written = next(
            (one for one in options if one > frame.top + 6 and all(abs(one - other) > 12 for other in taken)), place - 4
        )
        taken.append(written)
        parts.append(_text(WIDTH - _RIGHT - 2, written, rule.name, "end"))
    return parts


def _bands(plot: Plot, frame: _Frame) -> list[Markup]:
    parts = []
    for series in plot.series:
        known = [(point.x, point.low, point.high) for point in series.points if point.low is not None and point.high is not None]
        if len(known) < 2 or series.shape != "line":
            parts += [
                _line(frame.at_x(x), frame.at_y(low), frame.at_x(x), frame.at_y(high), f"whisker s{series.colour}")
                for x, low, high in known
                if low is not None and high is not None
            ]
            continue
        there = [(frame.at_x(x), frame.at_y(high)) for x, _, high in known if high is not None]
        back = [(frame.at_x(x), frame.at_y(low)) for x, low, _ in reversed(known) if low is not None]
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in there + back)
        parts.append(Markup('<polygon class="band f{}{}" points="{}"/>').format(series.colour, _faint(series), corners))
    return parts


def _series(series: Series, frame: _Frame) -> list[Markup]:
    places = [(frame.at_x(point.x), frame.at_y(point.y)) for point in series.points]
    look = f"line s{series.colour} d{series.colour}{_faint(series)}"
    parts: list[Markup] = []
    if series.shape == "spans":
        for point, start, end in zip(series.points[::2], places[::2], places[1::2], strict=True):
            drawn = f"M{start[0]:.1f} {start[1]:.1f}H{max(end[0], start[0] + 0.7):.1f}"
            shown = Markup('<path class="span s{}" d="{}"><title>{}</title></path>')
            parts.append(shown.format(series.colour, drawn, point.label or series.name))
        return parts
    if series.shape != "dots" and len(places) > 1:
        parts.append(Markup('<path class="{}" d="{}"/>').format(look, _path(places, series.shape == "step")))
    for point, (x, y) in zip(series.points, places, strict=True) if series.marks or len(places) == 1 else ():
        shape = _MARKS[series.colour % len(_MARKS)].format(x=x, y=y, left=x - 4, right=x + 4, up=y - 4, down=y + 4)
        title = point.label or f"{series.name}: {number(point.y)} at {number(point.x)}"
        look = f"mark f{series.colour}{_faint(series)}{'' if point.sure else f' hollow s{series.colour}'}"
        drawn = Markup(shape)  # noqa: S704
        parts.append(Markup('<g class="{}">{}<title>{}</title></g>').format(look, drawn, title))
    return parts


def _faint(series: Series) -> str:
    return " faint" if series.faint else ""


_MARKS: Final = (
    '<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
    '<rect x="{left:.1f}" y="{up:.1f}" width="8" height="8"/>',
    '<path d="M{left:.1f} {down:.1f}L{right:.1f} {down:.1f}L{x:.1f} {up:.1f}z"/>',
    '<path d="M{x:.1f} {up:.1f}L{right:.1f} {y:.1f}L{x:.1f} {down:.1f}L{left:.1f} {y:.1f}z"/>',
    '<path d="M{left:.1f} {up:.1f}L{right:.1f} {up:.1f}L{x:.1f} {down:.1f}z"/>',
    '<path d="M{left:.1f} {y:.1f}h8M{x:.1f} {up:.1f}v8"/>',
)
"""Only numbers are filled in."""


def _path(places: Sequence[tuple[float, float]], step: bool) -> str:
    first, *rest = places
    drawn = [f"M{first[0]:.1f} {first[1]:.1f}"]
    for x, y in rest:
        drawn.append(f"H{x:.1f}V{y:.1f}" if step else f"L{x:.1f} {y:.1f}")
    return "".join(drawn)


def _line(x1: float, y1: float, x2: float, y2: float, look: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(look, *(f"{at:.1f}" for at in (x1, y1, x2, y2)))


def _text(x: float, y: float, shown: str, anchor: str, look: str = "") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        look, f"{x:.1f}", f"{y:.1f}", anchor, escape(shown)
    )
