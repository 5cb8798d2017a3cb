"""Whether a stage measured the engine, or the client and the way to it. Each rule gives a reason in words; one is enough to distrust the stage.

| rule | threshold |
| --- | --- |
| sends came late | more than 5 % of them by over 5 ms, a tenth of the mean gap and a tenth of the median TTFT, whichever is most |
| the event loop lagged | p99 over 10 ms, a tenth of the median TTFT and a tenth of the median TPOT, whichever is most |
| the client's core was full | over 90 % of one |
| requests failed | over 10 % of those that ended |
| the engine idled | it answered under 90 % of what was offered without a queue, and knew of under 80 % of what was under way |
| the stage ended early | for another cause than its limit |

Late sends make other arrivals than the schedule's, and TTFT from sent hides it. Events are stamped when the loop gets to them. Both are held
against what is measured: 20 ms are nothing in a second, and much in 50 ms. Beside failures
the others have the engine for themselves. An engine that idles isn't the limit: the client, the network or a proxy is.

Requests that were cancelled since the stage ended don't invalidate it: an engine that is asked too much has them. Latencies are then of those
that were fast enough, which `StageSummary.censored` says.
"""

from collections.abc import Sequence
from typing import Final

from tallystick.probes.figures.rates import answered_rate
from tallystick.probes.records import Outcome, Record, Stage

LATE_SHARE: Final = 0.05
LATE_MS: Final = 5.0
LAG_MS: Final = 10.0
SMALL: Final = 0.1
"""Of what is measured: so much of an error is borne."""
CPU_SHARE: Final = 0.9
FAILED_SHARE: Final = 0.1
IDLE_SHARE: Final = 0.9
KNOWN_SHARE: Final = 0.8


def distrust(
    stage: Stage, records: Sequence[Record], *, ttft_ms: float | None, tpot_ms: float | None, offered: float | None
) -> tuple[str, ...]:
    """Why not to trust a stage; empty: nothing speaks against it. records: its measured ones.

    ttft_ms, tpot_ms: medians, from sending. offered: requests a second.
    """
    reasons = [
        *_ended(stage),
        *_failed(records),
        *_late(records, ttft_ms, offered),
        *_lagged(stage, ttft_ms, tpot_ms),
        *_idle(stage, records, offered),
    ]
    return tuple(reasons)


def _ended(stage: Stage) -> list[str]:
    return [] if stage.ended in ("done", "limit") else [f"it ended early: {stage.ended}"]


def _failed(records: Sequence[Record]) -> list[str]:
    if not records:
        return ["no request was measured"]
    cancelled = sum(record.outcome is Outcome.CANCELLED for record in records)
    judged = len(records) - cancelled
    failed = sum(record.outcome not in (Outcome.OK, Outcome.CANCELLED) for record in records)
    reasons: list[str] = []
    if judged == 0:
        reasons.append(f"all {cancelled:,} requests were under way when it ended: raise `seconds`, or ask for less")
    if judged and failed == judged:
        reasons.append(f"all {failed:,} requests failed")
    elif failed > FAILED_SHARE * judged:
        reasons.append(f"{failed:,} of {judged:,} requests failed: the others had the engine for themselves")
    return reasons


def _late(records: Sequence[Record], ttft_ms: float | None, offered: float | None) -> list[str]:
    lateness = [(record.sent_ns - record.scheduled_ns) / 1e6 for record in records if record.scheduled_ns is not None]
    if not lateness:
        return []
    most = max(LATE_MS, SMALL * 1_000 / offered if offered else 0.0, SMALL * (ttft_ms or 0.0))
    late = sum(one > most for one in lateness)
    if late <= LATE_SHARE * len(lateness):
        return []
    return [
        f"the client was late: {late:,} of {len(lateness):,} requests were sent more than {most:.3g} ms after they were due,"
        f" one by {max(lateness):.3g} ms"
    ]


def _lagged(stage: Stage, ttft_ms: float | None, tpot_ms: float | None) -> list[str]:
    health = stage.health
    reasons: list[str] = []
    most = max(LAG_MS, SMALL * (ttft_ms or 0.0), SMALL * (tpot_ms or 0.0))
    if health.lag_p99_ms > most:
        reasons.append(
            f"the client lagged: 1 % of its event loop's turns came more than {health.lag_p99_ms:.3g} ms late, and times are that wrong"
        )
    if health.cpu_share > CPU_SHARE:
        reasons.append(f"the client used {health.cpu_share:.0%} of its core: it may be what was measured")
    return reasons


def _idle(stage: Stage, records: Sequence[Record], offered: float | None) -> list[str]:
    """Departures are held against arrivals, each by its own span: a stage that keeps up has both alike, however long its answers take.

    An engine that slows down because it runs many at once knows of them all; one that something stands before doesn't.
    """
    known = [
        (sample.at_ns, sample.values)
        for sample in stage.samples
        if {"requests_running", "requests_waiting"} <= set(sample.values)
    ]
    answers = sum(record.outcome is Outcome.OK for record in records)
    left = answered_rate(records)
    if offered is None or left is None or answers < 20 or not known or any(values["requests_waiting"] for _, values in known):
        return []
    arrived = offered * answers / len(records)
    running = sum(values["requests_running"] for _, values in known)
    under_way = sum(record.sent_ns <= at < record.ended_ns for at, _ in known for record in stage.records)
    if left >= IDLE_SHARE * arrived or running >= KNOWN_SHARE * under_way:
        return []
    return [
        f"{left:.3g} answers a second ended of {arrived:.3g} asked, and the engine knew of {running / under_way:.0%} of the requests that were"
        " under way: something before it is the limit (client, network, proxy)"
    ]
