"""One client's scenarios, bare and metered, and what the ledger of a real server says of them beside the truth."""

import json
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from server import Server

from clients.environment import HERE, lock_of, python
from tallystick.testing import ProviderServer, ServedCall
from tallystick.testing.receiver import SpanReceiver

CHECKS: Final = {
    "tokens": "tokens",
    "cache": "cache",
    "ttft": "first token",
    "scope": "scope",
    "one_call": "one call",
    "private": "private",
    "unchanged": "unchanged",
}
"""What is asked of each scenario → head of its column on the page."""

Cell = Literal["yes", "no", "–"]
Row = dict[str, Any]
Known = tuple[str, str, str, str]
"""A failure that is expected, as `KNOWN` of a scenario file has it: patterns of run, scenario and check, and the reason."""

CACHED: Final = ("cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")

OURS: Final = ("OTEL_", "TALLYSTICK_", "ANTHROPIC_", "OPENAI_")
"""Prefixes of variables that a run sets itself, or does without."""

PRIVATE: Final = (b"secret", b" tock", b"sk-of-a-provider")
"""Parts of every prompt, every answer and every key of the scenarios."""

OFFLINE: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""What keeps clients from fetching things when they are imported."""


@dataclass(frozen=True, slots=True)
class Run:
    """A table of runs.toml; see there."""

    name: str
    client: str
    environment: str
    scenarios: str
    library: str
    metered_by: dict[str, str]
    left_off: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run: scenario → check → cell, and what wasn't as it should be in words for whoever reads the test."""

    run: Run
    cells: dict[str, dict[str, Cell]]
    wrong: dict[tuple[str, str], str]
    known: list[Known]
    instrumented: dict[str, list[str]]

    def unexpected(self) -> list[str]:
        """What isn't as declared: a failure without a reason, and a reason without its failure."""
        found: list[str] = []
        for scenario, checks in self.cells.items():
            for check, cell in checks.items():
                why = self.reason(scenario, check)
                if cell == "no" and why is None:
                    found.append(f"{scenario}, {check}: {self.wrong[scenario, check]}")
                if cell == "yes" and why is not None:
                    found.append(f"{scenario}, {check}: is right, take it out of KNOWN ({why})")
        for run, of, what, why in self.known:
            failing = any(fnmatchcase(scenario, of) and fnmatchcase(check, what) for scenario, check in self.wrong)
            if fnmatchcase(self.run.name, run) and not failing:
                found.append(f"{of}, {what}: nothing fails, take it out of KNOWN ({why})")
        if {library: by for library, (by, _) in self.instrumented.items()} != self.run.metered_by:
            found.append(f"metered by {self.instrumented}, not {self.run.metered_by}")
        return found

    def reason(self, scenario: str, check: str) -> str | None:
        """Why this cell is expected to be `no`, or None where it isn't."""
        for run, of, what, why in self.known:
            if fnmatchcase(self.run.name, run) and fnmatchcase(scenario, of) and fnmatchcase(check, what):
                return why
        return None


@dataclass(frozen=True, slots=True)
class _Told:
    """What one process printed, and what its provider served."""

    scenarios: dict[str, dict[str, Any]]
    known: list[Known]
    instrumented: dict[str, list[str]]
    calls: Sequence[ServedCall]


def runs() -> dict[str, Run]:
    table: dict[str, Any] = tomllib.loads((HERE / "runs.toml").read_text(encoding="utf-8"))
    return {name: Run(name=name, **{**one, "beside": tuple(one.get("beside", ()))}) for name, one in table.items()}


