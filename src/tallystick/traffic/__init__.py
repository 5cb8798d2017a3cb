"""Real traffic: production traces of token counts and arrival times, and their replay as spans."""

from pathlib import Path

DATA = Path(__file__).parent / "data"
"""The traces that ship with the package; licences and citations stand in the README beside it."""


def shipped() -> list[Path]:
    """The trace files that ship with the package, in a fixed order."""
    return sorted(DATA.glob("*.gz"))
