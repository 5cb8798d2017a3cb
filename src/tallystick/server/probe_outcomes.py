"""How recurring probes went: told while the server runs, and remembered for its next start."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tallystick.server.probe_process import Ended

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Last:
    """How the last run of a schedule went: `done`, `failed`, `timed out`, `stopped`, `skipped`. runs: ids of what it measured."""

    began_at: datetime
    ended_at: datetime
    outcome: str
    said: str
    runs: tuple[str, ...] = ()


class Remembered:
    """The last outcome of each schedule, in a file. One that makes no sense is nothing to remember; one that can't be written is logged."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last: dict[str, Last] = {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self._last = {name: _of_json(one) for name, one in content.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass

    def get(self, name: str) -> Last | None:
        return self._last.get(name)

    def put(self, name: str, last: Last) -> None:
        self._last[name] = last
        new = self._file.with_name(f"{self._file.name}.new")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps({name: asdict(one) for name, one in self._last.items()}, default=str), encoding="utf-8")
            new.replace(self._file)
        except OSError as error:
            log.warning("%s can't be written: %s", new, error.strerror)


def last_of(ended: Ended, timeout: timedelta) -> Last:
    """What a process came to; its times are the caller's to set."""
    now = datetime.now(UTC)
    try:
        runs = tuple(str(row["id"]) for row in json.loads(ended.out))
    except (ValueError, TypeError, KeyError):
        runs = ()
    said = " ".join(ended.errors.strip().splitlines()[-3:])[-500:]
    match ended:
        case Ended(code=0):
            return Last(now, now, "done", "", runs)
        case Ended(code=None, why="timeout"):
            return Last(now, now, "timed out", f"it took longer than {timeout}", runs)
        case Ended(code=None):
            return Last(now, now, "stopped", ended.why, runs)
        case _:
            return Last(now, now, "failed", said or f"exit status {ended.code}", runs)


def _of_json(one: Mapping[str, Any]) -> Last:
    began, ended = (datetime.fromisoformat(one[name]) for name in ("began_at", "ended_at"))
    return Last(began, ended, one["outcome"], one["said"], tuple(one["runs"]))
