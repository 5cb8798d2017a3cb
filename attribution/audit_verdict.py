"""The verdict: what the figures of the loss ledger prove, and no more. Pure; the reasons are in docs/audit.md."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from tallystick.attribution.audit import Audit, Finding, Hour, Ledger, Partition, Place, State, Window

_RETENTION: Final = "raise the topic's retention (retention.ms, retention.bytes), or add consumers: it must outlast the longest time that they are away"


def verdict(ledger: Ledger, partitions: Sequence[Partition] | None, window: Window) -> Audit:
    """partitions: what the brokers say, as of a moment before `ledger` was read; None where there is no Kafka, or it can't be asked."""
    waiting = None if partitions is None else sum(one.waiting for one in partitions)
    since = min((one.waiting_since for one in partitions or () if one.waiting and one.waiting_since), default=None)
    hours = [_hour(row) for row in ledger.hours]
    findings = [
        *_in_services(ledger),
        *_on_the_way(ledger, window, waiting or 0),
        *_behind_receivers(ledger, waiting or 0),
        *_in_partitions(ledger, partitions or ()),
        *_in_store(ledger),
        *_dead(ledger),
    ]
    lost = {place: sum(f.spans or 0 for f in findings if f.place is place and f.state is State.LOST) for place in Place}
    return Audit(
        hours=hours,
        findings=findings,
        # What is missing between a collector and the store is missing behind the receiver, too, where it was lost there.
        lost_spans=lost[Place.SERVICE] + max(lost[Place.WAY], lost[Place.RECEIVER]) + lost[Place.STORE],
        lost_messages=sum(f.messages or 0 for f in findings if f.place is Place.KAFKA and f.state is State.LOST),
        unfinished_spans=sum(f.spans or 0 for f in findings if f.place is Place.WAY and f.state is State.UNFINISHED),
        untold_spans=sum(hour.untold for hour in hours),
        waiting=waiting,
        lag_s=None if waiting is None else 0.0 if since is None else max(0.0, (window.now - since).total_seconds()),
        freshness_s=None if ledger.newest is None else max(0.0, (window.now - ledger.newest).total_seconds()),
    )


def _hour(row: dict[str, Any]) -> Hour:
    emitted = row["emitted"]
    return Hour(
        row["service"],
        row["hour"],
        emitted=None if emitted is None else int(emitted),
        **{name: int(row[name]) for name in ("lost", "received", "calls", "dropped", "rejected", "untold")},
    )


def _in_services(ledger: Ledger) -> Iterator[Finding]:
    """What collectors say that they lost before it left the service."""
    for service in sorted({row["service"] for row in ledger.hours if row["lost"] > 0}):
        rows = [row for row in ledger.hours if row["service"] == service and row["lost"] > 0]
        yield Finding(
            Place.SERVICE,
            State.LOST,
            f"{_named(service)} dropped them itself: its queue was full, or the server refused them",
            "its log and the metric tallystick.collector.spans say why; OTEL_BSP_MAX_QUEUE_SIZE holds more",
            spans=sum(int(row["lost"]) for row in rows),
            at=min(row["hour"] for row in rows),
        )


def _on_the_way(ledger: Ledger, window: Window, waiting: int) -> Iterator[Finding]:
    """What collectors had when they last told, and what neither came nor was told to be lost."""
    for row in ledger.collectors:
        before = int(row["first_missing"]) if row["is_cut"] else 0
        missing = max(0, int(row["missing"]) - before)
        silent = row["last_at"] < window.horizon
        least = None if row["least_missing"] is None else max(0, int(row["least_missing"]) - before)
        # While Kafka holds something, it may be there.
        lost = 0 if waiting else missing if silent else min(missing, least or 0) if int(row["last_gap_end"]) else 0
        who = f"{_named(row['service'])}, collector {row['collector']}"
        if lost:
            gaps = int(row["missing_batches"]) if not row["is_cut"] else 0
            how = (
                f"{gaps} of its batches never came"
                if gaps > 0
                else f"it hasn't been heard of since {row['last_at']:%Y-%m-%d %H:%M:%S} UTC"
            )
            yield Finding(
                Place.WAY, State.LOST, f"{who}: {how}",
                "killed, it takes what waited in its queue along: end services with SIGTERM; else look between it and the store (gateways, Kafka)",
                spans=lost, at=row["last_at"],
            )  # fmt: skip
        if missing > lost:
            yield Finding(
                Place.WAY, State.UNFINISHED, f"{who}: they waited there, or were on their way, when it told last", "ask again in some minutes",
                spans=missing - lost, at=row["last_at"],
            )  # fmt: skip


def _behind_receivers(ledger: Ledger, waiting: int) -> Iterator[Finding]:
    for row in ledger.receivers:
        messages, spans = max(0, int(row["missing_messages"])), max(0, int(row["missing_spans"]))
        if row["is_cut"] or not messages or not spans:
            # Of numbers without promised spans the senders were told to send them again.
            continue
        lost = messages > waiting
        yield Finding(
            Place.RECEIVER,
            State.LOST if lost else State.UNFINISHED,
            f"receiver {row['receiver']} acknowledged them, and {messages} of its messages didn't come out of Kafka",
            "were messages deleted from the topic, by its retention or by hand? Was a receiver's spool deleted?" if lost else "ask again when Kafka is empty",
            spans=spans,
            messages=messages,
            at=row["since_at"],
        )  # fmt: skip


def _in_partitions(ledger: Ledger, partitions: Sequence[Partition]) -> Iterator[Finding]:
    read = {(row["source"], int(row["partition"])): row for row in ledger.partitions}
    for (source, number), row in read.items():
        if int(row["missing_messages"]) > 0:
            where = ", ".join(f"{first}" if first == last else f"{first} to {last}" for first, last in row["gaps"])
            yield Finding(
                Place.KAFKA, State.LOST, f"{source}/{number}: offsets {where} were never read", _RETENTION,
                messages=int(row["missing_messages"]), at=row["since_at"],
            )  # fmt: skip
    for one in partitions:
        known = read.get((one.topic, one.number))
        following = int(known["last_offset"]) + 1 if known else one.committed
        if following is not None and one.start > following:
            yield Finding(
                Place.KAFKA, State.LOST, f"{one.topic}/{one.number}: offsets {following} to {one.start - 1} were deleted before they were read",
                _RETENTION, messages=one.start - following,
            )  # fmt: skip
        if one.waiting:
            yield Finding(
                Place.KAFKA, State.UNFINISHED, f"{one.topic}/{one.number}: they wait for a consumer", "ask again when they are read",
                messages=one.waiting, at=one.waiting_since,
            )  # fmt: skip


def _in_store(ledger: Ledger) -> Iterator[Finding]:
    if ledger.told > ledger.present:
        yield Finding(
            Place.STORE, State.LOST, f"{ledger.told} calls were entered, and {ledger.present} are in the ledger",
            "see system.detached_parts and the server's log; restore from a backup, or replay what Kafka still holds",
            spans=ledger.told - ledger.present,
        )  # fmt: skip


def _dead(ledger: Ledger) -> Iterator[Finding]:
    for row in ledger.dead:
        yield Finding(
            Place.DEAD_LETTERS, State.KEPT, f"{row['reason']}: they couldn't be entered", f"tallystick deadletters list --reason {row['reason']}",
            spans=int(row["spans"]) or None, messages=int(row["messages"]), at=row["first_at"],
        )  # fmt: skip


def _named(service: str) -> str:
    return f"service {service}" if service else "a service without a name"
