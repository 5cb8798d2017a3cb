"""What one request took, derived from its raw times. Definitions: docs/probes.md. Nanoseconds; None is what isn't known.

An event is not a token: engines put several tokens in one, or none. Counts come from the engine's usage or from the model's own
tokeniser, never from events.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias

from tallystick.probes.config import Target
from tallystick.probes.records import GENERATED, Event, Kind, Outcome, Record

Origin: TypeAlias = Literal["sent", "scheduled"]
"""From when a time runs. From `scheduled` it holds what a request waited for its turn, which `sent` hides (coordinated omission)."""

NS_PER_MS: Final = 1_000_000


class Tokens(NamedTuple):
    """source: `usage` (the engine told) or `counted` (by the model's tokeniser, of the text that came)."""

    number: int
    source: Literal["usage", "counted"]


def generated(record: Record) -> tuple[Event, ...]:
    """Events that brought generated tokens. A chat's first chunk, which only names a role, isn't one."""
    return tuple(event for event in record.events if event.kind in GENERATED)


def began_ns(record: Record, origin: Origin) -> int | None:
    """None: it was never scheduled, as in a closed loop."""
    return record.sent_ns if origin == "sent" else record.scheduled_ns


def ttft_ns(record: Record, origin: Origin = "sent") -> int | None:
    """Time to first token: to the first generated event, of whatever kind (`first_kind`)."""
    return _until(record, origin, next((event.at_ns for event in record.events if event.kind in GENERATED), None))


def ttfc_ns(record: Record, origin: Origin = "sent") -> int | None:
    """Time to first content: as `ttft_ns`, past reasoning and tool calls."""
    return _until(record, origin, next((event.at_ns for event in record.events if event.kind is Kind.CONTENT), None))


def first_kind(record: Record) -> Kind | None:
    """Of the event at which `ttft_ns` stopped."""
    return next((event.kind for event in record.events if event.kind in GENERATED), None)


def e2e_ns(record: Record, origin: Origin = "sent") -> int | None:
    """To the end of the answer, its trailing usage and end marker included."""
    return _until(record, origin, record.ended_ns)


def tpot_ns(record: Record) -> float | None:
    """Time per output token after the first: (last generated event - first) / (output tokens - 1). None for fewer than two tokens.

    None also where all came in one event: then nothing was streamed, and no time between tokens was seen.
    """
    tokens = output_tokens(record)
    events = generated(record)
    if tokens is None or tokens.number < 2 or len(events) < 2:
        return None
    return (events[-1].at_ns - events[0].at_ns) / (tokens.number - 1)


def chunk_gaps_ns(record: Record) -> tuple[int, ...]:
    """Inter-chunk latency: times between generated events. Of tokens only where each event brought one."""
    times = [event.at_ns for event in generated(record)]
    return tuple(after - before for before, after in pairwise(times))


def normalised_ns(record: Record) -> float | None:
    """End to end from sent / output tokens: the normalised latency of Orca (OSDI 2022) and of vLLM's paper (SOSP 2023)."""
    tokens = output_tokens(record)
    took = e2e_ns(record)
    return None if tokens is None or tokens.number < 1 or took is None else took / tokens.number


def output_tokens(record: Record) -> Tokens | None:
    """As the engine told, else as counted. A usage of no tokens for an answer that brought text says nothing."""
    told = record.usage.completion_tokens if record.usage else None
    if told is not None and told >= 0 and (told > 0 or not generated(record)):
        return Tokens(told, "usage")
    return None if record.counted_output is None else Tokens(record.counted_output, "counted")


def input_tokens(record: Record) -> int | None:
    """Of the prompt, cached ones among them: as the engine told, else as it was made where that is exact."""
    told = record.usage.prompt_tokens if record.usage else None
    return record.input_tokens if told is None else told


def cached_tokens(record: Record) -> int | None:
    """Of the prompt, those taken from the engine's prefix cache."""
    return record.usage.cached_tokens if record.usage else None


def miscounted(record: Record) -> bool:
    """The engine's count of output tokens is not the tokeniser's, by more than the two can differ: over two tokens and over a tenth.

    They do by a little: usage has the end token, which is no text, and text cut elsewhere is tokenised otherwise.
    """
    told = record.usage.completion_tokens if record.usage else None
    if told is None or record.counted_output is None:
        return False
    return abs(told - record.counted_output) > max(2, 0.1 * max(told, record.counted_output))


class Judged(NamedTuple):
    """A request against a target. good: None where it can't be said, since its token count isn't known."""

    good: bool | None
    missed: tuple[str, ...]
    """`failed`, `ttft`, `tpot`, `e2e`."""


def judge(record: Record, target: Target) -> Judged | None:
    """Goodput's decision. Times run from when a request was due, where it was: what it waited counts.

    None: it was cancelled before anything could be said; one that had missed the target already has. A request of fewer than two tokens has no
    time per token, and misses none.
    """
    cancelled = record.outcome is Outcome.CANCELLED
    if record.outcome is not Outcome.OK and not cancelled:
        return Judged(False, ("failed",))
    origin: Origin = "sent" if record.scheduled_ns is None else "scheduled"
    whole = e2e_ns(record, origin)
    first = ttft_ns(record, origin)
    times = (
        ("ttft", whole if first is None and cancelled else first, target.ttft_ms),
        ("tpot", tpot_ns(record), target.tpot_ms),
        ("e2e", whole, target.e2e_ms),
    )
    missed = tuple(name for name, took, most in times if most is not None and took is not None and took > most * NS_PER_MS)
    if missed:
        return Judged(False, missed)
    if cancelled:
        return None
    unknown = target.tpot_ms is not None and output_tokens(record) is None and len(generated(record)) > 1
    return Judged(None if unknown else True, ())


def _until(record: Record, origin: Origin, at_ns: int | None) -> int | None:
    began = began_ns(record, origin)
    return None if began is None or at_ns is None else at_ns - began


def measured(records: Sequence[Record]) -> tuple[Record, ...]:
    """Without those that warmed the engine up."""
    return tuple(record for record in records if not record.warmup)
