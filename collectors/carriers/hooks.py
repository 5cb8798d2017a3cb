"""Where each library is held, once the application imports it."""

import importlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import wrapt

from tallystick.collectors.carriers.destinations import destinations
from tallystick.collectors.carriers.incoming import INCOMING, trust
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.carriers.rules import rules_of_file
from tallystick.collectors.failures import report
from tallystick.collectors.settings import Settings


class Hook(NamedTuple):
    """One function of a library, and what is put around it."""

    module: str
    """Of the library; its import puts the hook in place."""
    function: str
    """In that module, dotted; empty: the carrier is called with the module, which offers a place for it."""
    carrier: str
    """`module:function` beside this file. Imported when it is needed."""


OUT: Final = (
    Hook("httpcore._sync.connection_pool", "ConnectionPool.handle_request", "httpcore:handle_request"),
    Hook("httpcore._async.connection_pool", "AsyncConnectionPool.handle_async_request", "httpcore:handle_request"),
    Hook("httpcore2._sync.connection_pool", "ConnectionPool.handle_request", "httpcore:handle_request"),
    Hook("httpcore2._async.connection_pool", "AsyncConnectionPool.handle_async_request", "httpcore:handle_request"),
    Hook("urllib3.connectionpool", "HTTPConnectionPool._make_request", "urllib3:make_request"),
    Hook("aiohttp.client_reqrep", "ClientRequest.send", "aiohttp:send"),
    Hook("kombu.messaging", "Producer.publish", "celery:publish"),
    Hook("kafka.producer.kafka", "KafkaProducer.send", "kafka:send"),
    Hook("aiokafka.producer.producer", "AIOKafkaProducer.send", "kafka:send"),
)
IN: Final = (
    Hook("starlette.applications", "Starlette.__call__", "asgi:call"),
    Hook("django.core.handlers.asgi", "ASGIHandler.__call__", "asgi:call"),
    Hook("django.core.handlers.wsgi", "WSGIHandler.__call__", "wsgi:call"),
    Hook("flask.app", "Flask.wsgi_app", "wsgi:call"),
    Hook("aiohttp.web_app", "Application._handle", "aiohttp:handle"),
    Hook("celery.signals", "", "celery:listen"),
)
THREADS: Final = (
    Hook("threading", "Thread.start", "threads:start"),
    Hook("concurrent.futures.thread", "ThreadPoolExecutor.submit", "threads:submit"),
)


def watch(settings: Settings) -> None:
    """Waits for the imports of the libraries; those imported already are held at once. Imports none of them."""
    OUTGOING.destinations = destinations(settings.propagate_to)
    INCOMING.trust = trust(settings.trust_baggage)
    if settings.scope_rules:
        INCOMING.rules = rules_of_file(settings.scope_rules)
    out = OUT if OUTGOING.destinations.anyone else ()
    for hook in (*out, *IN, *(THREADS if settings.scope_in_threads else ())):
        wrapt.register_post_import_hook(_held(hook), hook.module)


def _held(hook: Hook) -> Callable[[Any], None]:
    def imported(module: Any) -> None:
        # Runs inside the application's import statement.
        try:
            file, _, name = hook.carrier.partition(":")
            carrier = getattr(importlib.import_module(f"{__package__}.{file}"), name)
            if hook.function:
                wrapt.wrap_function_wrapper(module, hook.function, carrier)
            else:
                carrier(module)
        except Exception as error:
            report(f"holding {hook.module}", error)

    return imported
