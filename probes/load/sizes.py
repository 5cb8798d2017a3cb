"""How much is asked: the tokens in and out of each request, and which beginning its prompt shares with others."""

from collections.abc import Sequence
from random import Random
from statistics import NormalDist
from typing import Final, NamedTuple

from tallystick.probes.config import Prefix, Spread, Workload
from tallystick.probes.load.arrivals import stream
from tallystick.probes.load.traffic_mix import Call, repeated, sampled

COLD: Final = "cold"
WARM: Final = "warm"
CONTROL: Final = "control"
INTERLEAVED: Final = "interleaved"

_FAR: Final = 1e-12


class Size(NamedTuple):
    """One request: tokens of the whole prompt, and the most that are to be generated.

    prefix: which shared beginning the prompt has, None: none; prefix_tokens: how much of it. group: as in records.Ask. at_ns: when it
    came in the trace or the ledger, since the first of them.
    """

    input_tokens: int
    output_tokens: int
    prefix: int | None
    group: str
    at_ns: int | None
    prefix_tokens: int = 0


class Drawn(NamedTuple):
    """Sizes in the order in which they are sent, those that warm up first. notes: what was cut or repeated."""

    sizes: tuple[Size, ...]
    notes: tuple[str, ...]


def sizes(
    workload: Workload,
    count: int,
    seed: int,
    calls: Sequence[Call] | None = None,
    *,
    warmup: int = 0,
    context: int | None = None,
    as_they_came: bool = False,
) -> Drawn:
    """`warmup` and then `count` sizes: the same for every stage, so that stages differ by their load alone. calls: of the trace or feature
    that the workload names.

    context: tokens that the engine takes, in and out together. as_they_came: the first calls one after another, for their times; else an
    even sample of all of them, for their mix. Raises ValueError where a trace or feature holds no call.
    """
    whole = warmup + count
    notes: list[str] = []
    if workload.input_tokens is None:
        calls = calls or ()
        if as_they_came and len(calls) < whole:
            notes.append(f"there are {len(calls):,} calls for {whole:,} requests: they are sent again, with prompts of their own")
        chosen = repeated(calls if as_they_came else sampled(calls, whole), whole)
        drawn = [_of_call(call) for call in chosen]
    else:
        drawn = _synthetic(workload, whole, seed)
    drawn = _cut(drawn, workload, context, notes)
    if workload.prefix is not None:
        random = stream(seed, 0, "prefixes")
        drawn = [*_warming(drawn[:warmup], workload.prefix), *_prefixed(drawn[warmup:], workload.prefix, random)]
        drawn = _shorter_than_prompts(drawn, notes)
    return Drawn(tuple(drawn), tuple(notes))


def _of_call(call: Call) -> Size:
    # One beginning is enough for all: of it, each call takes as much as came from a cache then.
    cached = min(call.cached_tokens, max(0, call.input_tokens - 1))
    size = Size(max(1, call.input_tokens), max(1, call.output_tokens), None, "", call.at_ns)
    return size._replace(prefix=0, prefix_tokens=cached) if cached else size


def _synthetic(workload: Workload, count: int, seed: int) -> list[Size]:
    assert workload.input_tokens is not None
    assert workload.output_tokens is not None
    taken, generated = stream(seed, 0, "input"), stream(seed, 0, "output")
    return [
        Size(draw(workload.input_tokens, taken), draw(workload.output_tokens, generated), None, "", None) for _ in range(count)
    ]


def draw(spread: int | Spread, random: Random) -> int:
    """A number of tokens. A normal distribution that is cut keeps its form between the cuts: what lies outside isn't moved onto them."""
    if isinstance(spread, int):
        return spread
    if spread.mean is None:
        assert spread.min is not None
        assert spread.max is not None
        return random.randint(spread.min, spread.max)
    low, high = spread.min or 1, spread.max
    if not spread.stdev:
        return max(low, spread.mean if high is None else min(spread.mean, high))
    normal = NormalDist(spread.mean, spread.stdev)
    # Half a token beyond the ends, as rounding would have it.
    bottom, top = normal.cdf(low - 0.5), 1.0 if high is None else normal.cdf(high + 0.5)
    share = bottom + (top - bottom) * random.random()
    found = round(normal.inv_cdf(min(max(share, _FAR), 1 - _FAR)))
    return max(low, found if high is None else min(found, high))


