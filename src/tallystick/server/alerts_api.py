"""Alerts over HTTP: what was said, how channels and evaluations fare, and what holds messages back. For operators."""

import logging
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from tallystick.alerts.channels import Refused, Retry
from tallystick.alerts.channels.sample import trial
from tallystick.alerts.channels.webhook import Data
from tallystick.alerts.config_fields import Duration, did_you_mean
from tallystick.alerts.database import LedgerError
from tallystick.alerts.deliveries import ChannelStatus, State
from tallystick.alerts.journal import Entry
from tallystick.alerts.silences import Acknowledgement
from tallystick.ingest.payload import PayloadError
from tallystick.server.alerts import Alerts, InForce
from tallystick.server.auth import Door
from tallystick.server.budgets_api import ProblemAnswer, problems
from tallystick.server.operators import Who, author, operators_only

log = logging.getLogger(__name__)

LONGEST: Final = timedelta(days=400)
"""Of a silence."""


class DeliveryAnswer(BaseModel):
    """To one channel: `pending`, `sending`, `sent`, `refused` or `silenced`, since when. next_at: when it is tried again."""

    channel: str
    state: State
    attempts: int
    since: datetime
    next_at: datetime | None
    error: str | None


class AcknowledgementAnswer(BaseModel):
    """Somebody has it in hand, until then or, if null, for the rest of the period."""

    subject: str
    value: str
    period_start: datetime
    at: datetime
    until: datetime | None
    who: str
    why: str


class AlertAnswer(BaseModel):
    """What was said. message: as a webhook gets it under `data`; null where a newer version wrote it."""

    id: int
    at: datetime
    subject: str
    value: str
    message: Data | None
    deliveries: list[DeliveryAnswer]
    acknowledged: AcknowledgementAnswer | None


class AlertsAnswer(BaseModel):
    """The newest first. next: what `before` is to be for the page after; null on the last one."""

    alerts: list[AlertAnswer]
    next: int | None


class ChannelAnswer(BaseModel):
    """How a channel fares. type: null where it isn't in the configuration, or can't be used. oldest_open: since when the oldest open message waits."""

    name: str
    type: str | None
    usable: bool
    pending: int
    sending: int
    sent: int
    refused: int
    silenced: int
    oldest_open: datetime | None
    last_sent: datetime | None
    last_error: str | None
    last_error_at: datetime | None


class LastTickAnswer(BaseModel):
    """The last evaluation that was finished, by whichever replica."""

    at: datetime
    duration_s: float


class SchedulerAnswer(BaseModel):
    """Evaluations. judged, said, lag_s, failures, failing_since, last_error: of this process, which evaluates if it is `leading`.

    lag_s: how much later than asked the last one began. judged: values of budgets and rules that it looked at. said: messages that it entered.
    """

    on: bool
    every_s: float
    leading: bool
    last_tick: LastTickAnswer | None
    judged: int | None
    said: int | None
    lag_s: float | None
    failures: int
    failing_since: datetime | None
    last_error: str | None


class StatusAnswer(BaseModel):
    """How alerts fare. deliveries: by state. ledger_error: why the alert ledger can't be read; then channels and last_tick aren't known."""

    scheduler: SchedulerAnswer
    deliveries: dict[State, int]
    channels: list[ChannelAnswer]
    budgets: int
    rules: int
    problems: list[ProblemAnswer]
    warnings: list[ProblemAnswer]
    ledger_error: str | None


class SaidAnswer(BaseModel):
    """A message that was entered; its deliveries are under GET /v1/alerts."""

    subject: str
    value: str
    title: str


class EvaluatedAnswer(BaseModel):
    """What an evaluation did. evaluated: false where another replica evaluates, which does it within its interval."""

    evaluated: bool
    at: datetime | None = None
    duration_s: float | None = None
    judged: int | None = None
    said: list[SaidAnswer] = []


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_by_name=False, hide_input_in_errors=True)


class TestQuestion(_Question):
    """Which channel."""

    channel: str = Field(max_length=200, examples=["team"])


class TestAnswer(BaseModel):
    """reason: why it wasn't sent."""

    sent: bool
    reason: str | None = None


class _About(_Question):
    subject: str = Field(min_length=1, max_length=200, description="A budget's or rule's name.", examples=["acme"])
    why: str = Field(min_length=1, max_length=500, examples=["load test until noon"])
    until: AwareDatetime | None = Field(None, examples=["2026-03-22T18:00:00Z"])
    for_: Duration | None = Field(None, alias="for", description="In place of `until`.", examples=["2h"])

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.until is not None and self.for_ is not None:
            raise ValueError("write `until` or `for`, not both")
        return self

    def end(self, now: datetime) -> datetime | None:
        """Raises BadEnd."""
        end = now + min(self.for_, 2 * LONGEST) if self.for_ is not None else self.until
        if end is not None and not now < end <= now + LONGEST:
            raise BadEnd
        return end


class SilenceQuestion(_About):
    """What isn't to be sent, until when and why. value: only of this one; null: of all."""

    value: str | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.until is None and self.for_ is None:
            raise ValueError("needs `until` or `for`: a silence has an end")
        return self


