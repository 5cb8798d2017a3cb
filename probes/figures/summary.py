"""The figures of a stage, with what stands behind each: requests by outcome, latencies, goodput, throughput, tokens by source, what the engine
said of itself, and why not to believe any of it. Times are of answers that ended well; failures count in goodput.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter

from tallystick.probes.config import Target
from tallystick.probes.figures.definitions import latency_figures, rate_figures
from tallystick.probes.figures.differences import Difference, allowed_for, difference
from tallystick.probes.figures.engine_figures import EngineFigures, disagreement, engine_figures
from tallystick.probes.figures.measures import (
    NS_PER_MS,
    Judged,
    cached_tokens,
    first_kind,
    input_tokens,
    judge,
    measured,
    miscounted,
    output_tokens,
    ttft_ns,
)
from tallystick.probes.figures.percentiles import Figure, percentile, share
from tallystick.probes.figures.rates import Window, answered_rate, offered_rate, window
from tallystick.probes.figures.saturation import LAG_MS, distrust
from tallystick.probes.records import LoadPoint, Outcome, Record, Stage

CENSORED_SHARE: Final = 0.05
"""Of measured requests, beyond which those cancelled could have moved a p95."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """judged: all but those cancelled before they had missed it, and `unjudged`, whose tokens a TPOT target needs and nobody told.

    missed: by what, of those not good.
    """

    good: int
    judged: int
    unjudged: int
    missed: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Of answers that ended well. by_source: answers by who counted their output (`usage`, `counted`, `unknown`). None: nobody told any.

    asked_output: most that the answers were allowed; as_asked: answers of exactly that many. miscounted: answers whose usage and tokeniser disagree.
    """

    input: int | None
    cached: int | None
    output: int | None
    asked_output: int
    as_asked: int
    by_source: Mapping[str, int]
    miscounted: int


@dataclass(frozen=True, slots=True)
class Group:
    """Requests that are held against others, as in a cache experiment. cached_share: of their prompt tokens."""

    name: str
    requests: int
    cached_share: float | None
    ttft: Figure


@dataclass(frozen=True, slots=True)
class StageSummary:
    """figures: by name, as `DEFINITIONS` (probes/figures/definitions.py) has them. outcomes: measured requests; warmup: those that aren't.

    offered_rate: requests a second that were due; answered_rate: that ended well, from the first end to the last. window: of the rates.
    differences: of the groups' median TTFT. reasons: why not to believe it, in words. notes: what is to be told beside.
    """

    number: int
    load: LoadPoint
    started_ns: int
    ended_ns: int
    ended: str
    outcomes: Mapping[str, int]
    warmup: int
    window: Window | None
    offered_rate: float | None
    answered_rate: float | None
    figures: Mapping[str, Figure]
    goodput: Goodput | None
    tokens: TokenCounts
    first_kinds: Mapping[str, int]
    engine: EngineFigures
    groups: tuple[Group, ...]
    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Nothing speaks against its figures."""
        return not self.reasons

    @property
    def censored(self) -> bool:
        """So many were under way when it ended that latencies are of the fast ones; rates and goodput hold."""
        return self.outcomes.get(Outcome.CANCELLED, 0) > CENSORED_SHARE * self.requests

    @property
    def requests(self) -> int:
        """Measured ones, however they ended."""
        return sum(self.outcomes.values())

    def value(self, name: str) -> float | None:
        """Of a figure; None also where it isn't among them."""
        figure = self.figures.get(name)
        return None if figure is None else figure.value

    def as_json(self) -> dict[str, Any]:
        """For json.dumps; `of_json` gives back the same."""
        content: dict[str, Any] = _JSON.dump_python(self, mode="json")
        return content

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> "StageSummary":
        """The reverse of as_json. Raises pydantic's ValidationError."""
        return _JSON.validate_python(content)


_JSON: Final = TypeAdapter(StageSummary)


def summarise(stage: Stage, target: Target | None) -> StageSummary:
    """Pure; a stage without requests has a summary, too."""
    records = measured(stage.records)
    answers = [record for record in records if record.outcome is Outcome.OK]
    over, offered = window(records), offered_rate(records)
    judged = None if target is None else [(record, one) for record in records if (one := judge(record, target))]
    goodput = None if judged is None else _goodput([one for _, one in judged])
    good = None if judged is None else [one.good is True for record, one in judged if record.outcome is Outcome.OK]
    figures = {one.name: one for one in (*latency_figures(answers), *rate_figures(answers, good, over))}
    if goodput is not None:
        figures["good_share"] = share("good_share", goodput.good, goodput.judged)
    tokens = _tokens(answers)
    groups = _groups(answers)
    ttft, tpot = figures["ttft_p50"].value, figures["tpot_p50"].value
    return StageSummary(
        stage.number,
        stage.load,
        stage.started_ns,
        stage.ended_ns,
        stage.ended,
        dict(Counter(record.outcome.value for record in records)),
        len(stage.records) - len(records),
        over,
        offered,
        answered_rate(records),
        figures,
        goodput,
        tokens,
        dict(Counter(kind.value for record in answers if (kind := first_kind(record)))),
        engine_figures(stage.samples, stage.started_ns),
        groups,
        _differences(groups),
        distrust(stage, records, ttft_ms=ttft, tpot_ms=tpot, offered=offered),
        tuple(_notes(stage, over, tokens, goodput)),
    )


