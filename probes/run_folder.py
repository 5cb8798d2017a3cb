"""A run's folder while it is measured: what is there survives whatever ends it. Layout: probes/runs.py."""

import json
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tallystick.probes.records import Record, Sample, Stage
from tallystick.probes.runs import RunInfo

_GZIP: Final = 31
"""zlib's window bits for a gzip file."""


class CantKeep(OSError):
    """The folder takes nothing more (its disk is full). What was written before is whole."""


def run_id(entry: str, started_ns: int) -> str:
    """`20261121T163000-f32-3fa9`: sorted by name, runs are sorted by time."""
    started = datetime.fromtimestamp(started_ns / 1e9, UTC)
    return f"{started:%Y%m%dT%H%M%S}-{''.join(c if c.isalnum() or c in '._-' else '-' for c in entry)}-{secrets.token_hex(2)}"


class RunFolder:
    """Writes a run as it goes. Each record can be read as soon as it is written, though the file isn't ended. Raises CantKeep."""

    def __init__(self, folder: Path, info: RunInfo) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True)
            self._records = (folder / "records.jsonl.gz").open("xb", buffering=0)
        except OSError as error:
            raise CantKeep(error.errno, f"{folder} can't be written: {error.strerror}") from error
        self._zip = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        self.tell(info)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._write(self._zip.flush())
        except CantKeep:
            # Said when it happened first; a file without its end can be read up to there.
            pass
        finally:
            self._records.close()

    def tell(self, info: RunInfo) -> None:
        """run.json, anew: whole or not at all."""
        text = json.dumps(asdict(info), indent=1, default=str)
        file, new = self.folder / "run.json", self.folder / "run.json.new"
        try:
            new.write_text(text, encoding="utf-8")
            new.replace(file)
        except OSError as error:
            raise CantKeep(error.errno, f"{file} can't be written: {error.strerror}") from error

    def record(self, stage: int, record: Record) -> None:
        line = json.dumps({"stage": stage, **record.as_json()}, separators=(",", ":")) + "\n"
        self._write(self._zip.compress(line.encode()) + self._zip.flush(zlib.Z_SYNC_FLUSH))

    def stage(self, stage: Stage) -> None:
        """Of a stage that has ended: its line and its samples. Its records are there by then."""
        line: dict[str, Any] = {
            "number": stage.number,
            "load": asdict(stage.load),
            "started_ns": stage.started_ns,
            "ended_ns": stage.ended_ns,
            "health": asdict(stage.health),
            "ended": stage.ended,
            "requests": len(stage.records),
        }
        self._append("samples.jsonl", *(_sample(stage.number, one) for one in stage.samples))
        self._append("stages.jsonl", line)

    def _append(self, name: str, *lines: Mapping[str, Any]) -> None:
        file = self.folder / name
        try:
            with file.open("a", encoding="utf-8") as out:
                out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        except OSError as error:
            raise CantKeep(error.errno, f"{file} can't be written: {error.strerror}") from error

    def _write(self, content: bytes) -> None:
        try:
            while content:
                content = content[self._records.write(content) :]
        except OSError as error:
            raise CantKeep(error.errno, f"{self._records.name} can't be written: {error.strerror}") from error


def _sample(stage: int, sample: Sample) -> dict[str, Any]:
    return {"stage": stage, "at_ns": sample.at_ns, "values": dict(sample.values)}
