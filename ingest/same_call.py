"""Which spans tell of one call, and which of them is entered. Pure: spans in, verdict out.

Two spans are one call when they carry the same response id, or when one lies inside the other (its parent, or another instrumentation's
span in the same trace or process) and nothing they say contradicts it. A span around several calls is a wrapper and no call.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_OVERLAP_NS: Final = 2_000_000_000
"""How far two spans with one response id may lie apart: clocks of two machines differ."""

_SLACK_NS: Final = 2_000_000
"""How far an inner span may reach out of the outer one: they are timed by different calls to the clock."""

_LOG_SLACK_NS: Final = 250_000_000
"""The same for a log that tells of a stream after its end: its start is reckoned back from a rounded duration."""

_SOURCES: Final = {"provider": 5, "partial": 4, "estimated": 3, "none": 2, "missing": 1}
"""How much a usage source is worth when two spans of one call disagree."""

_MANY: Final = 512
"""Spans of one trace that are compared pair by pair; beyond it only neighbours in time are."""


class Identity(NamedTuple):
    """A span's name in the ledger."""

    tenant: str
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class Rival:
    """A call as one span tells of it. Times in ns since 1970, counts None where unknown; `total_input` includes cache reads and writes.

    stored: it stands in the ledger already. detail: how much of the usage is broken down. who: as in the ledger, '' where unknown.
    """

    stored: bool
    identity: Identity
    parent_span_id: bytes
    response_id: str
    process: str
    service: str
    scope: str
    layer: int
    is_log: bool
    begin_ns: int
    end_ns: int
    model: str
    total_input: int | None
    output_tokens: int | None
    usage_source: str
    detail: int
    who: tuple[str, ...]

    @property
    def quality(self) -> tuple[int, int, bool, bool, int, int]:
        """Of two spans of one call the greater is entered. What is stored stays where a new span knows no more; a log knows how the stream ended."""
        return _SOURCES[self.usage_source], self.detail, self.is_log, self.stored, self.layer, -self.begin_ns

    def knows_usage(self) -> bool:
        return self.usage_source == "provider" and self.total_input is not None


@dataclass
class Verdict:
    """What becomes of the spans.

    lost: spans that are not entered, or voided where they are stored (True). heirs: new calls that get the who of spans that lost to them.
    """

    lost: dict[Identity, bool] = field(default_factory=dict)
    heirs: dict[Identity, tuple[str, ...]] = field(default_factory=dict)


def judge(rivals: Iterable[Rival]) -> Verdict:
    """Find the calls that several spans tell of. The order of `rivals` doesn't matter."""
    ordered = sorted(rivals, key=_in_time)
    verdict = Verdict()
    standing = _one_answer(ordered, verdict)
    standing = _nested(standing, verdict)
    _one_process(standing, verdict)
    return verdict


def _settle(rivals: Sequence[Rival], verdict: Verdict) -> Rival:
    """All of them are one call: the best stays and inherits who it was for."""
    best = max(rivals, key=lambda r: r.quality)
    who = list(verdict.heirs.get(best.identity, best.who))
    for rival in rivals:
        if rival is not best:
            verdict.lost[rival.identity] = rival.stored
            inherited = verdict.heirs.pop(rival.identity, rival.who)
            who = [mine or theirs for mine, theirs in zip(who, inherited, strict=True)]
    if not best.stored and tuple(who) != best.who:
        verdict.heirs[best.identity] = tuple(who)
    return best


def _one_answer(rivals: Sequence[Rival], verdict: Verdict) -> list[Rival]:
    """Spans with one response id at one time; what is left standing, in order of time."""
    standing: list[Rival] = []
    by_answer: dict[tuple[str, str], list[Rival]] = defaultdict(list)
    for rival in rivals:
        if rival.response_id:
            by_answer[rival.identity.tenant, rival.response_id].append(rival)
        else:
            standing.append(rival)
    for same in by_answer.values():
        group = [same[0]]
        end_ns = same[0].end_ns
        for rival in same[1:]:
            if rival.begin_ns <= end_ns + _OVERLAP_NS:
                group.append(rival)
                end_ns = max(end_ns, rival.end_ns)
            else:
                standing.append(_settle(group, verdict))
                group, end_ns = [rival], rival.end_ns
        standing.append(_settle(group, verdict))
    return sorted(standing, key=_in_time)


def _nested(rivals: Sequence[Rival], verdict: Verdict) -> list[Rival]:
    """Spans around others in one trace."""
    by_trace: dict[tuple[str, bytes], list[Rival]] = defaultdict(list)
    for rival in rivals:
        by_trace[rival.identity.tenant, rival.identity.trace_id].append(rival)
    standing = []
    for trace in by_trace.values():
        live = trace
        if len(trace) > 1:
            above = _ancestors(trace)
            # From the inside out, so that of three layers the middle one is settled first.
            for outer in sorted(trace, key=lambda r: (r.end_ns - r.begin_ns, -r.begin_ns, r.identity)):
                if outer.identity in verdict.lost:
                    continue
                inner = [r for r in _neighbours(outer, live) if r is not outer and _wraps(outer, r, above)]
                if len(inner) == 1 and _agree(outer, inner[0]):
                    _settle([outer, inner[0]], verdict)
                elif len(inner) > 1 and _sums_up(outer, inner):
                    verdict.lost[outer.identity] = outer.stored
                live = [r for r in live if r.identity not in verdict.lost]
        standing += live
    return sorted(standing, key=_in_time)


