"""`tallystick up` with Kafka in between: what is received is acknowledged once it is there, and entered from there."""

import contextlib
import logging
from collections.abc import Iterator
from typing import NamedTuple

from tallystick.ingest.committer import Tally
from tallystick.ingest.consumer import Consumer
from tallystick.ingest.flight import NoBroker
from tallystick.ingest.kafka_sink import KafkaSink
from tallystick.ingest.spool import Spool
from tallystick.ingest.store import Store
from tallystick.ingest.topics import ensure_topics
from tallystick.ingest.turns import Turns
from tallystick.server.brokers import brokers_of
from tallystick.server.figures import show_sink
from tallystick.server.measured_prices import PresentBook
from tallystick.server.metrics import Metrics
from tallystick.server.run_ingest import make_consumer
from tallystick.server.serving import DRAIN_S
from tallystick.settings import Settings

log = logging.getLogger(__name__)


class ThroughKafka(NamedTuple):
    """In place of a committer: where payloads go, and what became of them."""

    sink: KafkaSink
    consumer: Consumer
    spool: Spool

    @property
    def waiting(self) -> tuple[int, int]:
        """Spans and bytes that brokers haven't acknowledged; of what is in the spool the spans aren't known, and are 0."""
        return 0, self.spool.waiting.used

    @property
    def tally(self) -> Tally:
        """received: spans taken for Kafka by this process; all others: spans that it has read from there."""
        entered = self.consumer.tally
        return Tally(
            received=self.sink.tally.received,
            entered=entered.entered,
            voided=entered.voided,
            dropped=entered.dropped,
            rejected=entered.rejected,
            failures=entered.failures,
            last_failure=entered.last_failure,
        )

    def ready(self) -> str:
        """Why payloads aren't taken, or not entered, or ''."""
        return self.sink.ready() or self.consumer.ready()


@contextlib.contextmanager
def through_kafka(settings: Settings, store: Store, book: PresentBook, turns: Turns, metrics: Metrics) -> Iterator[ThroughKafka]:
    """While the block runs; at its end what was read is entered, what was received is at the brokers or on disk. Raises BadSetting, StoreError."""
    # It tells of every lost connection; what comes of them the parts say.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    brokers = brokers_of(settings)
    try:
        for done in ensure_topics(brokers, settings.kafka_received, settings.kafka_dead_letters):
            log.info("%s", done)
    except NoBroker as error:
        log.warning("%s; payloads are kept on disk until one does", error)
    with contextlib.ExitStack() as stack:
        consumer = make_consumer(settings, store, book, turns, metrics)
        consumer.start()
        stack.callback(consumer.close, DRAIN_S)
        spool = stack.enter_context(contextlib.closing(Spool(settings.data, settings.spool_bytes)))
        sink = KafkaSink(brokers, settings.kafka_received, spool)
        sink.start()
        stack.callback(sink.close)
        show_sink(metrics, sink, spool)
        yield ThroughKafka(sink, consumer, spool)