def version_of(run: Run) -> str:
    """Of the library, as the lock has it."""
    found = re.search(rf"^{re.escape(run.library)}==(\S+)", lock_of(run.environment).read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{run.library} isn't in the lock of {run.environment}: make clients-lock"
    return found[1]


def result(run: Run, server: Server) -> Result:
    """Runs all scenarios twice, each time in one process, at once."""
    with ThreadPoolExecutor(2) as pool, SpanReceiver() as receiver:
        bare = pool.submit(_bare, run.environment, run.scenarios)
        environ = {
            "TALLYSTICK_URL": receiver.url,
            "TALLYSTICK_STRICT": "1",
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": run.left_off,
        }
        metered = _told(run.environment, run.scenarios, "metered", *run.beside, environ=environ)
        bodies = list(receiver.bodies)
    key = server.key(f"clients-{run.name}")
    server.post_all(bodies, key)
    return _judged(run, bare.result(), metered, _entries(server, key), _talkative(bodies))


@cache
def _bare(environment: str, scenarios: str) -> _Told:
    """The same for each way of metering them."""
    return _told(environment, scenarios, "bare", environ={})


def _told(environment: str, scenarios: str, *how: str, environ: dict[str, str]) -> _Told:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | OFFLINE
    script = HERE / "scenarios" / f"{scenarios}.py"
    with ProviderServer() as provider:
        done = subprocess.run(
            [str(python(environment)), "-P", str(HERE / "launch.py"), str(script), *how],
            input=provider.url + "\n",
            env=clean | environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found = {name: value for line in lines if "scenario" not in line for name, value in line.items()}
        told = {line["scenario"]: line for line in lines if "scenario" in line}
        assert told, done.stderr
        known: list[Known] = [tuple(row) for row in found["known"]]
        # Where it listened differs between the two processes, and stands in messages.
        told = json.loads(json.dumps(told).replace(provider.url, "http://provider"))
        return _Told(told, known, found.get("instrumented", {}), tuple(provider.calls))


def _entries(server: Server, key: str) -> list[Row]:
    """The ledger, once it has stopped growing: it may find that two spans are one call a moment after it took them."""
    before: list[Row] | None = None
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        rows = server.sql(
            "SELECT *, toUnixTimestamp64Nano(started_at) AS started_ns, toUnixTimestamp64Nano(ended_at) AS ended_ns FROM charges ORDER BY started_at",
            key,
        )
        if rows and rows == before:
            return rows
        before = rows
        time.sleep(0.3)
    raise AssertionError("the ledger is empty or doesn't come to rest")


def _talkative(bodies: list[bytes]) -> list[tuple[int, str]]:
    """Of each span that left with a prompt, an answer or a key: when it began (UTC ns), and its name."""
    return [
        (span.start_time_unix_nano, f"{under.scope.name}: {span.name}")
        for body in bodies
        for of in ExportTraceServiceRequest.FromString(body).resource_spans
        for under in of.scope_spans
        for span in under.spans
        if any(word in span.SerializeToString() for word in PRIVATE)
    ]


def _judged(run: Run, bare: _Told, metered: _Told, entries: list[Row], talkative: list[tuple[int, str]]) -> Result:
    cells: dict[str, dict[str, Cell]] = {}
    wrong: dict[tuple[str, str], str] = {}
    voided = {row["span_id"] for row in entries if row["entry"] == "void"}
    calls = [row for row in entries if row["entry"] == "call" and row["span_id"] not in voided]
    for name, told in metered.scenarios.items():
        served = [call for call in metered.calls if told["started_ns"] <= call.started_ns <= told["ended_ns"]]
        rows = [row for row in calls if told["started_ns"] <= int(row["started_ns"]) <= told["ended_ns"]]
        cells[name] = {}
        checks = {
            **_checks(name, served, rows),
            "private": ", ".join(span for begun, span in talkative if told["started_ns"] <= begun <= told["ended_ns"]),
            "unchanged": _difference(bare.scenarios[name], told),
        }
        for check, found in checks.items():
            cells[name][check] = "–" if found is None else "no" if found else "yes"
            if found:
                wrong[name, check] = found
    return Result(run, cells, wrong, metered.known, metered.instrumented)


def _checks(name: str, served: list[ServedCall], rows: list[Row]) -> dict[str, str | None]:
    """Check → what is wrong, '' where nothing is, None where there is nothing to check."""
    answered = [call for call in served if call.status == 200]
    # A client that tries again, and a call that only ever failed, are one call each; one that never left may be told of or not.
    expected = {len(answered) or 1} if served else {0, 1}
    counted = (
        ""
        if len(rows) in expected
        else f"{len(rows)} calls, not {expected}: {[(row['operation'], row['request_model'], row['response_id']) for row in rows]}"
    )
    elsewhere = [(row["customer"], row["feature"]) for row in rows if (row["customer"], row["feature"]) != ("acme", name)]
    pairs = list(zip(answered, rows, strict=False))
    return {
        "tokens": ("no call" if served else None)
        if not rows
        else _first(_tokens(call, row) for call, row in pairs)
        if pairs
        else _nothing(served, rows),
        "cache": _first(_cache(call, row) for call, row in pairs) if any(_uses_cache(call) for call, _ in pairs) else None,
        "ttft": _first(_ttft(call, row) for call, row in pairs) if any(call.streamed for call, _ in pairs) else None,
        "scope": ("no call" if served else None) if not rows else f"{elsewhere}" if elsewhere else "",
        "one_call": counted,
    }


def _first(problems: Any) -> str:
    return next(filter(None, problems), "")


def _nothing(served: list[ServedCall], rows: list[Row]) -> str:
    """Of a call that wasn't answered: nothing was used where the provider refused it, nobody knows where it was silent."""
    refused, unknown = ("none", 0), ("missing", None)
    true = {refused, unknown} if not served else {unknown} if any(call.status is None for call in served) else {refused}
    got = [(row["usage_source"], row["cost_usd"]) for row in rows]
    return "" if true.issuperset(got) else f"usage and cost are {got}, not {true}"


def _tokens(call: ServedCall, row: Row) -> str:
    assert call.usage is not None
    if not call.usage_sent:
        # What the provider didn't tell is counted from what passed, and says so.
        counted = row["usage_source"] in ("estimated", "partial") and row["input_tokens"] and row["output_tokens"]
        return "" if counted else f"{row['usage_source']}: {row['input_tokens']} in, {row['output_tokens']} out"
    got = {
        "input": sum(row[column] or 0 for column in ("input_tokens", *CACHED)),
        "output": row["output_tokens"] or 0,
        "reasoning": row["reasoning_tokens"] or 0,
        "source": row["usage_source"],
    }
    true = {
        "input": call.usage.input_total,
        "output": call.usage.output,
        "reasoning": call.usage.reasoning,
        "source": "provider",
    }
    return "" if got == true else f"{got}, not {true}"


def _uses_cache(call: ServedCall) -> bool:
    return call.usage is not None and bool(call.usage.cache_read or call.usage.cache_write)


def _cache(call: ServedCall, row: Row) -> str:
    assert call.usage is not None
    got = tuple(row[column] or 0 for column in CACHED)
    true = (call.usage.cache_read, call.usage.cache_write_5m, call.usage.cache_write_1h)
    return "" if got == true else f"read, 5 min, 1 h: {got}, not {true}"


def _ttft(call: ServedCall, row: Row) -> str:
    if not call.streamed:
        return ""
    if row["ttft_ms"] is None:
        return "unknown"
    duration_ms = (int(row["ended_ns"]) - int(row["started_ns"])) / 1e6
    return "" if 0 < row["ttft_ms"] <= duration_ms else f"{row['ttft_ms']} ms of {duration_ms}"


def _difference(bare: dict[str, Any], metered: dict[str, Any]) -> str:
    seen = [
        json.dumps(_comparable({key: one.get(key) for key in ("result", "error", "printed")}), sort_keys=True)
        for one in (bare, metered)
    ]
    if seen[0] == seen[1]:
        return ""
    at = next(place for place, (a, b) in enumerate(zip(*seen, strict=False)) if a != b) if seen[0] and seen[1] else 0
    return f"…{seen[1][max(0, at - 60) : at + 120]}, not …{seen[0][max(0, at - 60) : at + 120]}"


CHANGING: Final = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"  # UUID
    r"|\b(chatcmpl-|resp_|emb_|msg_)[0-9a-f]{16,}\b"  # id of an answer of the provider server
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:\d\d)?"
)
"""What differs from run to run with and without us."""


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return CHANGING.sub("…", value) if isinstance(value, str) else value
