"""Which spans tell of one call, and which of them is entered. Pure: spans in, verdict out.

Two spans are one call when they carry the same response id, or when one lies inside the other (its parent, or another
instrumentation's span in the same trace or process) and nothing they say contradicts it. A span around several calls is a wrapper
and no call. One instrumentation tells of a call in spans that are parent and child, or in a span and a log, but never in two
side by side.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

_OVERLAP_NS: Final = 2_000_000_000
"""How far two spans with one response id may lie apart: clocks of two machines differ."""

_SLACK_NS: Final = 2_000_000
"""How far an inner span may reach out of the outer one: they are timed by different calls to the clock."""

_LOG_SLACK_NS: Final = 250_000_000
"""The same where one of them is a log that tells of a stream after its end."""

_PICK_UP_NS: Final = 1_000_000_000
"""A stream's log begins where the span of its request ended, or as much later as the application waits before it reads."""

_SOURCES: Final = {"provider": 5, "partial": 4, "estimated": 3, "none": 2, "missing": 1}
"""How much a usage source is worth when two spans of one call disagree."""

_NEAR: Final = 64
"""Spans that are looked at because they begin inside another's time."""

_BELOW: Final = 1024
"""Calls that a wrapper may have below it and still be known for one."""

_SERVER_LAYER: Final = 2
"""Gateways and engines, up to this layer, tell of calls that other services make, and may give them another response id."""


class Identity(NamedTuple):
    """A span's name in the ledger."""

    tenant: str
    trace_id: bytes
    span_id: bytes


@dataclass(frozen=True, slots=True)
class Rival:
    """A call as one span tells of it. Times in ns since 1970, counts None where unknown; `total_input` is with the cache's.

    stored: it stands in the ledger already. detail: how much of the usage is broken down. who, what (provider, request and response model,
    service tier): as in the ledger, '' is unknown.
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
    what: tuple[str, str, str, str]

    @property
    def quality(self) -> tuple[int, int, bool, bool, int, int]:
        """Of two spans of one call the greater is entered: what is stored, unless a new one knows more. A log knows the end."""
        return _SOURCES[self.usage_source], self.detail, self.is_log, self.stored, self.layer, -self.begin_ns

    @property
    def names(self) -> "Names":
        return Names(self.who, self.what)

    @property
    def is_root(self) -> bool:
        """It has no parent: its id is empty, or zeros."""
        return not any(self.parent_span_id)

    def knows_usage(self) -> bool:
        return self.usage_source == "provider" and self.total_input is not None


class Names(NamedTuple):
    """Whom a call was for and what it went to, as in `Rival`."""

    who: tuple[str, ...]
    what: tuple[str, str, str, str]

    def or_else(self, other: "Names") -> "Names":
        """Completed by `other`'s. A call that names no model, as a server's does, went to what the other one names: prices go by all four."""
        return Names(
            tuple(mine or theirs for mine, theirs in zip(self.who, other.who, strict=True)),
            self.what if self.what[1] or self.what[2] else other.what,
        )


@dataclass
class Verdict:
    """What becomes of the spans.

    lost: spans not to enter, or to void where they are stored (True). heirs: new calls that get names of those they beat.
    """

    lost: dict[Identity, bool] = field(default_factory=dict)
    heirs: dict[Identity, Names] = field(default_factory=dict)


def judge(rivals: Iterable[Rival]) -> Verdict:
    """Find the calls that several spans tell of. The order of `rivals` doesn't matter."""
    case = _Case()
    standing = sorted(rivals, key=_in_time)
    for step in (_one_answer, _streams, _nested, _one_process):
        step(standing, case)
        standing = case.standing(standing)
    return case.verdict


class _Case:
    """The verdict so far, and by which instrumentations each call that stands is told already."""

    def __init__(self) -> None:
        self.verdict = Verdict()
        self._views: dict[Identity, frozenset[tuple[str, bool]]] = {}

    def standing(self, rivals: Iterable[Rival]) -> list[Rival]:
        return [r for r in rivals if r.identity not in self.verdict.lost]

    def stands(self, rival: Rival) -> bool:
        return rival.identity not in self.verdict.lost

    def views(self, rival: Rival) -> frozenset[tuple[str, bool]]:
        return self._views.get(rival.identity) or frozenset({(rival.scope, rival.is_log)})

    def settle(self, rivals: Sequence[Rival]) -> None:
        """All of them are one call: the best stays and inherits names that it lacks."""
        verdict = self.verdict
        best = max(rivals, key=lambda r: (r.quality, r.identity))
        names = verdict.heirs.get(best.identity, best.names)
        for rival in rivals:
            if rival is not best:
                verdict.lost[rival.identity] = rival.stored
                names = names.or_else(verdict.heirs.pop(rival.identity, rival.names))
        if not best.stored and names != best.names:
            verdict.heirs[best.identity] = names
        self._views[best.identity] = frozenset().union(*map(self.views, rivals))

    def drop(self, rival: Rival) -> None:
        """It is no call."""
        self.verdict.lost[rival.identity] = rival.stored
        self.verdict.heirs.pop(rival.identity, None)