def _goodput(judged: Sequence[Judged]) -> Goodput:
    missed = Counter(name for one in judged for name in one.missed)
    unjudged = sum(one.good is None for one in judged)
    return Goodput(sum(one.good is True for one in judged), len(judged) - unjudged, unjudged, dict(missed))


def _tokens(answers: Sequence[Record]) -> TokenCounts:
    counts = [output_tokens(record) for record in answers]
    return TokenCounts(
        _sum([input_tokens(record) for record in answers]),
        _sum([cached_tokens(record) for record in answers]),
        _sum([None if one is None else one.number for one in counts]),
        sum(record.output_tokens for record in answers),
        sum(one is not None and one.number == record.output_tokens for one, record in zip(counts, answers, strict=True)),
        dict(Counter("unknown" if one is None else one.source for one in counts)),
        sum(miscounted(record) for record in answers),
    )


def _groups(answers: Sequence[Record]) -> tuple[Group, ...]:
    groups: list[Group] = []
    for name in dict.fromkeys(record.group for record in answers if record.group):
        of = [record for record in answers if record.group == name]
        known = [
            (part, whole) for record in of if (part := cached_tokens(record)) is not None and (whole := input_tokens(record))
        ]
        cached = sum(part for part, _ in known) / sum(whole for _, whole in known) if known else None
        groups.append(Group(name, len(of), cached, percentile(f"{name}_ttft_p50", "ms", _ttfts(of), 50)))
    return tuple(groups)


def _differences(groups: Sequence[Group]) -> tuple[Difference, ...]:
    """Of warm against cold; of others against control, which was sent in between them (cold: how the engine drifted, since both are new)."""
    by_name = {group.name: group for group in groups}
    pairs = [(base, group) for group in groups if (base := _base(group.name, by_name)) is not None]
    found = [(base, group, difference(base.ttft, group.ttft)) for base, group in pairs]
    return allowed_for([one.named(f"{group.name} - {base.name}") for base, group, one in found if one is not None])


def _base(name: str, groups: Mapping[str, Group]) -> Group | None:
    base = "cold" if name == "warm" and "cold" in groups else "control"
    return groups.get(base) if base != name else None


def _notes(stage: Stage, over: Window | None, tokens: TokenCounts, goodput: Goodput | None) -> Iterator[str]:
    records = measured(stage.records)
    answers = sum(tokens.by_source.values())
    unknown = tokens.by_source.get("unknown", 0)
    if unknown:
        yield f"{answers - unknown:,} of {answers:,} answers told their output tokens: token rates are at least what is shown"
    if tokens.miscounted:
        yield f"{tokens.miscounted:,} of {answers:,} answers told a usage that the model's tokeniser doesn't find in their text"
    cancelled = sum(record.outcome is Outcome.CANCELLED for record in records)
    if cancelled:
        slow = ", and it looks better than it is" if cancelled > CENSORED_SHARE * len(records) else ""
        yield f"{cancelled:,} of {len(records):,} requests were under way when it ended: they are in no latency{slow}"
    if stage.health.lag_p99_ms > LAG_MS:
        yield f"1 % of all events may be stamped {stage.health.lag_p99_ms:.3g} ms late or more, by the client: inter-chunk latencies hold that"
    if over is not None and not over.steady:
        yield f"rates are of the whole stage, {over.ramp_share:.0%} of it ramp: the engine can do at least this"
    if goodput is not None and goodput.unjudged:
        yield f"{goodput.unjudged:,} requests can't be held against the target's TPOT: their tokens aren't known"
    if tokens.output is not None and not unknown and tokens.output < 0.9 * tokens.asked_output:
        yield f"answers had {tokens.output:,} tokens of {tokens.asked_output:,} asked: the engine stops before"
    counted = disagreement(stage.samples, stage.records)
    if counted:
        yield counted


def _ttfts(records: Sequence[Record]) -> list[float]:
    return [took / NS_PER_MS for record in records if (took := ttft_ns(record)) is not None]


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
