"""ClickHouse's HTTP interface over the ledger: what speaks it asks as /v1/sql is asked, read-only and caged by tenant.

The interface is documented at clickhouse.com/docs/interfaces/http; which clients were seen to work, and what of it isn't here, is in
docs/sql.md.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import uuid4

from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from tallystick.attribution.catalog import Catalog
from tallystick.attribution.clickhouse_sql import FORMATS, LIMITS, Statement, catalog, described, prepared
from tallystick.attribution.client_settings import kept, listed
from tallystick.attribution.user_sql import MAX_QUERY_BYTES, BadQuery, QueryTooExpensive, written
from tallystick.ingest.cluster import DATABASE
from tallystick.ingest.errors import StoreError
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.clickhouse_blocks import UnknownLayout, for_version, no_rows
from tallystick.server.clickhouse_frames import framed

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_TRANSPORT: Final = frozenset(
    (
        "query", "database", "default_format", "query_id", "compress", "client_protocol_version", "user", "password",
        "buffer_size", "close_session", "quota_key", "role", "session_check", "session_id", "session_timeout", "stacktrace",
        "wait_end_of_query", "decompress",
    )
)  # fmt: skip
"""Parameters of a request that are no settings. Those of the last two lines have no effect: there are no sessions, and answers are whole."""

_DATABASES: Final = frozenset(("", "default", DATABASE))
"""Clients that were told of none say `default`."""

_BINARY: Final = frozenset(
    (
        "Arrow",
        "ArrowStream",
        "MsgPack",
        "Native",
        "ORC",
        "Parquet",
        "RowBinary",
        "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes",
    )
)

_MAX_BODY_BYTES: Final = 4 * MAX_QUERY_BYTES
"""Of a query with its parameters."""

_QUERY_ID: Final = re.compile(r"[\w.:-]{1,100}")

_CODES: Final = {
    "bad_parameter": "BAD_QUERY_PARAMETER",
    "lambda_expected": "BAD_ARGUMENTS",
    "name_taken": "BAD_ARGUMENTS",
    "no_such_function": "UNKNOWN_FUNCTION",
    "no_such_table": "UNKNOWN_TABLE",
    "not_a_select": "READONLY",
    "not_allowed": "SUPPORT_IS_DISABLED",
    "query_failed": "UNKNOWN_EXCEPTION",
    "same_name": "BAD_ARGUMENTS",
    "too_complex": "TOO_DEEP_RECURSION",
    "too_many_rows": "TOO_MANY_ROWS_OR_BYTES",
    "too_much_memory": "MEMORY_LIMIT_EXCEEDED",
    "too_slow": "TIMEOUT_EXCEEDED",
    "type_expected": "BAD_ARGUMENTS",
}
"""Our words for errors → ClickHouse's; the others are its own, in small letters."""

_STATUSES: Final = {
    **dict.fromkeys(("UNKNOWN_TABLE", "UNKNOWN_FUNCTION", "UNKNOWN_DATABASE", "UNKNOWN_FORMAT", "UNKNOWN_TYPE"), 404),
    **dict.fromkeys(("AUTHENTICATION_FAILED", "ACCESS_DENIED", "READONLY"), 403),
    **dict.fromkeys(("REQUIRED_PASSWORD",), 401),
    **dict.fromkeys(("UNKNOWN_EXCEPTION", "MEMORY_LIMIT_EXCEEDED", "TIMEOUT_EXCEEDED", "TOO_MANY_ROWS_OR_BYTES"), 500),
    **dict.fromkeys(("NOT_IMPLEMENTED",), 501),
    **dict.fromkeys(("NETWORK_ERROR",), 503),
}
"""Statuses of errors, 400 for those that aren't here (exceptionCodeToHTTPStatus of ClickHouse)."""


class _Asked(NamedTuple):
    """A request, read. settings: as sent."""

    query: str
    params: dict[str, str]
    settings: dict[str, str]
    form: str
    query_id: str
    version: int
    compressed: bool


@dataclass(frozen=True)
class _Known:
    """What is told of the server: asked of the engine once, when somebody first asks."""

    store: Store = field(repr=False)

    @cached_property
    def _found(self) -> tuple[Catalog, Mapping[str, int]]:
        return catalog(self.store.client(), DATABASE, listed(LIMITS))

    @property
    def catalog(self) -> Catalog:
        return self._found[0]

    def code(self, name: str) -> int:
        """The number of an error; that of UNKNOWN_EXCEPTION where the engine has no such name."""
        return self._found[1].get(name, 1002)


def router(store: Store, door: Door, asking: Asking, page: Callable[[], Response]) -> APIRouter:
    """`/` and `/ping`. page: what a browser gets, which sends no query."""
    routes = APIRouter(include_in_schema=False)
    known = _Known(store)

    @routes.get("/ping")
    async def ping() -> PlainTextResponse:
        return PlainTextResponse("Ok.\n")

    @routes.get("/")
    @routes.post("/")
    async def ask(request: Request) -> Response:
        if request.method == "GET" and "query" not in request.query_params:
            return page()
        query_id = request.query_params.get("query_id", "")
        query_id = query_id if _QUERY_ID.fullmatch(query_id) else str(uuid4())
        try:
            tenant = _tenant(door, request)
            asked = await _read(request, query_id)
            return await asking.ask(request, lambda mark: _answer(store, known, tenant, asked, mark))
        except (PayloadError, BadQuery, StoreError) as error:
            return await asking.read(partial(_failure, known, query_id, error))

    return routes


