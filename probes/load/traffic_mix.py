"""Real calls as a workload: what they held and when they came, without text. Who reads them: src/tallystick/probing/mix.py."""

from collections.abc import Sequence
from typing import NamedTuple


class Call(NamedTuple):
    """One call of a trace or of the ledger. at_ns: nanoseconds since 1970, or since the trace's start.

    input_tokens: of the whole prompt; of these, cached_tokens were read from a cache and written_tokens written into one.
    """

    at_ns: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    written_tokens: int = 0

    @property
    def uncached_tokens(self) -> int:
        """Of the prompt, those that were neither read from a cache nor written into one: the ledger's `input_tokens`."""
        return self.input_tokens - self.cached_tokens - self.written_tokens


class Mix(NamedTuple):
    """Calls in the order of their times, an even sample of `counted`: all whose tokens are known in [since_ns, until_ns).

    source: in a few words. unknown: calls that were left out because their tokens aren't known. notes: what a reader must know.
    """

    source: str
    calls: tuple[Call, ...]
    counted: int
    unknown: int
    since_ns: int
    until_ns: int
    notes: tuple[str, ...] = ()


def sampled(calls: Sequence[Call], most: int) -> tuple[Call, ...]:
    """At most so many, evenly over all of them, in their order."""
    count = min(most, len(calls))
    return tuple(calls[at * len(calls) // count] for at in range(count))


def repeated(calls: Sequence[Call], count: int) -> tuple[Call, ...]:
    """The first `count` as they came; where there are fewer, all of them again and again, each round after the one before.

    Raises ValueError without a call.
    """
    if not calls:
        raise ValueError("there is no call to repeat")
    begin = calls[0].at_ns
    span = calls[-1].at_ns - begin
    # Between two rounds lies the mean gap.
    period = span + span // max(1, len(calls) - 1)
    rounds = (divmod(at, len(calls)) for at in range(count))
    return tuple(calls[at]._replace(at_ns=calls[at].at_ns - begin + again * period) for again, at in rounds)
