"""Delivery of calls to a server over a few connections: as fast as it takes them, or at the pace at which they happened."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from tallystick.client import Client, Delivery
from tallystick.traffic.calls import Call
from tallystick.traffic.spans import Encoder

BATCH_SPANS = 512
"""Spans in a request, OpenTelemetry's default batch size."""

CONNECTIONS = 16
"""Requests under way at once, as from so many services. The server enters what it gathers from all of them in one insert."""

_GATHER_NS = 1_000_000_000


@dataclass
class Sent:
    """What was delivered so far. `reasons` counts the spans that the server rejected by what it said."""

    spans: int = 0
    requests: int = 0
    retries: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, spans: int, delivery: Delivery) -> None:
        """Count a batch of `spans` that arrived."""
        self.spans += spans - delivery.rejected
        self.requests += 1
        self.retries += delivery.attempts - 1
        if delivery.rejected:
            self.rejected += delivery.rejected
            self.reasons[delivery.reason] = self.reasons.get(delivery.reason, 0) + delivery.rejected


def batched(calls: Iterable[Call]) -> Iterator[list[Call]]:
    """Calls in the batches in which an exporter under load would send them."""
    batch: list[Call] = []
    for call in calls:
        batch.append(call)
        if len(batch) == BATCH_SPANS:
            yield batch
            batch = []
    if batch:
        yield batch


def paced(
    timed: Iterable[tuple[int, Call]],
    *,
    clock: Callable[[], int] = time.time_ns,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[list[Call]]:
    """Calls when they are due: pairs of a time on the clock's scale (ns, ascending) and a call.

    Those of about a second travel together.
    """
    batch: list[Call] = []
    first_due = last_due = 0
    for due, call in timed:
        if batch and (len(batch) == BATCH_SPANS or due - first_due > _GATHER_NS):
            sleep(max(0, last_due - clock()) / 1e9)
            yield batch
            batch = []
        if not batch:
            first_due = due
        batch.append(call)
        last_due = due
    if batch:
        sleep(max(0, last_due - clock()) / 1e9)
        yield batch


def send(client: Client, batches: Iterable[list[Call]], progress: Callable[[int], object]) -> Sent:
    """Deliver every batch; `progress` hears of each that arrived by its number of spans. Raises what Client.send raises."""
    sent, encoder = Sent(), Encoder()
    under_way: dict[Future[Delivery], int] = {}

    def settle(done: Iterable[Future[Delivery]]) -> None:
        for future in done:
            spans = under_way.pop(future)
            delivery = future.result()
            sent.add(spans, delivery)
            progress(spans)

    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="tallystick-send")
    try:
        for batch in batches:
            # Two batches a connection are kept encoded: memory stays bounded however long the server takes.
            if len(under_way) >= 2 * CONNECTIONS:
                settle(wait(under_way, return_when=FIRST_COMPLETED).done)
            under_way[pool.submit(client.send, encoder.request(batch))] = len(batch)
        settle(wait(under_way).done)
    finally:
        pool.shutdown(cancel_futures=True)
    return sent