def _answer(store: Store, known: _Known, tenant: str | None, asked: _Asked, mark: str) -> Response:
    try:
        with store.reader(tenant, kept(asked.settings, LIMITS)) as reader:
            return _response(reader, known, asked, mark)
    except ClickHouseError:
        # Errors of the query are told as BadQuery: this is one of opening the connection.
        raise BadQuery("bad_arguments", "A setting has no such value.", "docs/sql.md lists what can be set.") from None


def _response(reader: "Client", known: _Known, asked: _Asked, mark: str) -> Response:
    statement = prepared(reader, known.catalog, asked.query, asked.params)
    form = statement.form or asked.form
    if form not in FORMATS:
        raise BadQuery("unknown_format", f"Unknown format {form[:40]}.", "docs/sql.md lists the formats.")
    content = written(reader, statement.question, form, mark)
    if form == "Native" and not content:
        content = _header(reader, statement, mark)
    if form == "Native":
        try:
            content = for_version(content, asked.version)
        except UnknownLayout as error:
            raise BadQuery(
                "not_implemented", f"A column of type {error} can't be sent to this client.", "Cast it: toString(x)."
            ) from None
    summary = {"result_bytes": str(len(content))}
    headers = {
        "X-ClickHouse-Summary": json.dumps(summary),
        "X-ClickHouse-Format": form,
        "X-ClickHouse-Timezone": known.catalog.timezone,
        "X-ClickHouse-Query-Id": asked.query_id,
        "X-ClickHouse-Server-Display-Name": "tallystick",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(framed(content) if asked.compressed else content, media_type=_media_type(form), headers=headers)


def _header(reader: "Client", statement: Statement, mark: str) -> bytes:
    """The block of an answer without rows; nothing for DESCRIBE, which has some."""
    if statement.question.text.startswith("DESCRIBE"):
        return b""
    return no_rows([(column.name, column.type) for column in described(reader, statement.question, mark)])


def _tenant(door: Door, request: Request) -> str | None:
    """Whose rows may be read; None is everybody's. Raises PayloadError."""
    secret = _secret(request)
    if secret:
        return door.reader(f"Bearer {secret}")
    headers = {name: value for name, value in request.headers.items() if name != "authorization"}
    if door.suspicious(headers) or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise PayloadError(
            403, "forbidden", "A forwarded request, or one from or for another host, needs a key.", "Send it as the password."
        )
    return door.reader(None)


def _secret(request: Request) -> str:
    """The key, wherever ClickHouse takes a password; '' where there is none. The user's name has no meaning."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":
            try:
                return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                raise PayloadError(401, "unauthorized", "The header Authorization can't be read.", "") from None
        case _:
            return request.headers.get("x-clickhouse-key") or request.query_params.get("password", "")


async def _read(request: Request, query_id: str) -> _Asked:
    """Raises PayloadError, BadQuery."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadQuery("not_implemented", "A compressed request can't be read.", "Send the query as it is.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY_BYTES:
            raise QueryTooExpensive("query_is_too_large", "The query is too long.", "Split it.")
    given = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        given |= _fields(request.headers["content-type"], body)
        body = b""
    database = request.headers.get("x-clickhouse-database", given.get("database", ""))
    if database not in _DATABASES:
        raise BadQuery("unknown_database", f"Database {database[:40]} does not exist.", f"The database is {DATABASE}.")
    try:
        query = "\n".join(text for text in (given.get("query", ""), body.decode()) if text)
    except UnicodeDecodeError:
        raise BadQuery("syntax_error", "The query isn't valid Unicode.") from None
    if given.get("decompress", "0") != "0":
        raise BadQuery("not_implemented", "A compressed request can't be read.", "Send the query as it is.")
    version = given.get("client_protocol_version", "")
    return _Asked(
        query=query,
        params={name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")},
        settings={name: value for name, value in given.items() if name not in _TRANSPORT and not name.startswith("param_")},
        form=request.headers.get("x-clickhouse-format") or given.get("default_format") or "TabSeparated",
        query_id=query_id,
        version=int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0,
        compressed=given.get("compress", "0") in ("1", "true"),
    )


def _fields(content_type: str, body: bytes) -> dict[str, str]:
    """Fields of a form, as clients send long parameters. Raises BadQuery for external tables."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if part.get_filename() is not None or not isinstance(name, str) or not isinstance(content, bytes):
            raise BadQuery("not_implemented", "External tables can't be sent.", "Write the values in the query: `values(…)`.")
        fields[name] = content.decode(errors="replace")
    return fields


def _failure(known: _Known, query_id: str, error: PayloadError | BadQuery | StoreError) -> Response:
    """An error as ClickHouse writes it."""
    match error:
        case BadQuery():
            name, told = _CODES.get(error.code, error.code.upper()), f"{error.message} {error.hint}".strip()
        case PayloadError():
            name, told = (
                "ACCESS_DENIED" if error.status == 403 else "AUTHENTICATION_FAILED",
                f"{error.message} {error.hint}".strip(),
            )
        case StoreError():
            name, told = "NETWORK_ERROR", "The ledger can't be read now."
    code = known.code(name)
    headers = {
        "X-ClickHouse-Exception-Code": str(code),
        "X-ClickHouse-Query-Id": query_id,
        "X-ClickHouse-Server-Display-Name": "tallystick",
    }
    text = f"Code: {code}. DB::Exception: {told} ({name}) (version {known.catalog.version})\n"
    return PlainTextResponse(text, _STATUSES.get(name, 400), headers)


def _media_type(form: str) -> str:
    if form.startswith("JSON") and "EachRow" not in form and form != "JSONLines":
        return "application/json"
    if form.startswith("CSV"):
        return "text/csv"
    if form.startswith(("TSV", "TabSeparated")):
        return "text/tab-separated-values"
    return "application/octet-stream" if form in _BINARY else "text/plain"
