"""A directory of FOCUS files, one a day, brought up to date with the ledger.

Entries are only ever added. So a day has changed if it has more of them than its file was made from, and then its file is written
anew as a whole. A file appears under its name when it is complete, and the manifest names it after that: an export that was cut off
anywhere is finished by the next.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple, Protocol

from tallystick.attribution.focus.columns import columns
from tallystick.attribution.focus.question import Day, Form, Granularity, Question, Tally, by_day

MANIFEST: Final = "manifest.json"
_LOCK: Final = ".lock"
_PART: Final = ".part"
_FORMAT: Final = "tallystick focus 1"
_TICK: Final = timedelta(milliseconds=1)
"""What the ledger tells times of entries by."""

_TRIES: Final = 5


class Source(Protocol):
    """A ledger that answers questions for FOCUS; what each raises is its own."""

    def focus_days(self, question: Question) -> list[Day]: ...

    def focus_tally(self, question: Question) -> Tally: ...

    def focus(self, question: Question, form: Form) -> Iterator[bytes]: ...


class OtherExport(ValueError):
    """The directory holds something else: another version, granularity, format or customer, or no FOCUS files."""


class DirectoryInUse(RuntimeError):
    """Another export writes to the directory."""


class DoesNotAddUp(RuntimeError):
    """A file's sum isn't the ledger's: nothing was kept of it."""


@dataclass(frozen=True)
class Shape:
    """What all files of a directory have in common."""

    version: str
    granularity: Granularity
    form: Form
    customer: str | None = None


class Outcome(NamedTuple):
    """What was done for a day. rows, cost_usd: of its file; the cost is the ledger's sum. unpriced_tokens of `tokens` have no price.

    `written`: new or changed. `unchanged`: as it was. `kept`: the ledger has forgotten entries (retention), the file hasn't.
    """

    day: str
    done: Literal["written", "unchanged", "kept"]
    file: str
    rows: int
    cost_usd: Decimal
    tokens: int
    unpriced_tokens: int


def export(
    directory: Path, shape: Shape, source: Source, since_ns: int, until_ns: int, *, full: bool = False
) -> Iterator[Outcome]:
    """Write what changed in the whole days from since_ns to until_ns (nanoseconds since 1970), the earliest first.

    full: all of it. Raises UnknownVersion, OtherExport, DirectoryInUse, DoesNotAddUp, OSError, and what the source raises; files that
    were finished before stay.
    """
    columns(shape.version)
    directory.mkdir(parents=True, exist_ok=True)
    with _held(directory):
        manifest = _Manifest(directory, shape)
        for left_over in directory.glob(f"*{_PART}"):
            left_over.unlink()
        question = Question(shape.version, since_ns, until_ns, shape.granularity, shape.customer)
        for day in source.focus_days(question):
            known = manifest.periods.get(day.day)
            done = _decide(day, known, directory) if not full else "written"
            if known is None or done == "written":
                known = _write(directory, shape, source, by_day(question, day.day), day)
                manifest.put(day.day, known)
            yield Outcome(
                day.day, done, known["file"], known["rows"], Decimal(known["cost_usd"]), known["tokens"], known["unpriced_tokens"]
            )


def _decide(day: Day, known: dict[str, Any] | None, directory: Path) -> Literal["written", "unchanged", "kept"]:
    if known is None or not _is_whole(directory, known):
        return "written"
    if day.entries < known["entries"]:
        return "kept"
    same = day.entries == known["entries"] and f"{day.cost_usd:f}" == known["cost_usd"]
    return "unchanged" if same else "written"


def _is_whole(directory: Path, known: dict[str, Any]) -> bool:
    path = directory / str(known["file"])
    return path.is_file() and path.stat().st_size == int(known["bytes"])


def _write(directory: Path, shape: Shape, source: Source, question: Question, day: Day) -> dict[str, Any]:
    """The file of a day as the ledger stood at its last entry; what the manifest says of it."""
    path = directory / f"focus-{day.day}.{shape.form}"
    part = path.with_name(path.name + _PART)
    try:
        for _ in range(_TRIES):
            asked = replace(question, as_of=day.entered_at + _TICK)
            digest = _save(part, source.focus(asked, shape.form))
            rows, billed = source.focus_tally(asked)
            # Entries appear later than their time: one may have come while the file was written.
            (seen,) = source.focus_days(asked)
            if seen.entries == day.entries:
                break
            day = seen
        else:
            raise DoesNotAddUp(f"{day.day}: entries come too fast; export it again")
        if billed != day.cost_usd:
            raise DoesNotAddUp(f"{day.day}: the file comes to {billed:f} USD, the ledger to {day.cost_usd:f}")
        size = part.stat().st_size
        part.replace(path)
        _sync(directory)
    finally:
        part.unlink(missing_ok=True)
    return {
        "file": path.name,
        "rows": rows,
        "cost_usd": f"{billed:f}",
        "tokens": day.tokens,
        "unpriced_tokens": day.unpriced_tokens,
        "entries": day.entries,
        "entered_at": day.entered_at.isoformat(),
        "bytes": size,
        "sha256": digest,
    }


def _save(path: Path, pieces: Iterator[bytes]) -> str:
    """Its SHA-256. Raises OSError, which names the file."""
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            _flush(file)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    return digest.hexdigest()


class _Manifest:
    """`manifest.json`: the shape, and of each day its file and what it was made from."""

    def __init__(self, directory: Path, shape: Shape) -> None:
        self._path = directory / MANIFEST
        self._head = {"format": _FORMAT, **asdict(shape)}
        self.periods: dict[str, dict[str, Any]] = {}
        if not self._path.exists():
            if any(directory.glob("focus-*")):
                raise OtherExport(f"{directory} has files named focus-… and no {MANIFEST}: name another directory")
            # Before the first file: files without a manifest are somebody else's.
            self._save()
            return
        try:
            held = json.loads(self._path.read_bytes())
            self.periods = dict(held.pop("periods"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OtherExport(f"{self._path} isn't a manifest of this export: name another directory") from None
        totals = {name: value for name, value in held.items() if name in self._head}
        if totals != self._head:
            raise OtherExport(f"{directory} holds {_described(held)}, not {_described(self._head)}: name another directory")

    def put(self, day: str, about: dict[str, Any]) -> None:
        """It is kept when this returns."""
        self.periods[day] = about
        self._save()

    def _save(self) -> None:
        periods = dict(sorted(self.periods.items()))
        held = {
            **self._head,
            "rows": sum(known["rows"] for known in periods.values()),
            "cost_usd": f"{sum((Decimal(known['cost_usd']) for known in periods.values()), Decimal(0)):f}",
            "entered_at": max((known["entered_at"] for known in periods.values()), key=datetime.fromisoformat, default=None),
            "periods": periods,
        }
        part = self._path.with_name(MANIFEST + _PART)
        with part.open("wb") as file:
            file.write(json.dumps(held, indent=1, ensure_ascii=False).encode() + b"\n")
            _flush(file)
        part.replace(self._path)
        _sync(self._path.parent)


def _described(head: dict[str, Any]) -> str:
    customer = head.get("customer")
    whose = f" of {customer}" if customer is not None else ""
    return f"FOCUS {head.get('version')}, {head.get('granularity')}, {head.get('form')}{whose}"


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    with (directory / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryInUse(f"another export writes to {directory}") from None
        yield


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
