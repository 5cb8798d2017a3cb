"""Budgets over HTTP: how they stand, and those that are made here instead of in the file. For operators."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Body, Path, Query, Request
from pydantic import BaseModel

from tallystick.alerts.config import made_budget
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.config_fields import did_you_mean
from tallystick.alerts.config_yaml import ConfigError, Problem
from tallystick.alerts.definitions import BUDGET
from tallystick.ingest.payload import PayloadError
from tallystick.server.alerts import Alerts, InForce
from tallystick.server.auth import Door
from tallystick.server.operators import Who, author, operators_only
from tallystick.server.standing import BudgetStanding, definition, standings

_ASKING: Final = 2
"""Questions to the ledger of calls at one time; further ones wait."""

_LONGEST: Final = 1 << 20
"""Bytes of a configuration."""

_EXAMPLE: Final = {
    "amount": 100, "period": "month", "scope": {"customer": "acme"}, "thresholds": [50, 80, 100, "forecast 100"], "notify": ["team"],
}  # fmt: skip

Name = Annotated[str, Path(description="The budget's name.", examples=["acme"])]
MostValues = Annotated[int, Query(ge=0, le=10_000, description="Of a budget with `each`, the values that spent most.")]


class ProblemAnswer(BaseModel):
    """What is wrong with a part of the configuration, and what to write instead. line, column: from 1; null of a budget made by API."""

    file: str
    line: int | None
    column: int | None
    field: str
    text: str


class BudgetsAnswer(BaseModel):
    """All budgets that are judged. problems: what keeps others out. warnings keep nothing out."""

    budgets: list[BudgetStanding]
    problems: list[ProblemAnswer]
    warnings: list[ProblemAnswer]


class RevisionAnswer(BaseModel):
    """What was judged from `at` on; an edit that changes nothing of it, such as of owners, makes no revision."""

    revision: int
    at: datetime
    author: str
    definition: dict[str, Any]


class ChangeAnswer(BaseModel):
    """A change by API. definition: null where it was deleted."""

    at: datetime
    author: str
    definition: dict[str, Any] | None


class HistoryAnswer(BaseModel):
    """The oldest first. Revisions are numbered by the first evaluation that sees them."""

    name: str
    revisions: list[RevisionAnswer]
    changes: list[ChangeAnswer]


class MadeAnswer(BaseModel):
    """A budget as it is kept. changed: false where it was so already."""

    name: str
    changed: bool
    definition: dict[str, Any]


class DeletedAnswer(BaseModel):
    """A budget that is no longer judged; its history stays."""

    name: str


class ValidationAnswer(BaseModel):
    """What this server would make of a configuration: how much of it could be used, and what keeps the rest out."""

    channels: int
    budgets: int
    rules: int
    problems: list[ProblemAnswer]
    warnings: list[ProblemAnswer]


class NoSuchBudget(PayloadError):
    """It isn't there, or is left out."""

    def __init__(self, name: str, in_force: InForce) -> None:
        known = [budget.name for budget in in_force.config.budgets]
        kept_out = name in in_force.made or name in in_force.file.declared.names
        message = "No budget that is judged has this name" + ("; what has it is left out." if kept_out else ".")
        close = did_you_mean(name, known)
        hint = (
            "`problems` of GET /v1/budgets says why."
            if kept_out
            else close
            if len(close) < 200
            else "GET /v1/budgets lists them."
        )
        super().__init__(404, "no_such_budget", message, hint)


class OfTheFile(PayloadError):
    """Only who writes the file can change it."""

    def __init__(self) -> None:
        hint = "Change the file, which is read again at once, or choose another name."
        super().__init__(409, "budget_of_the_file", "The configuration file has this name.", hint)


class BadBudget(PayloadError):
    """Every problem in one message."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        told = "; ".join(f"{one.field}: {one.text}" if one.field else one.text for one in problems)
        super().__init__(422, "bad_budget", told, "docs/budgets.md has every field.")


class TooLong(PayloadError):
    """Longer than anybody's configuration."""

    def __init__(self) -> None:
        super().__init__(413, "too_long", f"The configuration has more than {_LONGEST:,} bytes.", "Send the part in question.")


_OF_THE_FILE: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "The configuration file has this name."}}