def _in_time(rival: Rival) -> tuple[int, int, Identity]:
    return rival.begin_ns, -rival.end_ns, rival.identity


def _ancestors(trace: Sequence[Rival]) -> dict[bytes, set[bytes]]:
    """Span id → ids of the spans above it, as far as the spans of the trace tell."""
    parents = {r.identity.span_id: r.parent_span_id for r in trace}
    above: dict[bytes, set[bytes]] = {}
    for span_id in parents:
        climbed: set[bytes] = set()
        step = parents[span_id]
        while step in parents and step not in climbed and len(climbed) < _MANY:
            climbed.add(step)
            step = parents[step]
        above[span_id] = climbed
    return above


def _neighbours(outer: Rival, trace: Sequence[Rival]) -> Sequence[Rival]:
    if len(trace) <= _MANY:
        return trace
    place = next(i for i, r in enumerate(trace) if r is outer)
    return trace[max(0, place - _MANY // 2) : place + _MANY // 2]


def _wraps(outer: Rival, inner: Rival, above: dict[bytes, set[bytes]]) -> bool:
    """`inner` is told of inside `outer`, in one trace: below it, or inside its time by another instrumentation or service."""
    if outer.identity.span_id in above[inner.identity.span_id]:
        return True
    if inner.identity.span_id in above[outer.identity.span_id]:
        return False
    elsewhere = (outer.scope, outer.service) != (inner.scope, inner.service)
    return elsewhere and _contains(outer, inner) and _agree(outer, inner)


def _contains(outer: Rival, inner: Rival) -> bool:
    slack = _LOG_SLACK_NS if outer.is_log else _SLACK_NS
    return outer.begin_ns - slack <= inner.begin_ns and inner.end_ns <= outer.end_ns + slack


def _agree(one: Rival, other: Rival) -> bool:
    """Nothing that both say contradicts that they are one call."""
    if not _same_model(one.model, other.model):
        return False
    if one.knows_usage() and other.knows_usage():
        outputs = (one.output_tokens, other.output_tokens)
        return one.total_input == other.total_input and (None in outputs or outputs[0] == outputs[1])
    # Without usage to compare, two answers are two calls.
    return not (one.response_id and other.response_id)


def _same_model(one: str, other: str) -> bool:
    return not one or not other or one.startswith(other) or other.startswith(one)


def _sums_up(outer: Rival, inner: Sequence[Rival]) -> bool:
    """`outer` says nothing of its own, or the totals of what is inside."""
    if not outer.knows_usage():
        return True
    total = sum(r.total_input or 0 for r in inner)
    output = sum(r.output_tokens or 0 for r in inner)
    return (outer.total_input, outer.output_tokens or 0) == (total, output)


def _one_process(rivals: Sequence[Rival], verdict: Verdict) -> None:
    """Spans of one process that don't share a trace, where one of two instrumentations doesn't name the answer.

    Outer spans, in order of time, take of each other instrumentation the first span inside them that none has taken;
    a log, which tells of a stream after its end, takes of its own the one that began with it.
    """
    by_process: dict[tuple[str, str, str], list[Rival]] = defaultdict(list)
    for rival in rivals:
        by_process[rival.identity.tenant, rival.process, rival.model].append(rival)
    for group in by_process.values():
        taken: set[tuple[Identity, str]] = set()
        for outer in group:
            if outer.identity in verdict.lost:
                continue
            found: dict[str, Rival] = {}
            for inner in group:
                if inner.begin_ns > outer.end_ns + _LOG_SLACK_NS:
                    break
                if inner is outer or inner.identity in verdict.lost or (inner.identity, outer.scope) in taken or not _inside(outer, inner):
                    continue
                before = found.get(inner.scope)
                if before is None or (outer.is_log and abs(inner.begin_ns - outer.begin_ns) < abs(before.begin_ns - outer.begin_ns)):
                    found[inner.scope] = inner
            taken.update((inner.identity, outer.scope) for inner in found.values())
            if found:
                _settle([outer, *found.values()], verdict)


def _inside(outer: Rival, inner: Rival) -> bool:
    return (
        (inner.scope != outer.scope or (outer.is_log and not inner.is_log))
        and inner.identity.trace_id != outer.identity.trace_id
        and not (inner.response_id and outer.response_id)
        and _contains(outer, inner)
        and _agree(outer, inner)
    )