class AckQuestion(_About):
    """What somebody has in hand: the period that was spoken of last, until then or for the rest of it."""

    value: str = Field("", max_length=1000)


class SilenceAnswer(BaseModel):
    """ended_at, ended_by: who lifted it before its time."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    subject: str
    value: str | None
    at: datetime
    until: datetime
    who: str
    why: str
    ended_at: datetime | None
    ended_by: str | None


class SilencesAnswer(BaseModel):
    """The newest first."""

    silences: list[SilenceAnswer]


class LiftedAnswer(BaseModel):
    """A silence that is over; what it kept silent isn't sent later."""

    id: int


class BadEnd(PayloadError):
    """Over already, or too far away."""

    def __init__(self) -> None:
        hint = "To never hear of something, take its channels out of `notify`."
        super().__init__(422, "bad_end", f"The end must lie ahead, by {LONGEST.days} days at most.", hint)


class Nothing(PayloadError):
    """There is no such thing."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(404, code, message, hint)


class Unusable(PayloadError):
    """The configuration has the channel, and it can't be used."""

    def __init__(self, why: str) -> None:
        super().__init__(409, "channel_unusable", "The configuration's channel of this name can't be used.", why)


class Off(PayloadError):
    """This process doesn't evaluate."""

    def __init__(self) -> None:
        super().__init__(409, "alerts_off", "Alerts are off here.", "Set TALLYSTICK_ALERTS_EVERY_S to seconds above 0.")


def router(alerts: Alerts, door: Door) -> APIRouter:
    """Routes below /v1/alerts."""
    routes = APIRouter(prefix="/v1/alerts", tags=["alerts"], **operators_only(door))

    @routes.get("", summary="What was said, and what became of it")
    def said(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before: Annotated[int | None, Query(ge=1, le=2**62, description="Only older ones than this id.")] = None,
        subject: Annotated[str | None, Query(max_length=200, description="Only of this budget or rule.")] = None,
    ) -> AlertsAnswer:
        entries = alerts.ledger.journal.entries(limit, before=before, subject=subject)
        seen = alerts.ledger.silences.acknowledgements(subject)
        now = _now()
        return AlertsAnswer(
            alerts=[_alert(entry, seen, now) for entry in entries], next=entries[-1].id if len(entries) == limit else None
        )

    @routes.get("/status", summary="How channels and evaluations fare")
    def status() -> StatusAnswer:
        return _status(alerts)

    @routes.post("/evaluate", summary="Evaluate now", responses={409: {"description": "Alerts are off here."}})
    def evaluate() -> EvaluatedAnswer:
        if not alerts.on:
            raise Off
        done = alerts.scheduler.evaluate()
        if done is None:
            return EvaluatedAnswer(evaluated=False)
        entries = alerts.ledger.journal.entries(500) if done.said else []
        told = [
            SaidAnswer(subject=one.subject, value=one.value, title=one.message.title if one.message else "")
            for one in reversed(entries)
            if one.at == done.at
        ]
        return EvaluatedAnswer(
            evaluated=True, at=done.at, duration_s=done.duration.total_seconds(), judged=done.judged, said=told
        )

    @routes.post(
        "/test",
        summary="Send a test message to a channel, now and once",
        responses={
            404: {"description": "There is no such channel."},
            409: {"description": "The channel can't be used, as the hint says."},
        },
    )
    def test(request: Request, question: TestQuestion, who: Who = "") -> TestAnswer:
        in_force = alerts.in_force()
        channel = in_force.channels.get(question.channel)
        if channel is None:
            raise _no_channel(question.channel, in_force)
        message = trial(author(door, request, who), _now())
        try:
            channel.send(message, delivery_id=f"test-{secrets.token_hex(12)}", thread=None)
        except (Refused, Retry) as error:
            return TestAnswer(sent=False, reason=error.reason)
        except Exception as error:
            # Its text may hold a URL or a token.
            log.error("the test of channel %s failed: %s", question.channel, type(error).__name__)
            return TestAnswer(sent=False, reason=type(error).__name__)
        return TestAnswer(sent=True)

    @routes.post(
        "/silences",
        summary="Let something be silent until a time; it counts as said",
        responses={404: {"description": "No budget or rule has this name."}},
    )
    def silence(request: Request, question: SilenceQuestion, who: Who = "") -> SilenceAnswer:
        now = _now()
        until = question.end(now)
        assert until is not None
        _check_subject(question.subject, alerts.in_force())
        made = alerts.ledger.silences.silence(
            question.subject, question.value, until=until, who=author(door, request, who), why=question.why, now=now
        )
        return SilenceAnswer.model_validate(made)

    @routes.get("/silences", summary="Silences that hold; with all=true those that are over, too")
    def silences(all: bool = False) -> SilencesAnswer:
        kept = alerts.ledger.silences
        found = kept.silences() if all else list(reversed(kept.active_silences(_now())))
        return SilencesAnswer(silences=[SilenceAnswer.model_validate(one) for one in found])

    @routes.delete("/silences/{id}", summary="End a silence before its time")
    def lift(request: Request, id: Annotated[int, Field(ge=1, le=2**62)], who: Who = "") -> LiftedAnswer:
        if not alerts.ledger.silences.lift(id, author(door, request, who), _now()):
            raise Nothing("no_such_silence", "No silence that holds has this id.", "GET /v1/alerts/silences lists them.")
        return LiftedAnswer(id=id)

    @routes.post(
        "/ack", summary="Say that somebody has it in hand", responses={404: {"description": "Nothing was said of this."}}
    )
    def acknowledge(request: Request, question: AckQuestion, who: Who = "") -> AcknowledgementAnswer:
        now = _now()
        until = question.end(now)
        entries = alerts.ledger.journal.entries(1, subject=question.subject, value=question.value)
        if not entries or entries[0].message is None:
            raise Nothing(
                "nothing_said", "Nothing was said of this, so there is nothing to acknowledge.", "GET /v1/alerts has what was."
            )
        kept = alerts.ledger.silences.acknowledge(
            entries[0].message.key, who=author(door, request, who), why=question.why, now=now, until=until
        )
        return _acknowledged(kept)

    return routes


