"""What was lost on the way out, counted by reason, and who is told: metrics, the server, the log at the end."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import CallbackOptions, Observation, get_meter
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AnyValue

from tallystick.schema import names

if TYPE_CHECKING:
    from tallystick.collectors.content import Outgoing
    from tallystick.collectors.span_queue import Counts


class Loss(Enum):
    """Why a span was never stored. The values stand in metrics."""

    QUEUE_FULL = "queue_full"
    REFUSED = "refused"
    """By the server, as such: 400, 413, 422, a partial success, or larger than a message may be."""
    ENCODING = "encoding"
    SHUTDOWN = "shutdown"
    """The process ended, or had ended, before it could be sent."""
    NO_SENDER = "no_sender"
    """What sends couldn't be started: see the log."""


SPANS: Final = "tallystick.collector.spans"
QUEUE_LENGTH: Final = "tallystick.collector.queue.length"


def observe(counts: "Callable[[], Counts]") -> None:
    """Makes the counts of spans metrics of the application's meter provider, of one that it sets later, too.

    `tallystick.collector.spans` (observable counter, {span}): attribute `outcome` is `stored` or `dropped`, the latter with a `reason`
    of `Loss`. `tallystick.collector.queue.length` (observable gauge, {span}). Asked for when a reader collects; without a provider never.
    """

    def spans(_: CallbackOptions) -> Iterable[Observation]:
        now = counts()
        yield Observation(now.exported, {"outcome": "stored"})
        for reason in Loss:
            yield Observation(now.lost.get(reason, 0), {"outcome": "dropped", "reason": reason.value})

    def queue_length(_: CallbackOptions) -> Iterator[Observation]:
        yield Observation(counts().waiting)

    meter = get_meter("tallystick")
    meter.create_observable_counter(SPANS, [spans], "{span}", "Model spans that ended, by what became of them.")
    meter.create_observable_gauge(QUEUE_LENGTH, [queue_length], "{span}", "Model spans that wait to be sent.")


def stamp(batch: "Iterable[Outgoing]", collector: str, number: int, counts: "Counts") -> None:
    """Writes on the resource of a batch what this process has to account for: its id, this batch's number, how many model spans
    have ended until now, and how many of them are lost. The server compares that with what it has. Once a batch, not a span.
    """
    told: dict[str, AnyValue] = {
        names.COLLECTOR_ID: collector,
        names.COLLECTOR_BATCH: number,
        names.COLLECTOR_ENDED: counts.waiting + counts.exported + counts.dropped,
        names.COLLECTOR_LOST: counts.dropped,
    }
    resources: dict[int, tuple[Resource, Resource]] = {}
    for span in batch:
        before = span.resource
        if id(before) not in resources:
            resources[id(before)] = before, Resource({**before.attributes, **told}, before.schema_url)
        span.stamp(resources[id(before)][1])


def summary(counts: "Counts") -> str:
    """What was lost, in one line for the log; empty where nothing was."""
    lost = {reason.value.replace("_", " "): number for reason, number in counts.lost.items()}
    if counts.waiting:
        lost["not sent before the end"] = counts.waiting
    if not lost:
        return ""
    parts = ", ".join(f"{number} {reason}" for reason, number in lost.items())
    return f"{sum(lost.values())} of {counts.waiting + counts.exported + counts.dropped} model spans were lost: {parts}"
