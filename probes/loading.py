"""Runs read back from their folders (probes/runs.py), also those that were cut off: what can be read is, and what can't is said."""

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from tallystick.probes.config import Cost, Target
from tallystick.probes.figures.summary import StageSummary, summarise
from tallystick.probes.records import ClientHealth, LoadPoint, Record, Sample, Stage
from tallystick.probes.runs import EngineFacts, RunInfo, State

_Part = TypeVar("_Part", bound=BaseModel)

FOLDER: Final = "probes"
"""Of runs, in the data directory."""

INFO: Final = "run.json"
STAGES: Final = "stages.jsonl"
RECORDS: Final = "records.jsonl.gz"
SAMPLES: Final = "samples.jsonl"


class RunUnreadable(Exception):
    """A folder's run.json isn't there or says nothing: the message says which, and why."""


class RunNotFound(LookupError):
    """No run, or more than one, goes by a name. `hint` says what there is."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class LoadedRun:
    """A run as its folder has it. Stages are read when they are asked for, all at once, and kept."""

    folder: Path
    info: RunInfo

    @property
    def name(self) -> str:
        """What people are shown: the entry's, and the id that nothing else has."""
        return f"{self.info.entry} ({self.info.id})"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that ended, in their order, with records and samples."""
        return self._read[0]

    @property
    def target(self) -> Target | None:
        """The latency that its configuration asks for; None also where that can't be read (`problems`)."""
        return _asked(Target, self.info.config.get("target"))[0]

    @property
    def cost(self) -> Cost | None:
        """Of its hardware, as its entry says; None also where that can't be read (`problems`)."""
        return _asked(Cost, self._entry.get("cost"))[0]

    @property
    def _entry(self) -> Mapping[str, Any]:
        return next((one for one in self.info.config.get("engines", ()) if one.get("name") == self.info.entry), {})

    @cached_property
    def summaries(self) -> tuple[StageSummary, ...]:
        """Of the stages, by probes/figures/summary.py as it is now: definitions that change, change old runs alike."""
        return tuple(summarise(stage, self.target) for stage in self.stages)

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the run couldn't be read, or is in no figure."""
        asked = (_asked(Target, self.info.config.get("target"))[1], _asked(Cost, self._entry.get("cost"))[1])
        return (*self._read[1], *filter(None, asked))

    @cached_property
    def _read(self) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
        problems: list[str] = []
        records: dict[int, list[Record]] = defaultdict(list)
        for line in _lines(self.folder / RECORDS, problems):
            try:
                records[line.pop("stage")].append(Record.of_json(line))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problems.append(f"{RECORDS}: a request was left out: {_why(error)}")
        samples: dict[int, list[Sample]] = defaultdict(list)
        for line in _lines(self.folder / SAMPLES, problems):
            try:
                samples[line["stage"]].append(Sample(line["at_ns"], line["values"]))
            except (KeyError, TypeError) as error:
                problems.append(f"{SAMPLES}: a scrape was left out: {_why(error)}")
        stages: list[Stage] = []
        for line in _lines(self.folder / STAGES, problems):
            try:
                stage = _stage(line, records, samples)
            except (KeyError, TypeError) as error:
                problems.append(f"{STAGES}: a stage was left out: {_why(error)}")
                continue
            stages.append(stage)
            if len(stage.records) < (wrote := line.get("requests", 0)):
                problems.append(f"stage {stage.number}: {len(stage.records):,} of {wrote:,} requests can be read")
        unfinished = sorted(set(records) - {stage.number for stage in stages})
        problems += [
            f"stage {number} has no end: its {len(records[number]):,} requests are kept, and are in no figure"
            for number in unfinished
        ]
        return tuple(sorted(stages, key=lambda stage: stage.number)), tuple(dict.fromkeys(problems))


def load_run(folder: Path) -> LoadedRun:
    """Raises RunUnreadable where there is no run; damage to anything but run.json is told by `problems`."""
    return LoadedRun(folder, read_info(folder))


def read_info(folder: Path) -> RunInfo:
    """run.json of a folder. Raises RunUnreadable."""
    file = folder / INFO
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        engine = content["engine"]
        facts = None
        if engine is not None:
            tuples = {name: tuple(engine[name]) for name in ("fields", "notes") if name in engine}
            facts = EngineFacts(**{**engine, **tuples})
        return RunInfo(**{**content, "state": State(content["state"]), "engine": facts})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunUnreadable(f"{file}: {_why(error)}") from None