def _alert(entry: Entry, seen: list[Acknowledgement], now: datetime) -> AlertAnswer:
    message = entry.message
    key = message and (message.key.subject, message.key.value, message.key.period_start)
    acknowledged = next(
        (one for one in seen if (one.subject, one.value, one.period_start) == key and (one.until is None or one.until > now)),
        None,
    )
    return AlertAnswer(
        id=entry.id,
        at=entry.at,
        subject=entry.subject,
        value=entry.value,
        message=Data.model_validate(message) if message else None,
        deliveries=[DeliveryAnswer.model_validate(one, from_attributes=True) for one in entry.outcomes],
        acknowledged=_acknowledged(acknowledged) if acknowledged else None,
    )


def _acknowledged(one: Acknowledgement) -> AcknowledgementAnswer:
    return AcknowledgementAnswer.model_validate(one, from_attributes=True)


def _status(alerts: Alerts) -> StatusAnswer:
    error = last = None
    known: list[ChannelStatus] = []
    try:
        in_force = alerts.in_force()
        last = alerts.ledger.last_tick()
        known = alerts.ledger.deliveries.status()
    except LedgerError as down:
        # That is what a status is for.
        error, in_force = str(down), alerts.known
    pace = alerts.scheduler.pace
    scheduler = SchedulerAnswer(
        on=alerts.on,
        every_s=pace.every.total_seconds(),
        leading=pace.leading,
        last_tick=LastTickAnswer(at=last.at, duration_s=last.duration.total_seconds()) if last else None,
        judged=pace.last.judged if pace.last else None,
        said=pace.last.said if pace.last else None,
        lag_s=pace.lag.total_seconds() if pace.lag is not None else None,
        failures=pace.failures,
        failing_since=pace.failing_since,
        last_error=pace.last_error,
    )
    by_name = {one.channel: one for one in known}
    names = dict.fromkeys([*in_force.file.declared.channels, *by_name])
    return StatusAnswer(
        scheduler=scheduler,
        deliveries={state: sum(getattr(one, state.value) for one in known) for state in State},
        channels=[_channel(name, by_name.get(name), in_force) for name in names] if error is None else [],
        budgets=len(in_force.config.budgets),
        rules=len(in_force.config.rules),
        problems=problems(in_force.problems),
        warnings=problems(in_force.config.warnings),
        ledger_error=error,
    )


def _channel(name: str, status: ChannelStatus | None, in_force: InForce) -> ChannelAnswer:
    config = in_force.file.channels.get(name)
    counts: dict[str, Any] = {state.value: getattr(status, state.value) if status else 0 for state in State}
    return ChannelAnswer(
        name=name,
        type=config.type if config else None,
        usable=name in in_force.channels,
        oldest_open=status.oldest_open if status else None,
        last_sent=status.last_sent if status else None,
        last_error=status.last_error if status else None,
        last_error_at=status.last_error_at if status else None,
        **counts,
    )


def _no_channel(name: str, in_force: InForce) -> PayloadError:
    if name in in_force.file.declared.channels:
        of_it = [one for one in in_force.problems if one.field == f"channels.{name}" or one.field.startswith(f"channels.{name}.")]
        return Unusable("; ".join(f"{one.field}: {one.text}" for one in of_it))
    hint = did_you_mean(name, list(in_force.channels))
    return Nothing("no_such_channel", "The configuration has no channel of this name.", hint)


def _check_subject(subject: str, in_force: InForce) -> None:
    names = [*(one.name for one in in_force.config.budgets), *(one.name for one in in_force.config.rules)]
    if subject not in names:
        hint = did_you_mean(subject, names)
        raise Nothing(
            "no_such_subject",
            "No budget or rule that is judged has this name.",
            hint if len(hint) < 200 else "GET /v1/budgets lists them.",
        )


def _now() -> datetime:
    return datetime.now(UTC)
