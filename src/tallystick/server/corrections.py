"""Corrections as they are asked for and told, over HTTP and on the command line."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.attribution.corrections import AlreadyMade, Busy, Corrections, Made, NotMade, NotUndoable
from tallystick.attribution.moments import end_of_day, moment
from tallystick.attribution.priced_calls import Which
from tallystick.attribution.prices import PriceBook
from tallystick.attribution.reprice import NothingToReprice, Repriced, reprice
from tallystick.attribution.runs import Turns
from tallystick.attribution.voids import NoSuchCall, TooManyAlike, Voided, void_call, void_told_twice
from tallystick.ingest.cluster import Kind, on_cluster
from tallystick.ingest.errors import StoreError
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.same_call import judge
from tallystick.ingest.store import Store
from tallystick.ingest.writer import rival
from tallystick.server.money import Money

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_MOST_VOIDED: Final = 1_000
"""Voided calls that an answer names."""

Reason = Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["price list of 1 October was late"])


class Period(BaseModel):
    """Calls that started from `since` until before `until`, an age or a time each, UTC if no zone; until null: all that there are."""

    model_config = ConfigDict(extra="forbid")

    since: str = Field(examples=["2026-10-01"])
    until: str | None = Field(None, examples=["2026-11-01"])
    tenant: str | None = Field(None, examples=["acme"])
    reason: str = Reason
    dry_run: bool = Field(False, description="Say what would be entered, and enter nothing.")


class RepriceQuestion(Period):
    """Calls to price again by the present price book. model: a name or a pattern with * and ?; null is any."""

    model: str | None = Field(None, examples=["claude-sonnet-*"])
    provider: str | None = Field(None, examples=["anthropic"])
    customer: str | None = Field(None, examples=["globex"])


class VoidQuestion(BaseModel):
    """One call, by its ids in hex. tenant: null is whosever it is."""

    model_config = ConfigDict(extra="forbid")

    trace_id: str = Field(examples=["0af7651916cd43dd8448eb211c80319c"])
    span_id: str = Field(examples=["b7ad6b7169203331"])
    tenant: str | None = Field(None, examples=["acme"])
    reason: str = Reason
    dry_run: bool = False


class UndoQuestion(BaseModel):
    """Why a run is undone."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Reason


class RunAnswer(BaseModel):
    """A run. key: what it was for; book: the price book's id; undone_by, undoes: other runs' ids; each '' if there is none.

    detail: what was asked for. cost_usd: the sum of its entries.
    """

    id: str = Field(examples=["3f9a1c22"])
    kind: Literal["reprice", "void", "allocation", "trueup", "undo"]
    key: str
    at: datetime
    author: str
    reason: str
    book: str
    entries: int
    cost_usd: Money
    undone_by: str
    undoes: str
    detail: dict[str, Any]


class RunsAnswer(BaseModel):
    """The newest first."""

    corrections: list[RunAnswer]


class CoverageAnswer(BaseModel):
    """Calls and tokens, and how many of them are priced; cost_usd is of those."""

    calls: int
    priced_calls: int
    tokens: int
    priced_tokens: int
    cost_usd: Money


class DifferenceAnswer(BaseModel):
    """What changes for one model, customer or day. calls: those whose cost changes."""

    by: Literal["model", "customer", "day"]
    value: str
    calls: int
    cost_usd: Money


class RepriceAnswer(BaseModel):
    """What a repricing changed, or would change.

    correction: the run; null after a dry run, and where nothing changed. looked_at: calls that stand. newly_priced: of the `changed`, those
    that had no price. unpriced: calls without a price after it. price_lost: calls that keep their cost although their model has no price any
    more. differences: the largest of models, customers and days each.
    """

    correction: RunAnswer | None
    dry_run: bool
    book: str
    looked_at: int
    changed: int
    newly_priced: int
    unpriced: int
    price_lost: int
    cost_usd: Money
    before: CoverageAnswer
    after: CoverageAnswer
    differences: list[DifferenceAnswer]


class VoidedCall(BaseModel):
    """A call by its name."""

    tenant: str
    trace_id: str
    span_id: str


class VoidAnswer(BaseModel):
    """What was voided, or would be. correction: the run; null after a dry run, and where there was nothing to void.

    looked_at: calls that share their answer's id with another one. calls: how many are voided; voided: the first of them.
    """

    correction: RunAnswer | None
    dry_run: bool
    looked_at: int
    calls: int
    voided: list[VoidedCall]


class Refusal(PayloadError):
    """Nothing was entered."""


