"""Calls that are taken back: those that were told twice and entered twice, and single ones."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from tallystick.attribution.corrections import Corrections, Made, Run
from tallystick.attribution.priced_calls import Which, period
from tallystick.attribution.sql_files import fill, insert_json, scalar
from tallystick.schema.dialects import quote

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_PART: Final = 4_000_000
"""Calls whose answers are compared at once."""

_MOST: Final = 500_000
"""Of those, calls that share their answer's id."""


@dataclass(frozen=True)
class Call:
    """A call of the ledger by its name; ids are hex."""

    tenant: str
    trace_id: str
    span_id: str


@dataclass(frozen=True)
class Voided:
    """made: the run; None where nothing was to be entered. looked_at: calls that share an answer's id with another one."""

    made: Made | None
    looked_at: int
    calls: tuple[Call, ...]


class NoSuchCall(ValueError):
    """The ledger has no such call, or it doesn't stand, or it is of several tenants. The message says which."""


class TooManyAlike(ValueError):
    """More calls share answers' ids than can be compared."""


Judge = Callable[[Iterable[Sequence[Any]]], Iterable[tuple[str, bytes, bytes]]]
"""Rows of queries/told_twice.sql → (tenant, trace id, span id) of those that aren't to stand."""


def void_told_twice(
    corrections: Corrections, which: Which, judge: Judge, *, reason: str, author: str, dry_run: bool = False
) -> Voided:
    """Void all but one of the calls that several spans told of: what the writer didn't see, as they came at different times.

    Raises TooManyAlike, and what Corrections.run raises.
    """
    with corrections.run("void", reason=reason, author=author, detail={"duplicates": True, **asdict(which)}) as run:
        looked_at, lost = 0, list[Call]()
        condition = which.condition()
        parts = _number_of_calls(run.client, condition) // _PART + 1
        for part in range(parts):
            query = fill("told_twice", condition=condition, parts=str(parts), part=str(part), most=str(_MOST + 1))
            rows = run.client.query(query).result_rows
            if len(rows) > _MOST:
                raise TooManyAlike(f"over {_MOST:,} calls of this time share an answer's id with another")
            looked_at += len(rows)
            lost += [Call(tenant, trace_id.hex(), span_id.hex()) for tenant, trace_id, span_id in judge(rows)]
        lost.sort(key=lambda call: (call.tenant, call.trace_id, call.span_id))
        made = _void(run, lost, which.since_ns, which.until_ns) if lost and not dry_run else None
        return Voided(made, looked_at, tuple(lost))


def void_call(
    corrections: Corrections,
    trace_id: str,
    span_id: str,
    *,
    reason: str,
    author: str,
    tenant: str | None = None,
    dry_run: bool = False,
) -> Voided:
    """Void one call; ids are hex. tenant None: whosever it is. Raises NoSuchCall, and what Corrections.run raises."""
    for name, text, digits in (("trace id", trace_id, 32), ("span id", span_id, 16)):
        if not re.fullmatch(f"[0-9a-fA-F]{{{digits}}}", text) or not int(text, 16):
            raise NoSuchCall(f"{text!r} is no {name}: {digits} hex digits, not all 0")
    call = {"trace_id": trace_id.lower(), "span_id": span_id.lower()}
    with corrections.run("void", reason=reason, author=author, detail={**call, "tenant": tenant}) as run:
        found = run.client.query(fill("call_by_id", trace=quote(trace_id), span=quote(span_id))).result_rows
        found = [row for row in found if tenant is None or row[0] == tenant]
        standing = [row for row in found if row[2]]
        if not standing:
            raise NoSuchCall("the call is voided already" if found else "the ledger has no such call")
        if len(standing) > 1:
            raise NoSuchCall(f"several tenants have this call, say which: {', '.join(row[0] for row in standing)}")
        owner, begin_ns, _ = standing[0]
        one = Call(owner, **call)
        return Voided(None if dry_run else _void(run, [one], begin_ns, begin_ns + 1), 1, (one,))


def _void(run: Run, calls: Sequence[Call], since_ns: int, until_ns: int) -> Made | None:
    named = f"{run.beside}_calls"
    run.client.command(f"CREATE TABLE {named} (tenant String, trace_id String, span_id String) ENGINE = Memory")
    insert_json(run.client, named, map(asdict, calls))
    run.opposites(fill("voided_entries", calls=named, period=period(since_ns, until_ns)), entry="'void'")
    return run.enter()


def _number_of_calls(client: "Client", condition: str) -> int:
    return int(scalar(client, fill("number_of_calls", condition=condition)))
