"""What answers over the ledger have in common: the question's terms, pages, entity tags and CSV."""

import base64
import hashlib
import io
import json
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Header, Query, Request, Response
from pydantic import BaseModel

from tallystick.attribution.csv_cells import safe_cell, write_csv
from tallystick.attribution.moments import end_of_day, moment
from tallystick.attribution.spend import UnknownDimension, check_dimension
from tallystick.ingest.payload import PayloadError

LONGEST: Final = 1000
"""Characters of a dimension's name or value in a question."""

_MOST: Final = 20
"""Dimensions that may be grouped by, and filtered by."""


class BadQuestion(PayloadError):
    """A parameter can't be."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(400, "bad_parameter", message, hint)


class BadCursor(PayloadError):
    """No cursor of an answer to this question."""

    def __init__(self) -> None:
        super().__init__(
            400,
            "bad_cursor",
            "The cursor is of no answer to this question.",
            "Send `next` as it came, with the same parameters as before.",
        )


class Form(StrEnum):
    """How an answer is written."""

    JSON = "json"
    CSV = "csv"


Since = Annotated[
    str,
    Query(
        max_length=40, description="From when on calls began: an age or a time, UTC if no zone.", examples=["30d", "2026-11-01"]
    ),
]
Until = Annotated[
    str | None,
    Query(
        max_length=40,
        description="Before when they began; the end of today (UTC) unless given.",
        examples=["2026-12-01T00:00:00+01:00"],
    ),
]
AsOf = Annotated[
    str | None,
    Query(max_length=40, description="Only entries made before: what was known then. An age or a time.", examples=["2026-11-05"]),
]
Where = Annotated[
    list[str],
    Query(
        max_length=_MOST,
        description="DIMENSION=VALUE: only such entries; repeatable. GET /v1/dimensions has both.",
        examples=[["customer=acme"]],
    ),
]
Cursor = Annotated[
    str | None, Query(max_length=4000, description="`next` of the page before; everything else stays the same but `limit`.")
]
Format = Annotated[Form, Query(description="In CSV the next page is in the header Link only.")]
IfNoneMatch = Annotated[
    str | None, Header(max_length=4000, description="ETag of the answer that is there: 304 if it still holds.")
]


def period_of(since: str, until: str | None) -> tuple[int, int]:
    """Nanoseconds since 1970. Raises BadQuestion."""
    now = time.time_ns()
    begin, end = instant("since", since, now), end_of_day(now) if until is None else instant("until", until, now)
    if begin >= end:
        raise BadQuestion("since isn't before until.", "`until` is the end of today unless given.")
    return begin, end


def instant(name: str, text: str, now_ns: int) -> int:
    """Nanoseconds since 1970. Raises BadQuestion."""
    try:
        return moment(text, now_ns)
    except ValueError as error:
        raise BadQuestion(f"{name}: {error}.", "In an address, write %2B for +.") from None


def dimensions_of(by: str) -> list[str]:
    """Of `customer,feature`; none of `total`. Raises BadQuestion."""
    names = list(dict.fromkeys(name.strip() for name in by.split(",") if name.strip()))
    if not names or len(names) > _MOST:
        raise BadQuestion(f"by: {len(names)} dimensions.", f"Name 1 to {_MOST}, or `total` for one sum of everything.")
    if names == ["total"]:
        return []
    for name in names:
        checked_dimension("by", name)
    return names


def filters_of(where: Sequence[str]) -> dict[str, str]:
    """Dimension → value. Raises BadQuestion."""
    found: dict[str, str] = {}
    for text in where:
        name, equals, value = text.partition("=")
        if not equals:
            raise BadQuestion(
                "where: it isn't DIMENSION=VALUE.", "`where=customer=acme`; an empty value is one that isn't known."
            )
        checked_dimension("where", name)
        if found.setdefault(name, checked_text("where", value)) != value:
            raise BadQuestion(f"where: {name} can't have two values at once.", "Ask twice, or POST /v1/sql.")
    return found


def checked_dimension(parameter: str, name: str) -> str:
    """Raises BadQuestion."""
    try:
        check_dimension(checked_text(parameter, name))
    except UnknownDimension as error:
        raise BadQuestion(f"{parameter}: {error}", "GET /v1/dimensions lists them.") from None
    return name


def checked_text(parameter: str, text: str) -> str:
    """Raises BadQuestion where no name or value of the ledger can be so."""
    if len(text) > LONGEST or "\0" in text:
        raise BadQuestion(
            f"{parameter}: nothing is called so.", f"Names have {LONGEST:,} characters at most, and no NUL among them."
        )
    return text


def written(question: Sequence[Any], place: Any) -> str:
    """A cursor: where the answer to a question goes on."""
    return base64.urlsafe_b64encode(json.dumps([_digest(question), place], separators=(",", ":")).encode()).rstrip(b"=").decode()


def read(question: Sequence[Any], cursor: str, form: type[BaseModel]) -> Any:
    """Where it goes on, as `form`. Raises BadCursor where it was written for another question, or by somebody else."""
    try:
        digest, place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        found = form.model_validate(place)
    except (ValueError, TypeError, RecursionError):
        raise BadCursor from None
    if digest != _digest(question):
        raise BadCursor
    return found


def _digest(question: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(question).encode()).hexdigest()[:16]


def answer(request: Request, tag: str, content: BaseModel, following: str | None, table: "Table | None" = None) -> Response:
    """JSON, or `table` as CSV; following: the next page's cursor."""
    sent = headers(tag)
    if following is not None:
        others = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        sent["Link"] = f'<{request.url.path}?{urlencode([*others, ("cursor", following)])}>; rel="next"'
    if table is None:
        return Response(content.model_dump_json(), media_type="application/json", headers=sent)
    sent["Content-Disposition"] = f'attachment; filename="{table.name}.csv"'
    return Response(table.csv(), media_type="text/csv; charset=utf-8", headers=sent)


def not_modified(tag: str) -> Response:
    """For who has the answer already."""
    return Response(status_code=304, headers=headers(tag))


def headers(tag: str) -> dict[str, str]:
    """Of an answer that its client may keep, but has to ask about before it uses it again."""
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization", "X-Content-Type-Options": "nosniff"}


class Table:
    """Rows for a spreadsheet. Unknown is an empty cell; text that would be computed is written as text."""

    def __init__(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        self.name, self._columns, self._rows = name, columns, rows

    def csv(self) -> str:
        out = io.StringIO()
        write_csv(out, [map(safe_cell, self._columns), *(map(_cell, row) for row in self._rows)])
        return out.getvalue()


def _cell(value: Any) -> Any:
    match value:
        case str():
            return safe_cell(value)
        case Decimal():
            return format(value, "f")
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return value


TABLE_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {"text/csv": {"schema": {"type": "string"}}},
        "headers": {
            "ETag": {"description": "Of this answer, for If-None-Match.", "schema": {"type": "string"}},
            "Link": {"description": 'The next page, rel="next"; not there on the last.', "schema": {"type": "string"}},
        },
    },
    304: {"description": "The answer that the client has still holds."},
}
"""Responses of a route that answers by `answer`."""