def router(alerts: Alerts, door: Door) -> APIRouter:
    """Routes below /v1/budgets."""
    routes = APIRouter(prefix="/v1/budgets", tags=["budgets"], **operators_only(door))
    asking = anyio.CapacityLimiter(_ASKING)

    @routes.get("", summary="All budgets, and how they stand")
    async def all_budgets(values: MostValues = 20) -> BudgetsAnswer:
        def look() -> BudgetsAnswer:
            in_force = alerts.in_force()
            budgets = in_force.config.budgets
            told = standings(in_force, budgets, alerts.ledger, alerts.ask, _now(), most=values, foresee_each=False)
            return BudgetsAnswer(budgets=told, problems=problems(in_force.problems), warnings=problems(in_force.config.warnings))

        return await anyio.to_thread.run_sync(look, limiter=asking)

    @routes.post(
        "/validate",
        summary="What this server would make of a configuration",
        openapi_extra={"requestBody": {"required": True, "content": {"application/yaml": {"example": _YAML}}}},
    )
    async def validate(request: Request) -> ValidationAnswer:
        text = await _text(request)
        return await anyio.to_thread.run_sync(_validated, alerts, text)

    # A name may hold slashes.
    @routes.get("/{name:path}/history", summary="Revisions and changes of a budget, also of one that was deleted")
    def history(name: Name) -> HistoryAnswer:
        revisions = [
            RevisionAnswer(revision=one.number, at=one.at, author=one.author, definition=json.loads(one.definition))
            for one in alerts.ledger.history(name)
        ]
        changes = [
            ChangeAnswer(at=one.at, author=one.author, definition=None if one.body is None else json.loads(one.body))
            for one in alerts.ledger.definitions.changes(BUDGET, name)
        ]
        if not revisions and not changes:
            _found(name, alerts.in_force())
        return HistoryAnswer(name=name, revisions=revisions, changes=changes)

    @routes.get("/{name:path}", summary="A budget, and how it stands")
    async def one_budget(name: Name, values: MostValues = 100) -> BudgetStanding:
        def look() -> BudgetStanding:
            in_force = alerts.in_force()
            budget = _found(name, in_force)
            (told,) = standings(in_force, [budget], alerts.ledger, alerts.ask, _now(), most=values, foresee_each=True)
            return told

        return await anyio.to_thread.run_sync(look, limiter=asking)

    @routes.put("/{name:path}", summary="Make a budget, or change one that was made here", responses=_OF_THE_FILE)
    def put(
        request: Request, name: Name, body: Annotated[dict[str, Any], Body(examples=[_EXAMPLE])], who: Who = ""
    ) -> MadeAnswer:
        in_force = alerts.in_force()
        if name in in_force.file.declared.names:
            raise OfTheFile
        if body.get("name", name) != name:
            raise BadBudget((Problem("", 0, 0, "name", "isn't the name in the address: leave it out"),))
        budget, wrong = made_budget(in_force.file, name, body)
        if budget is None or wrong:
            raise BadBudget(wrong)
        kept = json.dumps(body, sort_keys=True)
        changed = alerts.ledger.definitions.put(BUDGET, name, kept, author=author(door, request, who), now=_now())
        return MadeAnswer(name=name, changed=changed, definition=definition(budget))

    @routes.delete("/{name:path}", summary="Delete a budget that was made here; its history stays", responses=_OF_THE_FILE)
    def delete(request: Request, name: Name, who: Who = "") -> DeletedAnswer:
        if not alerts.ledger.definitions.delete(BUDGET, name, author=author(door, request, who), now=_now()):
            in_force = alerts.in_force()
            raise OfTheFile if name in in_force.file.declared.names else NoSuchBudget(name, in_force)
        return DeletedAnswer(name=name)

    return routes


def problems(found: tuple[Problem, ...]) -> list[ProblemAnswer]:
    return [
        ProblemAnswer(file=one.file, line=one.line or None, column=one.column or None, field=one.field, text=one.text)
        for one in found
    ]


_YAML: Final = """\
channels:
  team: {type: slack, url: "${SLACK_WEBHOOK_URL}"}
budgets:
  - {name: acme, amount: 100, period: month, scope: {customer: acme}, notify: [team]}
"""


def _found(name: str, in_force: InForce) -> Budget:
    budget = next((one for one in in_force.config.budgets if one.name == name), None)
    if budget is None:
        raise NoSuchBudget(name, in_force)
    return budget


async def _text(request: Request) -> str | None:
    """The body; None where it is no text."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST:
            raise TooLong
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _validated(alerts: Alerts, text: str | None) -> ValidationAnswer:
    try:
        if text is None:
            raise ConfigError((Problem("configuration", 1, 1, "", "is no text in UTF-8"),))
        config = alerts.loaded(text)
    except ConfigError as error:
        return ValidationAnswer(channels=0, budgets=0, rules=0, problems=problems(error.problems), warnings=[])
    return ValidationAnswer(
        channels=len(config.channels),
        budgets=len(config.budgets),
        rules=len(config.rules),
        problems=problems(config.problems),
        warnings=problems(config.warnings),
    )


def _now() -> datetime:
    return datetime.now(UTC)