def _cut(drawn: list[Size], workload: Workload, context: int | None, notes: list[str]) -> list[Size]:
    cut = drawn
    if (most := workload.most_output_tokens) is not None:
        cut = [size._replace(output_tokens=min(size.output_tokens, most)) for size in cut]
        _note(notes, drawn, cut, f"outputs cut to {most:,} tokens (most_output_tokens)")
    before = cut
    if (most := workload.most_input_tokens) is not None:
        cut = [_with_input(size, most) for size in cut]
        _note(notes, before, cut, f"prompts cut to {most:,} tokens (most_input_tokens)")
    before = cut
    if context is not None:
        cut = [size._replace(output_tokens=min(size.output_tokens, max(1, context - 1))) for size in cut]
        cut = [_with_input(size, max(1, context - size.output_tokens)) for size in cut]
        _note(notes, before, cut, f"cut to the engine's context of {context:,} tokens, in and out together")
    return cut


def _with_input(size: Size, most: int) -> Size:
    if size.input_tokens <= most:
        return size
    # What is read from a cache keeps its share.
    return size._replace(input_tokens=most, prefix_tokens=min(most - 1, size.prefix_tokens * most // size.input_tokens))


def _note(notes: list[str], before: Sequence[Size], after: Sequence[Size], what: str) -> None:
    if changed := sum(one != other for one, other in zip(before, after, strict=True)):
        notes.append(f"{changed:,} of {len(before):,} requests: {what}")


def _warming(drawn: Sequence[Size], prefix: Prefix) -> list[Size]:
    if prefix.experiment:
        return list(drawn)
    # Each shared beginning once before it is measured, as far as there are requests that warm up.
    return [size._replace(prefix=at % prefix.distinct, prefix_tokens=prefix.tokens) for at, size in enumerate(drawn)]


def _prefixed(drawn: Sequence[Size], prefix: Prefix, random: Random) -> list[Size]:
    if not prefix.experiment:
        return [
            size._replace(prefix=random.randrange(prefix.distinct), prefix_tokens=prefix.tokens)
            if random.random() < prefix.share
            else size
            for size in drawn
        ]
    groups = _experiment(len(drawn) // 4, prefix.distinct)
    # Position by position the groups have the same lengths.
    lengths = [drawn[position] for position, _, _ in groups]
    found = [
        Size(length.input_tokens, length.output_tokens, number, group, size.at_ns, prefix.tokens)
        for size, length, (_, group, number) in zip(drawn, lengths, groups, strict=False)
    ]
    return [*found, *drawn[len(found) :]]


def _experiment(each: int, distinct: int) -> list[tuple[int, str, int]]:
    """Position in its group, group and prefix of so many requests of each group: cold, warm, then interleaved and control in turns.

    cold: prefixes that no prompt had before; the first `distinct` of them are those that come again. warm: they come again, one request
    after another. interleaved: they come again, with a control, whose prefix is new, after each. Interleaved and control share one stretch
    of time, so that an engine that warms up or throttles does it to both; warm and cold don't.
    """
    again = max(1, min(distinct, each))
    cold = [(at, COLD, at) for at in range(each)]
    warm = [(at, WARM, at % again) for at in range(each)]
    turns = [one for at in range(each) for one in ((at, INTERLEAVED, at % again), (at, CONTROL, each + at))]
    return [*cold, *warm, *turns]


def _shorter_than_prompts(drawn: Sequence[Size], notes: list[str]) -> list[Size]:
    # An engine always computes a prompt's last token anew.
    cut = [
        size._replace(prefix_tokens=min(size.prefix_tokens, size.input_tokens - 1)) if size.prefix is not None else size
        for size in drawn
    ]
    _note(notes, drawn, cut, "the shared prefix cut to all but the last token of the prompt")
    return cut