def runs_in(data: Path, unreadable: list[str] | None = None) -> list[RunInfo]:
    """Runs of a data directory, the oldest first. What can't be read is left out, and told to `unreadable`."""
    found: list[RunInfo] = []
    for folder in sorted((data / FOLDER).glob("*/")):
        try:
            found.append(read_info(folder))
        except RunUnreadable as error:
            if unreadable is not None:
                unreadable.append(str(error))
    return sorted(found, key=lambda info: (info.started_ns, info.id))


def find_runs(data: Path, name: str) -> list[LoadedRun]:
    """Runs by an id or its beginning, `last`, a folder, `PROBE` (the newest run of each entry of its newest configuration) or `PROBE/ENTRY`.

    Raises RunNotFound, RunUnreadable.
    """
    if (Path(name) / INFO).is_file():
        return [load_run(Path(name))]
    known = runs_in(data)
    chosen = [info for info in known if info.id == name] or _named(known, name) or _begun(known, name)
    if not chosen:
        there = ", ".join(dict.fromkeys(info.id for info in known[:-6:-1]))
        raise RunNotFound(
            f"no run {name!r} in {data / FOLDER}",
            f"the latest are {there}; `tallystick probe list` has all" if known else "`tallystick probe run CONFIG` makes one",
        )
    return [load_run(data / FOLDER / info.id) for info in chosen]


def find_run(data: Path, name: str) -> LoadedRun:
    """The one run of a name, as `find_runs` understands it. Raises RunNotFound also where there are several."""
    found = find_runs(data, name)
    if len(found) > 1:
        raise RunNotFound(f"{name!r} is {len(found)} runs", "one of " + ", ".join(run.info.id for run in found))
    return found[0]


def runs_before(data: Path, info: RunInfo, most: int = 5) -> list[LoadedRun]:
    """The last valid runs of the same probe and entry that began before this one, the oldest first."""
    earlier = [
        one
        for one in runs_in(data)
        if (one.probe, one.entry, one.state) == (info.probe, info.entry, State.DONE) and one.started_ns < info.started_ns
    ]
    return [load_run(data / FOLDER / one.id) for one in earlier[-most:]]


def _asked(part: type[_Part], content: Any) -> tuple[_Part | None, str]:
    """A part of a configuration, and what is wrong with it: an older tallystick's may have been otherwise."""
    if content is None:
        return None, ""
    try:
        return part.model_validate(content), ""
    except ValidationError as error:
        first = error.errors()[0]
        return None, f"{INFO}: `{part.__name__.lower()}` isn't used: {'.'.join(map(str, first['loc']))}: {first['msg']}"


def _named(known: Sequence[RunInfo], name: str) -> list[RunInfo]:
    if name == "last":
        return list(known[-1:])
    probe, _, entry = name.partition("/")
    newest = {info.entry: info for info in known if info.probe == probe and entry in ("", info.entry)}
    if not newest:
        return []
    # Entries in their order in the file; one that the newest configuration no longer has is history.
    last = max(newest.values(), key=lambda info: info.started_ns)
    order = [engine.get("name") for engine in last.config.get("engines", [])]
    if not entry and order:
        newest = {name: newest[name] for name in order if name in newest}
    return list(newest.values())


def _begun(known: Sequence[RunInfo], name: str) -> list[RunInfo]:
    begun = [info for info in known if info.id.startswith(name)]
    if len(begun) > 1:
        raise RunNotFound(f"{len(begun)} runs begin with {name!r}", ", ".join(info.id for info in begun[:10]))
    return begun


def _stage(line: dict[str, Any], records: dict[int, list[Record]], samples: dict[int, list[Sample]]) -> Stage:
    number = line["number"]
    return Stage(
        number=number,
        load=LoadPoint(**line["load"]),
        started_ns=line["started_ns"],
        ended_ns=line["ended_ns"],
        records=records.get(number, []),
        samples=samples.get(number, []),
        health=ClientHealth(**line["health"]),
        ended=line["ended"],
    )


def _lines(file: Path, problems: list[str]) -> Iterator[dict[str, Any]]:
    """Objects of a file of JSON lines, up to where it is cut off; a line that is none is told and left out."""
    number = 0
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, text in enumerate(lines, 1):
                try:
                    content = json.loads(text)
                except ValueError:
                    problems.append(f"{file.name}: line {number:,} is damaged and left out")
                    continue
                if isinstance(content, dict):
                    yield content
    except FileNotFoundError:
        problems.append(f"{file.name} isn't there")
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        problems.append(f"{file.name} is cut off after {number:,} lines: {_why(error)}")


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error.args[0]!r} is missing"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