class Desk:
    """Takes questions, answers as the API does. book: the present one, asked for anew each time. Raises PayloadError."""

    def __init__(self, corrections: Corrections, book: Callable[[], PriceBook]) -> None:
        self.corrections, self._book = corrections, book

    def reprice(self, question: RepriceQuestion, author: str) -> RepriceAnswer:
        """Enter differences to the present prices."""
        since_ns, until_ns = _period(question)
        which = Which(since_ns, until_ns, question.model, question.provider, question.customer, question.tenant)
        with refusals():
            found = reprice(
                self.corrections, self._book(), which, reason=question.reason, author=author, dry_run=question.dry_run
            )
        return _repriced(found, question.dry_run)

    def void(self, question: VoidQuestion, author: str) -> VoidAnswer:
        """Void one call."""
        with refusals():
            found = void_call(
                self.corrections, question.trace_id, question.span_id, reason=question.reason, author=author, tenant=question.tenant,
                dry_run=question.dry_run,
            )  # fmt: skip
        return _voided(found, question.dry_run)

    def void_told_twice(self, question: Period, author: str) -> VoidAnswer:
        """Void what was told twice."""
        since_ns, until_ns = _period(question)
        which = Which(since_ns, until_ns, tenant=question.tenant)
        with refusals():
            found = void_told_twice(
                self.corrections, which, _lost, reason=question.reason, author=author, dry_run=question.dry_run
            )
        return _voided(found, question.dry_run)

    def undo(self, id: str, question: UndoQuestion, author: str) -> RunAnswer:
        """Undo a run."""
        with refusals():
            return run_answer(self.corrections.undo(id, reason=question.reason, author=author))

    def runs(self, limit: int = 100) -> RunsAnswer:
        """The latest."""
        return RunsAnswer(corrections=[run_answer(made) for made in self.corrections.all(limit)])

    def one(self, id: str) -> RunAnswer:
        """A run."""
        made = self.corrections.made(id)
        if made is None:
            raise _unknown(id)
        return run_answer(made)


@dataclass(frozen=True)
class _Kept:
    """The store, as corrections need it."""

    store: Store

    @property
    def alone(self) -> bool:
        return self.store.dialect.kind is Kind.EMBEDDED

    def client(self) -> "Client":
        return self.store.client()

    def delete(self, condition: str, /) -> None:
        # A Distributed table passes no mutation on.
        to = self.store.dialect
        for host in self.store.each_host(to.rows):
            host.command(f"ALTER TABLE ledger{on_cluster(to)} DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def open_corrections(store: Store, turns: Turns, clock: Callable[[], datetime] | None = None) -> Corrections:
    """The ledger's corrections, after what a killed process left of one was taken away."""
    corrections = Corrections(_Kept(store), clock or (lambda: datetime.now(UTC)), turns)
    corrections.recover()
    return corrections


def run_answer(made: Made) -> RunAnswer:
    """A run as it is told."""
    return RunAnswer.model_validate(vars(made))


def _lost(rows: Iterable[Sequence[Any]]) -> Iterable[tuple[str, bytes, bytes]]:
    return judge(rival(row) for row in rows).lost


def _period(question: Period) -> tuple[int, int]:
    now_ns = time.time_ns()
    try:
        since_ns = moment(question.since, now_ns)
        # A clock ahead of ours may have dated a call tomorrow.
        until_ns = end_of_day(end_of_day(now_ns)) if question.until is None else moment(question.until, now_ns)
    except ValueError as error:
        raise Refusal(400, "bad_time", f"{error}", "Nothing was entered.") from None
    if since_ns >= until_ns:
        raise Refusal(400, "bad_time", "`since` isn't before `until`.", "Nothing was entered.")
    return since_ns, until_ns


def _repriced(found: Repriced, dry_run: bool) -> RepriceAnswer:
    after = CoverageAnswer.model_validate(vars(found.after))
    return RepriceAnswer(
        correction=None if found.made is None else run_answer(found.made),
        dry_run=dry_run,
        book=found.book,
        looked_at=found.before.calls,
        changed=found.changed,
        newly_priced=found.newly_priced,
        unpriced=after.calls - after.priced_calls,
        price_lost=found.price_lost,
        cost_usd=found.cost_usd,
        before=CoverageAnswer.model_validate(vars(found.before)),
        after=after,
        differences=[DifferenceAnswer.model_validate(vars(one)) for one in found.differences],
    )


def _voided(found: Voided, dry_run: bool) -> VoidAnswer:
    return VoidAnswer(
        correction=None if found.made is None else run_answer(found.made),
        dry_run=dry_run,
        looked_at=found.looked_at,
        calls=len(found.calls),
        voided=[VoidedCall.model_validate(vars(call)) for call in found.calls[:_MOST_VOIDED]],
    )


def _unknown(id: str) -> Refusal:
    return Refusal(404, "no_such_correction", f"There is no correction {id[:100]!r}.", "GET /v1/corrections lists them.")


@contextmanager
def refusals() -> Iterator[None]:
    """What Corrections raises in this block, as answers. Raises Refusal."""
    try:
        yield
    except Busy as error:
        raise Refusal(
            409, "busy", f"{str(error).capitalize()}; one is made at a time.", "Nothing was entered; ask again when it has ended."
        ) from None
    except AlreadyMade as error:
        hint = "Nothing was entered." + ("" if error.made.kind == "undo" else f" If it is wrong, undo {error.made.id} first.")
        raise Refusal(409, "already_made", f"{error}.", hint) from None
    except NotUndoable as error:
        raise Refusal(409, "not_undoable", f"{error}.", "Nothing was entered; GET /v1/corrections lists what there is.") from None
    except KeyError as error:
        raise _unknown(str(error.args[0])) from None
    except NothingToReprice as error:
        raise Refusal(404, "no_calls", f"{error}.", "Nothing was entered; GET /v1/spend says what there is.") from None
    except NoSuchCall as error:
        raise Refusal(
            404, "no_such_call", f"{error}.", "Nothing was entered; `trace_id` and `span_id` of charges name it."
        ) from None
    except TooManyAlike as error:
        raise Refusal(400, "too_many", f"{error}.", "Nothing was entered; ask for a shorter time.") from None
    except (NotMade, StoreError) as error:
        raise Refusal(503, "unavailable", f"{error}.", "GET /v1/corrections says whether it was made.") from None
    except ValueError as error:
        raise Refusal(400, "bad_request", f"{error}.", "Nothing was entered.") from None
