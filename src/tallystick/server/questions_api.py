"""Named questions over HTTP: /v1/q lists them, /v1/q/NAME answers one."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel

from tallystick.attribution.questions import BadParameter, Question, UnknownQuestion, ask_query, question, questions
from tallystick.attribution.user_sql import READER_SETTINGS, checked, result
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.sql_api import SqlColumn


class ParameterAnswer(BaseModel):
    """What a question can be told. default: null where it must be given. choices: of a choice, or the only dimensions there are."""

    name: str
    kind: str
    default: str | None
    meaning: str
    choices: list[str]


class QuestionAnswer(BaseModel):
    """definition: figure of the answer → what it is. example: a command."""

    name: str
    sentence: str
    definition: dict[str, str]
    parameters: list[ParameterAnswer]
    example: str


class QuestionsAnswer(BaseModel):
    """By name."""

    questions: list[QuestionAnswer]


class AskedAnswer(BaseModel):
    """Rows in order; decimals are strings, unknown is null. sql, params: what was run, as POST /v1/sql takes it."""

    name: str
    definition: dict[str, str]
    columns: list[SqlColumn]
    rows: list[list[Any]]
    elapsed_ms: float
    sql: str
    params: dict[str, Any]


class NoSuchQuestion(PayloadError):
    """The message proposes what may have been meant."""

    def __init__(self, error: UnknownQuestion) -> None:
        super().__init__(404, "no_such_question", f"{error}", "GET /v1/q lists them.")


class BadQuestion(PayloadError):
    """A parameter can't be."""

    def __init__(self, error: BadParameter) -> None:
        super().__init__(400, "bad_parameter", f"{error}", "GET /v1/q has each question's parameters.")


Name = Annotated[str, Path(description="Of the question.", examples=["spend"])]
By = Annotated[str | None, Query(description="What to group by, where the question does.", examples=["customer,feature"])]
Moment = Annotated[str | None, Query(description="An age or a time, UTC if no zone.", examples=["30d", "2026-11-01"])]
Where = Annotated[list[str] | None, Query(description="DIMENSION=VALUE; repeatable.", examples=[["customer=acme"]])]


def router(store: Store, door: Door, asking: Asking) -> APIRouter:
    """Routes below /v1/q."""
    routes = APIRouter(prefix="/v1/q", tags=["attribution"])

    @routes.get("", summary="The named questions")
    async def all_questions(request: Request) -> QuestionsAnswer:
        door.reader(request.headers.get("authorization"))
        return QuestionsAnswer(questions=[_described(one) for one in questions().values()])

    # Only those parameters are declared that most questions have: the others are a question's own.
    @routes.get("/{name}", summary="The answer to a named question; its parameters are the query's")
    async def ask(
        request: Request, name: Name, *, by: By = None, since: Moment = None, until: Moment = None, where: Where = None
    ) -> AskedAnswer:
        tenant = door.reader(request.headers.get("authorization"))
        given = {key: request.query_params.getlist(key) for key in request.query_params}
        try:
            asked, query = question(name), ask_query(name, given, datetime.now(UTC))
        except UnknownQuestion as error:
            raise NoSuchQuestion(error) from None
        except BadParameter as error:
            raise BadQuestion(error) from None

        def answer(mark: str) -> AskedAnswer:
            with store.reader(tenant, READER_SETTINGS) as reader:
                found = result(reader, checked(reader, query.text, query.params), mark)
            columns = [SqlColumn(name=column.name, type=column.type) for column in found.columns]
            return AskedAnswer(
                name=name,
                definition=dict(asked.definition),
                columns=columns,
                rows=found.rows,
                elapsed_ms=found.elapsed_ms,
                sql=query.text,
                params=query.params,
            )

        return await asking.ask(request, answer)

    return routes


def _described(one: Question) -> QuestionAnswer:
    parameters = [
        ParameterAnswer(name=p.name, kind=p.kind, default=p.default, meaning=p.meaning, choices=list(p.choices))
        for p in one.parameters.values()
    ]
    return QuestionAnswer(
        name=one.name, sentence=one.sentence, definition=dict(one.definition), parameters=parameters, example=one.example
    )
