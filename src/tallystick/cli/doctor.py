"""`tallystick doctor`: what is installed, reachable, priced and dropped, and what to do about what isn't well."""

import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal, NamedTuple

import click

from tallystick.attribution.spend import coverage
from tallystick.cli.access import Ledger, connect, server_url
from tallystick.cli.alerts import evaluations
from tallystick.cli.costs import by_dimensions
from tallystick.cli.failure import Failure, in_words
from tallystick.cli.options import connected, json_option
from tallystick.cli.output import percent, print_json
from tallystick.cli.when import end_of_day
from tallystick.client import Client, Refused, Unreachable
from tallystick.collectors.instrumentations import UNDERNEATH, Choice, installed_instrumentations
from tallystick.collectors.settings import read
from tallystick.ingest.errors import KeysDamaged, StoreError
from tallystick.settings import DEFAULT_URL, Settings

_THIRTY_DAYS_NS = 30 * 86_400 * 1_000_000_000
_PACKAGES = ("opentelemetry-sdk", "opentelemetry-util-genai")
_SERVER_PACKAGES = ("chdb", "clickhouse-connect", "fastapi", "genai-prices")
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


class Check(NamedTuple):
    """One line: how it is, what was looked at, what was found, and what to do ('' where there is nothing to do)."""

    state: Literal["ok", "warn", "fail"]
    what: str
    found: str
    advice: str = ""


@click.command()
@json_option
@connected
def doctor(*, as_json: bool, settings: Settings) -> None:
    """Say what is installed, reachable, priced and dropped. Fails if something doesn't work.

    \b
    tallystick doctor
    tallystick doctor --url http://127.0.0.1:4318 --json
    """
    checks = [*_installed(), *_instrumented(), *_keys(settings), *_clickhouse(settings), *_kafka(settings), *_reachable(settings)]
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for check in checks:
            mark = click.style(f"{check.state:4}", fg=_COLOURS[check.state])
            click.echo(f"{mark}  {check.what}: {check.found}" + (f"\n      {check.advice}" if check.advice else ""))
    if any(check.state == "fail" for check in checks):
        raise click.exceptions.Exit(1)


def _installed() -> Iterator[Check]:
    yield Check("ok", "tallystick", f"{version('tallystick')}, Python {platform.python_version()}")
    for package in _PACKAGES:
        found = _version(package)
        yield Check("ok", package, found) if found else Check("fail", package, "not installed", "pip install tallystick")
    missing = [package for package in _SERVER_PACKAGES if _version(package) is None]
    if missing:
        yield Check("warn", "server", f"{', '.join(missing)} missing", "pip install 'tallystick[server]', where the server runs")
    else:
        yield Check("ok", "server", ", ".join(f"{package} {_version(package)}" for package in _SERVER_PACKAGES))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _instrumented() -> Iterator[Check]:
    known = installed_instrumentations(os.environ, read(os.environ).left_off)
    choices = [choice for choice in known if choice.version is not None]
    if not choices:
        yield Check("warn", "instrumentation", "no model provider's library is installed", "run this where your service runs")
    for choice in choices:
        yield metered(choice)


def metered(choice: Choice) -> Check:
    """How one installed client library stands."""
    what = f"{choice.library} {choice.version}"
    if choice.instrumentation is None:
        return Check("warn", what, "its calls aren't metered", choice.reason)
    by = "the client libraries under it" if choice.instrumentation == UNDERNEATH else choice.instrumentation
    found = f"metered by {by}: {choice.reason}"
    if choice.tested is None:
        return Check("ok", what, f"{found}; not among the tested libraries")
    if not choice.tested:
        return Check("warn", what, f"{found}; this version isn't among the tested ones", "docs/clients.md has those that are")
    return Check("ok", what, found)


def _keys(settings: Settings) -> Iterator[Check]:
    if settings.url is not None or not settings.data.is_dir():
        return
    from tallystick.ingest.keys import KeyStore

    try:
        in_force = sum(key.revoked_at is None for key in KeyStore(settings.data, settings.keys).all())
    except KeysDamaged as error:
        yield Check("fail", "keys", str(error), error.hint)
    except OSError as error:
        yield Check("warn", "keys", f"{error.filename}: {error.strerror}", "ask as the user that the server runs as")
    else:
        yield Check("ok", "keys", f"{in_force:,} in force")


def _clickhouse(settings: Settings) -> Iterator[Check]:
    if settings.clickhouse is None:
        return
    from tallystick.ingest.migrate import migrations
    from tallystick.server.stores import open_ledger

    try:
        with closing(open_ledger(settings, patience_s=0)) as store:
            cluster = f", shards of {store.dialect.cluster}" if store.dialect.cluster else ""
            # ON CLUSTER, the first host speaks for all.
            told = zip(store.dialect.hosts, store.each_host(), strict=False)
            hosts = ", ".join(f"{host} {client.command('SELECT version()')}" for host, client in told)
            schemas = {int(str(client.command("SELECT max(number) FROM migrations"))) for client in store.each_host()}
    except StoreError as error:
        yield Check("fail", "ClickHouse", str(error), error.hint)
        return
    except Exception as error:
        yield Check(
            "fail",
            "ClickHouse",
            in_words(error).message[:200],
            "`tallystick migrate` makes what is missing; grants are in docs/clickhouse.md",
        )
        return
    known = len(migrations())
    found = f"{hosts}{cluster}; schema {' and '.join(map(str, sorted(schemas)))}"
    if min(schemas) < known:
        yield Check("fail", "ClickHouse", f"{found}, this version needs {known}", "run `tallystick migrate`")
    else:
        yield Check("ok", "ClickHouse", found)