def _in_time(rival: Rival) -> tuple[int, int, Identity]:
    return rival.begin_ns, -rival.end_ns, rival.identity


def _one_answer(rivals: Sequence[Rival], case: _Case) -> None:
    """Spans with one response id at one time."""
    by_answer: dict[tuple[str, str], list[Rival]] = defaultdict(list)
    for rival in rivals:
        if rival.response_id:
            by_answer[rival.identity.tenant, rival.response_id].append(rival)
    for same in by_answer.values():
        for call in _calls_of_one_answer(same):
            if len(call) > 1:
                case.settle(call)


def _calls_of_one_answer(rivals: Sequence[Rival]) -> list[list[Rival]]:
    """The spans of one response id, call by call: engines draw ids from a small range, and a cache answers with old ones."""
    calls: list[list[Rival]] = []
    for rival in rivals:
        for call in calls[-_NEAR:]:
            if max(r.end_ns for r in call) + _OVERLAP_NS >= rival.begin_ns and all(_one_telling(r, rival) for r in call):
                call.append(rival)
                break
        else:
            calls.append([rival])
    return calls


def _one_telling(one: Rival, other: Rival) -> bool:
    """Spans of one response id can be one call: of two instrumentations, parent and child, or an answer fetched again."""
    overlap = one.end_ns > other.begin_ns and other.end_ns > one.begin_ns
    return (
        (one.scope, one.service, one.is_log) != (other.scope, other.service, other.is_log)
        or one.identity.span_id == other.parent_span_id
        or other.identity.span_id == one.parent_span_id
        or not (overlap or _usage_differs(one, other))
    )


def _streams(rivals: Sequence[Rival], case: _Case) -> None:
    """A log that tells of a stream, and the span of its request, which ended when the stream began and knows no usage."""
    requests: dict[tuple[str, str, str, str], list[Rival]] = defaultdict(list)
    for rival in sorted(rivals, key=lambda r: (r.end_ns, r.identity)):
        if not rival.is_log and rival.usage_source == "missing":
            requests[rival.identity.tenant, rival.process, rival.scope, rival.model].append(rival)
    for log in (r for r in rivals if r.is_log):
        waiting = requests[log.identity.tenant, log.process, log.scope, log.model]
        place = bisect_left(waiting, log.begin_ns + _SLACK_NS, key=lambda r: r.end_ns) - 1
        if place >= 0 and waiting[place].end_ns >= log.begin_ns - _PICK_UP_NS:
            case.settle([log, waiting.pop(place)])


def _nested(rivals: Sequence[Rival], case: _Case) -> None:
    """Spans around others in one trace."""
    by_trace: dict[tuple[str, bytes], list[Rival]] = defaultdict(list)
    for rival in rivals:
        by_trace[rival.identity.tenant, rival.identity.trace_id].append(rival)
    for trace in by_trace.values():
        if len(trace) > 1:
            _settle_trace(trace, case)


def _settle_trace(trace: Sequence[Rival], case: _Case) -> None:
    tree, near = _Tree(trace), _Near(trace)
    # From the inside out, so that of three layers the middle one is settled first.
    for outer in sorted(trace, key=lambda r: (r.end_ns - r.begin_ns, -tree.depth(r), -r.begin_ns, r.identity)):
        if not case.stands(outer):
            continue
        below = case.standing(tree.below(outer))
        if len(below) > 1:
            if _sums_up(outer, below):
                case.drop(outer)
            continue
        same = [r for r in below if _agree(outer, r)]
        beside = (r for r in near.begun_inside(outer) if not tree.related(outer, r) and _beside(outer, r))
        same += _one_a_scope(beside, outer, same, case)
        if same:
            case.settle([outer, *same])


class _Tree:
    """Which span of a trace is below which, as far as they tell. In depth-first order the spans below one are the next ones."""

    def __init__(self, trace: Sequence[Rival]) -> None:
        ids = {r.identity.span_id for r in trace}
        children: dict[bytes, list[Rival]] = defaultdict(list)
        for rival in trace:
            children[rival.parent_span_id if rival.parent_span_id in ids else b""].append(rival)
        self._order: list[Rival] = []
        self._places: dict[bytes, tuple[int, int, int]] = {}
        path: list[Rival] = []
        starts: list[int] = []
        stack: list[Rival | None] = [*children[b""]]
        while stack:
            step = stack.pop()
            if step is None:
                self._places[path.pop().identity.span_id] = starts.pop(), len(self._order), len(path)
                continue
            path.append(step)
            starts.append(len(self._order))
            self._order.append(step)
            stack += [None, *children[step.identity.span_id]]

    def _place(self, rival: Rival) -> tuple[int, int, int]:
        """Its number, that of the next span not below it, and its depth. Spans that are each other's parents are nowhere."""
        return self._places.get(rival.identity.span_id, (-1, -1, 0))

    def below(self, rival: Rival) -> Sequence[Rival]:
        """The spans below; of very many the first."""
        place, end, _ = self._place(rival)
        return self._order[place + 1 : min(end, place + 1 + _BELOW)]

    def related(self, one: Rival, other: Rival) -> bool:
        """One is below the other."""
        (a, a_end, _), (b, b_end, _) = self._place(one), self._place(other)
        return a <= b < a_end or b <= a < b_end

    def depth(self, rival: Rival) -> int:
        return self._place(rival)[2]


