"""/v1/sql: any question, answered as JSON or as a file."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tallystick.attribution.sql_formats import MEDIA_TYPES, Format, file
from tallystick.attribution.user_sql import READER_SETTINGS, checked, result
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}


class NotAcceptable(PayloadError):
    """None of the formats that the client takes."""

    def __init__(self) -> None:
        super().__init__(
            406,
            "not_acceptable",
            "The answer can't be written so.",
            f"Accept one of {', '.join(MEDIA_TYPES.values())}, or give `format`.",
        )


class SqlQuestion(BaseModel):
    """One SELECT over `charges`; `params` bind to its `{name:Type}`."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(examples=["SELECT customer, sum(cost_usd) AS cost FROM charges GROUP BY customer ORDER BY cost DESC"])
    params: dict[str, Any] = Field(default_factory=dict, examples=[{"customer": "acme"}])


class SqlColumn(BaseModel):
    """A column of an answer; `type` is ClickHouse's."""

    name: str
    type: str


class SqlAnswer(BaseModel):
    """Rows in order; decimals are strings, unknown is null."""

    columns: list[SqlColumn]
    rows: list[list[Any]]
    elapsed_ms: float


def router(store: Store, door: Door, asking: Asking) -> APIRouter:
    """The route /v1/sql."""
    routes = APIRouter(tags=["attribution"])

    @routes.post(
        "/v1/sql",
        summary="SQL over charges",
        response_model=SqlAnswer,
        responses={
            200: {"content": {media_type: _BINARY for form, media_type in MEDIA_TYPES.items() if form is not Format.JSON}},
            406: {"description": "None of the formats that the Accept header names."},
        },
    )
    async def sql(
        request: Request,
        question: SqlQuestion,
        format: Annotated[Format | None, Query(description="Goes before the Accept header.")] = None,
    ) -> Any:
        tenant = door.reader(request.headers.get("authorization"))
        form = format or accepted(request.headers.get("accept", "*/*"))

        def ask(mark: str) -> SqlAnswer | Response:
            with store.reader(tenant, READER_SETTINGS) as reader:
                if form is not Format.JSON:
                    content = file(reader, question.query, question.params, form, mark)
                    headers = {
                        "Content-Disposition": f'attachment; filename="answer.{form}"',
                        "X-Content-Type-Options": "nosniff",
                    }
                    return Response(content, media_type=MEDIA_TYPES[form], headers=headers)
                answer = result(reader, checked(reader, question.query, question.params), mark)
            columns = [SqlColumn(name=column.name, type=column.type) for column in answer.columns]
            return SqlAnswer(columns=columns, rows=answer.rows, elapsed_ms=answer.elapsed_ms)

        return await asking.ask(request, ask)

    return routes


def accepted(accept: str) -> Format:
    """The format that an Accept header likes best, JSON where it takes any (RFC 9110, 12.5.1). Raises NotAcceptable."""
    best: tuple[float, Format] | None = None
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(parameters)
        for form, name in MEDIA_TYPES.items():
            if media_type in (name, f"{name.partition('/')[0]}/*", "*/*") and quality > (best[0] if best else 0):
                best = quality, form
    if best is None:
        raise NotAcceptable
    return best[1]


def _quality(parameters: list[str]) -> float:
    given = next((parameter.removeprefix("q=") for parameter in parameters if parameter.startswith("q=")), "1")
    try:
        return float(given)
    except ValueError:
        return 0.0
