"""From a trace's lines to calls: who made them, when, and which of their tokens were served from a cache."""

from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple

from tallystick.traffic.blocks import BLOCK_TOKENS, PromptCache
from tallystick.traffic.files import BadLine, Request, TraceFile
from tallystick.traffic.organisation import ASSISTANT, CODING, CONVERSATION, Caller, Work, caller

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND


class Call(NamedTuple):
    """One model call.

    Times are nanoseconds since 1970, UTC; the four counts are disjoint and their first three add up to the prompt.
    """

    trace_id: bytes
    span_id: bytes
    started_ns: int
    first_chunk_ns: int | None
    ended_ns: int
    caller: Caller
    input_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    output_tokens: int


class Timeline(NamedTuple):
    """Where a trace's times fall: `start_ns` + (t - `origin_ns`) / `speed`."""

    origin_ns: int = 0
    start_ns: int = 0
    speed: float = 1.0

    def at(self, trace_ns: int) -> int:
        since = trace_ns - self.origin_ns
        return self.start_ns + (since if self.speed == 1.0 else int(since / self.speed))


def as_recorded() -> Timeline:
    """Times stay as they stand in the trace."""
    return Timeline()


def moved_to_yesterday(trace: TraceFile, now_ns: int) -> Timeline:
    """Moved by whole days, so that the last call falls on the day before `now_ns` (UTC): the same for every replay on one day."""
    return Timeline(start_ns=(now_ns // _DAY - 1 - trace.last_ns // _DAY) * _DAY)


def calls(trace: TraceFile, seed: int, timeline: Timeline) -> Iterator[Call | BadLine]:
    """The trace's calls in its order; lines without one come through as they are.

    Who calls depends on the trace's content, the line and the seed; the ids on the timeline too: the same call at the same time
    is the same span, whichever copy of the file it was read from, and so is entered once however often it is replayed.
    """
    work = _work(trace)
    who_key = blake2b(b"who %d " % seed + trace.digest, digest_size=32).digest()
    id_key = blake2b(b"ids %d %r " % (seed, timeline) + trace.digest, digest_size=32).digest()
    cache = PromptCache()
    for item in trace.requests():
        if isinstance(item, BadLine):
            yield item
            continue
        ids = blake2b(b"%d" % item.line, digest_size=24, key=id_key).digest()
        yield _call(item, _who(item, who_key, work), ids, timeline, cache)


def _work(trace: TraceFile) -> Work:
    """What kind of work a trace is: prompts with known prefixes are an assistant's, else its name tells whether it is coding."""
    if trace.format == "mooncake":
        return ASSISTANT
    return CODING if "code" in trace.path.name.lower() else CONVERSATION


def _who(request: Request, key: bytes, work: Work) -> Caller:
    if not request.blocks:
        return caller(key + b"line %d" % request.line, None, work)
    # The first block is the service's own prompt; the second is the first that differs between conversations.
    conversation = request.blocks[min(1, len(request.blocks) - 1)]
    return caller(key + b"conversation %d" % conversation, conversation, work)


def _call(request: Request, who: Caller, ids: bytes, timeline: Timeline, cache: PromptCache) -> Call:
    read = cache.read(request.blocks, request.at_ns, request.input_tokens) if request.blocks else 0
    unread = request.input_tokens - read
    written = unread // BLOCK_TOKENS * BLOCK_TOKENS if request.blocks and who.model.bills_cache_writes else 0
    started = timeline.at(request.at_ns)
    first_chunk = started + int((0.15 + unread / (who.model.prefill_speed * who.pace)) * _SECOND)
    ended = first_chunk + int(request.output_tokens / (who.model.decode_speed * who.pace) * _SECOND)
    return Call(
        trace_id=ids[:16],
        span_id=ids[16:],
        started_ns=started,
        first_chunk_ns=first_chunk if who.streamed else None,
        ended_ns=ended,
        caller=who,
        input_tokens=unread - written,
        cache_read_tokens=read,
        cache_write_tokens=written,
        output_tokens=request.output_tokens,
    )
