"""The API's description: what FastAPI gathers from the routes, and what is the same for all: errors, keys and their roles."""

from importlib import metadata
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field

from tallystick.ingest.keys import Role
from tallystick.server.probe_store import PushedRun

_DESCRIPTION: Final = """\
Observability and FinOps for language-model calls.

Money is text of exact decimals in USD, unknown is null, times are UTC. Where the server listens on a loopback address no key is needed; who sends
none sees all tenants. Every error has one shape: `error.code` is for programs, `error.message` and `error.hint` are for people.
"""

_TAGS: Final = [
    {"name": "ingest", "description": "What happened: calls of models, and what came of them."},
    {"name": "attribution", "description": "Who spent it, and why it changed."},
    {"name": "corrections", "description": "Entries that set right what stands in the ledger. For operators."},
    {"name": "budgets", "description": "How much may be spent. For operators."},
    {"name": "alerts", "description": "What was said of budgets, to whom. For operators."},
    {"name": "probes", "description": "Engines that were measured, and what their tokens cost. For operators."},
    {"name": "operation", "description": "How the server fares."},
]


class ErrorDetail(BaseModel):
    """code: a word for programs. hint: what to do."""

    code: str = Field(examples=["bad_parameter"])
    message: str = Field(examples=["by: no dimension 'custmer': did you mean customer?"])
    hint: str = Field(examples=["GET /v1/dimensions lists them."])


class ErrorAnswer(BaseModel):
    """What every error answers."""

    error: ErrorDetail


_USUAL: Final = {
    "400": "A parameter or the body can't be understood, as the message says.",
    "401": "A key is needed, or this one is unknown or revoked.",
    "403": "The key isn't for this; the hint names the roles that are. Or a forwarded request without a key.",
    "404": "There is no such thing that you may see.",
    "422": "A parameter or field is missing or not of its form.",
    "503": "The ledger can't be reached now: ask again after Retry-After seconds.",
}
"""Errors that need no words of a route's own."""


def describe(app: FastAPI) -> None:
    """Let the application describe itself by `openapi` below."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi(app)
        return app.openapi_schema

    setattr(app, "openapi", made)  # noqa: B010


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document. Security of an operation names the roles whose keys are for it."""
    document = get_openapi(
        title="tallystick",
        version=metadata.version("tallystick"),
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    # A body that is read by hand, as it may be compressed, isn't among them.
    pushed = PushedRun.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= pushed.pop("$defs") | {PushedRun.__name__: pushed}
    schemas[ErrorDetail.__name__] = ErrorDetail.model_json_schema()
    schemas[ErrorAnswer.__name__] = {
        **ErrorAnswer.model_json_schema(),
        "properties": {"error": {"$ref": f"#/components/schemas/{ErrorDetail.__name__}"}},
    }
    schemas[ErrorAnswer.__name__].pop("$defs")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _tell_errors(path, operation)
    return document


def _tell_errors(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    usual = {"403", "503"} | ({"401"} if "security" in operation else set[str]())
    if "parameters" in operation or "requestBody" in operation:
        usual |= {"400", "422"}
    if "{" in path:
        usual.add("404")
    for status in usual if path.startswith("/v1/") else ():
        responses.setdefault(status, {"description": _USUAL[status]})
    for status, response in responses.items():
        if int(status) >= 400:
            if response["description"] == "Validation Error":
                response["description"] = _USUAL[status]
            response["content"] = {"application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorAnswer.__name__}"}}}
    operation["responses"] = dict(sorted(responses.items()))


def roles(operation: dict[str, Any]) -> frozenset[Role] | None:
    """Whose keys an operation of the document is for; None where it asks for none."""
    return (
        frozenset(Role(role) for needed in operation["security"] for role in needed["key"]) if "security" in operation else None
    )


def table(document: dict[str, Any]) -> str:
    """Of docs/api.md: which key is for which route."""
    lines = [f"| | | {' | '.join(Role)} |", f"| --- | --- |{' --- |' * len(Role)}"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            allowed = roles(operation)
            marks = ["no key" if allowed is None else "yes" if role in allowed else "" for role in Role]
            lines.append(f"| `{method.upper()} {path}` | {operation['summary']} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"
