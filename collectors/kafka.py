"""One batch of spans straight to Kafka: the bytes that HTTP would carry, as one message."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

from kafka import KafkaProducer, errors
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

from tallystick.collectors.delivery import of_other_threads
from tallystick.collectors.settings import Kafka
from tallystick.collectors.span_queue import THREAD_NAME, Outcome
from tallystick.schema.kafka import MAX_REQUEST, headers

TIMEOUT_MS: Final = 10_000
"""For a batch to be acknowledged, as the exporter over HTTP has it."""

TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError, errors.InvalidRecordError)
"""Answers that are about this batch. Others are about the broker, the topic or the rights."""

TALKATIVE: Final = (
    "kafka.cluster",
    "kafka.net.connection",
    "kafka.net.manager",
    "kafka.net.selector",
    "kafka.net.transport",
    "kafka.producer.kafka",
    "kafka.producer.producer_batch",
    "kafka.producer.record_accumulator",
    "kafka.producer.sender",
    "kafka.producer.transaction_manager",
)
"""Loggers that tell of every lost connection and expired batch; silenced in our threads, which bear the client's id in their names."""


class KafkaDelivery:
    """Sends batches to the topic of `settings`. Blocks, for the thread of the queue only.

    One message is under way at a time, so the producer, whose memory has no bound of its own, never holds more. After any failure it
    is thrown away: an idempotent one that a broker has once refused fails for ever, and one that is away would send late what the
    queue has sent again.
    """

    def __init__(self, settings: Kafka, clock: Callable[[], int] = time.time_ns) -> None:
        self.rejected = 0
        self.error = ""
        self._settings = settings
        self._clock = clock
        self._sender = f"collector/{version('tallystick')}"
        self._closed = False
        self._done = threading.Event()
        self._producer: Any = None
        for logger in TALKATIVE:
            logging.getLogger(logger).addFilter(of_other_threads)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def send(self, batch: Sequence[ReadableSpan]) -> Outcome:
        """STORED once the brokers in sync have the message. Raises nothing."""
        if self._closed:
            return Outcome.KEEP
        try:
            value: bytes = encode_spans(batch).SerializeToString()
        except Exception as error:
            self.error = type(error).__name__
            return Outcome.UNENCODABLE
        if len(value) > MAX_REQUEST:
            self.error = f"over {MAX_REQUEST:,} bytes"
            return Outcome.REFUSED
        try:
            self._produce(value)
        except Exception as error:
            self._discard()
            self.error = self._said(error)
            return Outcome.REFUSED if isinstance(error, TOO_LARGE) else Outcome.KEEP
        self.error = ""
        return Outcome.STORED

    def close(self) -> None:
        """Interrupts a `send` in another thread."""
        self._closed = True
        self._discard()
        self._done.set()

    def _produce(self, value: bytes) -> None:
        if self._producer is None:
            self._producer = _connected(self._settings)
            if self._closed:
                raise errors.KafkaConnectionError("closed")
        self._done.clear()
        future: Any = self._producer.send(self._settings.topic, value, headers=headers(self._sender, self._clock()))
        future.add_both(lambda _: self._done.set())
        self._done.wait(TIMEOUT_MS / 1000 + 5)
        if not future.is_done:
            raise errors.KafkaTimeoutError
        if future.exception is not None:
            raise future.exception

    def _said(self, error: Exception) -> str:
        name = type(error).__name__
        if (
            isinstance(error, errors.KafkaTimeoutError)
            and self._settings.security.get("security_protocol", "PLAINTEXT") != "PLAINTEXT"
        ):
            # Kafka's client takes being turned away for not being answered.
            return f"{name}: no broker answers, or it doesn't take the user, password or certificate"
        return name

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer._sender.force_close()
            producer._closed = True

    def _forked(self) -> None:
        # The parent's producer has no threads here, and its locks may be held for ever: nothing of it may be touched.
        if self._producer is not None:
            self._producer._closed = True


def _connected(settings: Kafka) -> Any:
    """A producer of kafka-python, which has no types. Raises an error of Kafka if no broker answers."""
    made: Any = KafkaProducer
    producer = made(
        bootstrap_servers=list(settings.brokers),
        client_id=THREAD_NAME,
        acks="all",
        enable_idempotence=True,
        compression_type="gzip" if settings.compressed else None,
        max_request_size=MAX_REQUEST + 10_000,
        max_block_ms=TIMEOUT_MS,
        request_timeout_ms=TIMEOUT_MS,
        delivery_timeout_ms=TIMEOUT_MS,
        bootstrap_timeout_ms=TIMEOUT_MS,
        reconnect_backoff_max_ms=1_000,
        metrics_enabled=False,
        **settings.security,
    )
    # At exit it would close itself before the queue has sent what is left.
    producer._unregister_cleanup()
    return producer