def _kafka(settings: Settings) -> Iterator[Check]:
    if settings.kafka is None:
        return
    from tallystick.ingest.topics import ensure_topics
    from tallystick.server.brokers import brokers_of

    try:
        missing = ensure_topics(brokers_of(settings), settings.kafka_received, settings.kafka_dead_letters, check=True)
    except Exception as error:
        yield Check("fail", "Kafka", in_words(error).message[:200], "is it running, and TALLYSTICK_KAFKA its address?")
        return
    topics = f"{settings.kafka}: topics {settings.kafka_received} and {settings.kafka_dead_letters}"
    if missing:
        yield Check("warn", "Kafka", f"{topics}: {'; '.join(missing)}", "`tallystick migrate` makes them")
    else:
        yield Check("ok", "Kafka", topics)


def _reachable(settings: Settings) -> Iterator[Check]:
    if find_spec("httpx") is None:
        # Where only the collector is installed, what is installed is all there is to say.
        yield Check("warn", "reachable", "not looked at: this needs the server's packages", "pip install 'tallystick[server]'")
        return
    url = server_url(settings)
    if url is None and settings.clickhouse is None and not settings.data.is_dir():
        # Nothing is named: services would send to the usual address, so that is where to look.
        url = DEFAULT_URL
    if url is not None:
        with Client(url, settings.key) as client:
            if not client.healthy():
                advice = "start it with `tallystick up`, or name another with --url or TALLYSTICK_URL"
                yield Check("fail", "server", f"nothing answers at {url}", advice)
                return
            if client.ready():
                yield Check("ok", "server", f"{url} accepts spans")
            else:
                yield Check("fail", "server", f"{url} is up and accepts no spans", "its log says why; is the disk full?")
            yield from _received(client)
            yield from _alerts(client)
    try:
        with connect(replace(settings, url=url)) as ledger:
            yield _priced(ledger)
    except (Failure, Refused, Unreachable, StoreError) as error:
        shown = in_words(error) if not isinstance(error, Failure) else error
        yield Check("fail", "ledger", shown.message, getattr(shown, "hint", ""))


def _received(client: Client) -> Iterator[Check]:
    try:
        status = client.status()
    except (Refused, Unreachable) as error:
        if isinstance(error, Refused) and error.code == "forbidden":
            found = "not told to a tenant's key: what was received, dropped and rejected is about all tenants"
            yield Check(
                "ok", "received", found, "the operator's doctor shows it; the rest of this one is about this key's tenant"
            )
        else:
            yield Check("warn", "received", f"unknown: {error}")
        return
    yield Check("ok", "received", f"{status.get('received_spans', 0):,} spans, {status.get('stored_calls', 0):,} calls stored")
    dropped = _reasons(status.get("dropped_spans"))
    if dropped:
        yield Check("ok", "dropped", dropped)
    rejected = _reasons(status.get("rejected_spans"))
    if rejected:
        yield Check("warn", "rejected", rejected, "these spans are in no total; look at who sends them")
    refused = _reasons(status.get("refused_requests"))
    if refused:
        yield Check("warn", "refused requests", refused, "nothing of them was kept; look at who sends them")
    if status.get("failed_batches"):
        failures = f"{status['failed_batches']:,}, last: {status.get('last_failure') or 'unknown'}"
        yield Check("warn", "failed inserts", failures, "senders were told to try again; is the disk full?")


def _alerts(client: Client) -> Iterator[Check]:
    try:
        status = client.alerts_status()
    except (Refused, Unreachable) as error:
        if not isinstance(error, Refused) or error.code != "forbidden":
            yield Check("warn", "alerts", f"unknown: {error}")
        return
    failing = status["scheduler"]["failing_since"] or status["ledger_error"]
    advice = "the server's log says why; nothing is said meanwhile, and made up for afterwards" if failing else ""
    yield Check("fail" if failing else "ok", "alerts", evaluations(status), advice)
    for channel in status["channels"]:
        # One that has sent since is well again.
        if channel["refused"] and (channel["last_error_at"] or "") > (channel["last_sent"] or ""):
            found = f"{channel['refused']:,} messages refused, last: {channel['last_error']}"
            yield Check("warn", f"channel {channel['name']}", found, "`tallystick alerts test` tries it again")
        elif channel["oldest_open"] and channel["last_error"]:
            found = f"{channel['pending'] + channel['sending']:,} messages wait since {channel['oldest_open'][:19]}, last: {channel['last_error']}"
            yield Check("warn", f"channel {channel['name']}", found)
    if status["problems"]:
        told = "; ".join(f"{one['field'] or one['file']}: {one['text']}" for one in status["problems"][:3])
        more = f" and {len(status['problems']) - 3:,} more" if len(status["problems"]) > 3 else ""
        yield Check(
            "warn", "configuration", f"left out: {told}{more}", "`tallystick budgets validate FILE` tells all, with their lines"
        )


def _reasons(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in (counts or {}).items() if count)


def _priced(ledger: Ledger) -> Check:
    until_ns = end_of_day(time.time_ns())
    rows = by_dimensions(ledger, [], until_ns - _THIRTY_DAYS_NS, until_ns)
    if not rows or not rows[0]["calls"]:
        return Check("warn", "priced", "no calls in 30 days", "`import tallystick.auto` in a service, or try `tallystick replay`")
    calls, tokens = coverage(rows[0])
    found = f"{percent(tokens)} of tokens and {percent(calls)} of calls in 30 days"
    if rows[0]["priced_calls"] == rows[0]["calls"]:
        return Check("ok", "priced", found)
    return Check("warn", "priced", found, "`tallystick prices missing` lists the rest")
