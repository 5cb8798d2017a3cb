"""A year of alerts with faults: what had to be said of budgets, what was, and what of it arrived.

    python benchmarks/alerts_year.py [--days 366] [--seed 1]

The evaluator, its ledger and the outbox are the real ones; clock, spend, faults and channels are simulated (`tests/year.py`), and the same for
the same seed. What had to be said is reckoned by other code (`tests/year_reckoning.py`). Then a year without faults is run again for its
memory: what Python's objects of the alerter and its libraries take after the first month and after the last, as tracemalloc sees it.
"""

import argparse
import gc
import logging
import sys
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from year import Year
from year_people import ZONES
from year_reckoning import Counts

START = datetime(2028, 1, 1, tzinfo=UTC)
"""Of a leap year."""
COLUMNS = ("budgets", "due", "said alone", "with higher", "carried", "twice", "never", "corrections", "missed")


def row(name: str, of: Counts) -> str:
    figures = (
        of.budgets, of.due, of.alone, of.with_higher, of.carried, of.twice, of.never, of.corrections, of.corrections_never,
    )  # fmt: skip
    return f"{name:<28}" + "".join(f"{figure:>12,}" for figure in figures)


def table(year: Year) -> int:
    """Prints what came of a year; how much of it went wrong."""
    counts = year.reckoning.counts
    print(f"{'thresholds, by kind of budget':<28}" + "".join(f"{name:>12}" for name in COLUMNS))
    total = Counts()
    for kind in ZONES:
        print(row(kind, counts[kind]))
        for name, figure in vars(counts[kind]).items():
            setattr(total, name, getattr(total, name) + figure)
    print(row("all", total))
    print(
        "\ndue: reached at an evaluation, under the revision in force, and not known before; with higher: told by the message of a higher one;"
        "\ncarried: known under the revision before, still reached after an edit, and rightly not said again; missed: corrections that nobody told"
    )
    outcome = year.outcome()
    print(f"\nmessages, counted for each channel   {outcome.entered:>8,}")
    for name, figure in (
        ("delivered", outcome.delivered),
        ("delivered again after a killed sender", outcome.again_after_a_kill),
        ("delivered again for any other reason", outcome.again),
        ("refused for good by a revoked webhook", outcome.refused),
        ("silenced", outcome.silenced),
        ("lost", outcome.lost),
    ):
        print(f"  {name:<37}{figure:>6,}")
    print("\nfaults: " + ", ".join(f"{name} {count:,}" for name, count in sorted(year.faults.items())))
    wrong = total.wrong
    print(f"\n{year.ticks:,} evaluations; said without cause, or with a wrong figure: {len(wrong)}")
    for line in wrong[:20]:
        print(f"  {line}")
    return len(wrong) + total.twice + total.never + outcome.lost + outcome.again


def memory(days: int) -> None:
    taken: list[int] = []

    def weigh(_: datetime) -> None:
        gc.collect()
        ours = [tracemalloc.Filter(True, f"*/{name}/*") for name in ("alerts", "sqlalchemy", "pydantic", "sqlite3")]
        taken.append(sum(one.size for one in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")))

    with tempfile.TemporaryDirectory() as data:
        year = Year(Path(data), START, START + timedelta(days=days), a_day=8, step=timedelta(days=1), faulty=False, months=weigh)
        tracemalloc.start(1)
        year.run()
        tracemalloc.stop()
    print("\nmemory of the alerter, KiB, at the end of each month: " + ", ".join(f"{one / 1024:,.0f}" for one in taken))
    print(f"last month over first: {taken[-1] / taken[0]:.2f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--days", type=int, default=366)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as data:
        year = Year(Path(data), START, START + timedelta(days=given.days), seed=given.seed)
        year.run()
        print(f"{given.days} days of {START.year}, seed {given.seed}\n")
        wrong = table(year)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    memory(given.days)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