class _Near:
    """Spans in order of time, to be asked for those that begin inside another's time."""

    def __init__(self, rivals: Sequence[Rival]) -> None:
        self._rivals = rivals
        self._begins = [r.begin_ns for r in rivals]

    def begun_inside(self, outer: Rival) -> Iterator[Rival]:
        """Those that begin in its time, of very many the first; also `outer` itself."""
        first = bisect_left(self._begins, outer.begin_ns - (_LOG_SLACK_NS if outer.is_log else _SLACK_NS))
        return (r for r in self._rivals[first : first + _NEAR] if r.begin_ns <= outer.end_ns + _LOG_SLACK_NS)


def _one_a_scope(candidates: Iterable[Rival], outer: Rival, same: Sequence[Rival], case: _Case) -> list[Rival]:
    """Of each instrumentation that doesn't tell of the call already, the standing candidate nearest in time."""
    told = frozenset().union(*map(case.views, [outer, *same]))
    found = []
    for rival in sorted(candidates, key=lambda r: abs(r.begin_ns - outer.begin_ns) + abs(r.end_ns - outer.end_ns)):
        views = case.views(rival)
        if case.stands(rival) and not told & views:
            told |= views
            found.append(rival)
    return found


def _beside(outer: Rival, inner: Rival) -> bool:
    """`inner`, though not known to be below `outer`, may tell of the same call: another instrumentation's, inside its time."""
    two_answers = outer.response_id and inner.response_id and min(outer.layer, inner.layer) > _SERVER_LAYER
    return not two_answers and _contains(outer, inner) and _agree(outer, inner)


def _contains(outer: Rival, inner: Rival) -> bool:
    slack = _LOG_SLACK_NS if outer.is_log or inner.is_log else _SLACK_NS
    return outer.begin_ns - slack <= inner.begin_ns and inner.end_ns <= outer.end_ns + slack


def _agree(one: Rival, other: Rival) -> bool:
    """Nothing that both say contradicts that they are one call."""
    if not _same_model(one.model, other.model) or _usage_differs(one, other):
        return False
    # Without usage to compare, two answers are two calls.
    return (one.knows_usage() and other.knows_usage()) or not (one.response_id and other.response_id)


def _usage_differs(one: Rival, other: Rival) -> bool:
    if not (one.knows_usage() and other.knows_usage()):
        return False
    outputs = (one.output_tokens, other.output_tokens)
    return one.total_input != other.total_input or (None not in outputs and outputs[0] != outputs[1])


def _same_model(one: str, other: str) -> bool:
    return not one or not other or one.startswith(other) or other.startswith(one)


def _sums_up(outer: Rival, inner: Sequence[Rival]) -> bool:
    """`outer` says nothing of its own, or the totals of what is inside."""
    if not outer.knows_usage():
        return True
    total = sum(r.total_input or 0 for r in inner)
    output = sum(r.output_tokens or 0 for r in inner)
    return (outer.total_input, outer.output_tokens or 0) == (total, output)


def _one_process(rivals: Sequence[Rival], case: _Case) -> None:
    """Spans of one process that don't share a trace, where one of two instrumentations doesn't name the answer."""
    by_process: dict[tuple[str, str, str], list[Rival]] = defaultdict(list)
    for rival in rivals:
        by_process[rival.identity.tenant, rival.process, rival.model].append(rival)
    for group in by_process.values():
        # New spans are paired among themselves first: the other half of a stored call may be dropped already.
        for part in ([r for r in group if not r.stored], group):
            near = _Near(part)
            for outer in part:
                if case.stands(outer):
                    same = _one_a_scope((r for r in near.begun_inside(outer) if _unnamed(outer, r)), outer, (), case)
                    if same:
                        case.settle([outer, *same])


def _unnamed(outer: Rival, inner: Rival) -> bool:
    # Inside a span of the application both would be in its trace.
    if not (outer.is_root or inner.is_log) or not (inner.is_root or outer.is_log):
        return False
    return (
        inner.identity.trace_id != outer.identity.trace_id
        and not (inner.response_id and outer.response_id)
        and _contains(outer, inner)
        and _agree(outer, inner)
    )
