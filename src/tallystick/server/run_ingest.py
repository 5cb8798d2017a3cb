"""`tallystick ingest`: Kafka in, the ledger out, until SIGTERM."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from dataclasses import replace

import click

from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.ingest.ceiling import Ceiling
from tallystick.ingest.consumer import Consumer, Consuming
from tallystick.ingest.dead_letters import DeadLetters, dead_letter_producer
from tallystick.ingest.flows import record_aside
from tallystick.ingest.messages import Topics
from tallystick.ingest.migrate import require_schema
from tallystick.ingest.payload import Limits
from tallystick.ingest.store import Store
from tallystick.ingest.turns import Turns, open_turns
from tallystick.ingest.writer import Writer
from tallystick.schema.kafka import is_topic
from tallystick.server.brokers import brokers_of
from tallystick.server.figures import TimedWriter, show_consumer
from tallystick.server.health import Health
from tallystick.server.measured_prices import PresentBook, PricedWriter
from tallystick.server.metrics import Metrics, Role
from tallystick.server.serving import DRAIN_S, log_to_stderr
from tallystick.server.stores import open_ledger
from tallystick.settings import BadSetting, Settings

_LOOK_S = 0.1


def run_ingest(settings: Settings) -> None:
    """Consume until SIGTERM or Ctrl-C, then enter and commit what was read. Brokers may be away, and the ledger's server later on.

    Raises BadSetting, StoreError, PriceFileError, OSError (a port is taken), CeilingReached and Fenced.
    """
    if settings.clickhouse is None:
        raise BadSetting(
            "TALLYSTICK_CLICKHOUSE names no server: `ingest` enters into one; `tallystick up` consumes for a ledger of its own"
        )
    log_to_stderr()
    # It tells of every lost connection; what comes of them the consumer says.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    settings = replace(settings, data=settings.data.absolute(), config=settings.config and settings.config.absolute())
    prices = load_prices_file(settings.config) if settings.config else UserPrices()
    with contextlib.ExitStack() as stack:
        metrics = Metrics(Role.INGEST)
        stack.callback(metrics.close)
        store = stack.enter_context(contextlib.closing(open_ledger(settings)))
        require_schema(store)
        consumer = make_consumer(settings, store, PresentBook(store, prices), open_turns(store), metrics)
        if settings.health_port:
            health = Health(settings.host, settings.health_port, consumer.ready, metrics.page)
            health.start()
            stack.callback(health.close)
        consumer.start()
        said = False
        while not stop.wait(_LOOK_S) and not consumer.ended.is_set():
            if not said and not consumer.ready():
                said = True
                click.echo(f"ready kafka://{settings.kafka}/{settings.kafka_group}")
                sys.stdout.flush()
        consumer.close(DRAIN_S)
        if consumer.failure is not None:
            raise consumer.failure


def make_consumer(settings: Settings, store: Store, book: PresentBook, turns: Turns, metrics: Metrics) -> Consumer:
    """A consumer that enters into an open ledger, not started yet. Raises BadSetting."""
    brokers = brokers_of(settings)
    consumer = Consumer(
        Consuming(
            brokers,
            topics_of(settings),
            settings.kafka_group,
            instance=settings.kafka_instance,
            session_s=settings.kafka_session_s,
            max_spans=settings.batch_max_spans,
            window_s=settings.batch_window_ms / 1000,
            limits=Limits(settings.max_body_bytes, settings.max_request_spans),
        ),
        lambda: TimedWriter(PricedWriter(Writer(store, book.book(), turns), book), metrics),
        lambda messages: record_aside(store.client(), messages),
        DeadLetters(settings.kafka_dead_letters, lambda: dead_letter_producer(brokers)),
        ceiling=Ceiling(run=settings.dead_letters_run, percent=settings.dead_letters_percent),
        identity=f"{socket.gethostname()}-{os.getpid()}",
    )
    show_consumer(metrics, consumer)
    return consumer


def topics_of(settings: Settings) -> Topics:
    """Which topics are read, and whose they are. Raises BadSetting."""
    tenants: dict[str, str] = {}
    for one in filter(None, map(str.strip, settings.kafka_tenants.split(","))):
        topic, given, tenant = (part.strip() for part in one.partition("="))
        if not given or not is_topic(topic) or not tenant:
            raise BadSetting(f"TALLYSTICK_KAFKA_TENANTS isn't TOPIC=TENANT,…: {one!r}")
        if topic in {settings.kafka_received, settings.kafka_dead_letters} or topic in tenants:
            raise BadSetting(f"TALLYSTICK_KAFKA_TENANTS: the topic {topic} is another's")
        tenants[topic] = tenant
    return Topics(settings.kafka_received, tenants)
