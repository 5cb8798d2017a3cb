"""What the page is made of: sections of text, plots and tables. The template (page.html.j2) knows no more than this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tallystick.probes.report.plots import Plot


@dataclass(frozen=True)
class Table:
    """The first column names its row. names: how many columns are of names, figures follow. wide: text that is to be wrapped, no figures."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    wide: bool = False
    names: int = 1


@dataclass(frozen=True)
class Block:
    """A picture with its figures in a table below it, either alone, or sentences. definitions: of the figures named in it."""

    title: str = ""
    texts: Sequence[str] = ()
    plot: Plot | None = None
    table: Table | None = None
    definitions: Mapping[str, str] = field(default_factory=dict)
    folded: bool = False
    """The table is shown when it is asked for, as that of a plot is."""

    @property
    def legend(self) -> list[tuple[int, str, bool]]:
        """Colour, name and whether it is faint, of each series of the plot where there is more than one."""
        if self.plot is None:
            return []
        found = dict.fromkeys((series.colour, series.name, series.faint) for series in self.plot.series)
        return list(found) if len(found) > 1 else []


@dataclass(frozen=True)
class Section:
    """id: of the HTML, stable. Blocks without content aren't made: `empty` says why there is none."""

    id: str
    title: str
    blocks: Sequence[Block]
    empty: str = ""
