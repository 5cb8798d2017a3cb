"""The API's description: what FastAPI gathers from the routes, and what is the same for all: errors, keys and their roles."""

from collections.abc import Iterator
from importlib import metadata
from typing import Any, Final, NamedTuple

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from tallystick.ingest.keys import Role
from tallystick.server.operators import Gate

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
    {"name": "operation", "description": "How the server fares."},
]

_SCHEME: Final = "key"


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


class RouteRoles(NamedTuple):
    """A route, and whose keys are for it; None: it asks for no key."""

    method: str
    path: str
    summary: str
    roles: frozenset[Role] | None


def describe(app: FastAPI) -> None:
    """Let the application describe itself by `openapi` below."""

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi(app)
        return app.openapi_schema

    setattr(app, "openapi", made)  # noqa: B010


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document. Each operation's security names the roles whose keys are for it (4.8.30 of the specification allows them there)."""
    document = get_openapi(
        title="tallystick",
        version=metadata.version("tallystick"),
        description=_DESCRIPTION,
        routes=app.routes,
        tags=_TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        _SCHEME: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of `tallystick keys create --tenant NAME --role ROLE`.",
        }
    }
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (ErrorDetail, ErrorAnswer):
        schemas[model.__name__] = model.model_json_schema(ref_template="#/components/schemas/{model}") | {"$defs": None}
        del schemas[model.__name__]["$defs"]
    for route in roles(app):
        operation = document["paths"][route.path][route.method.lower()]
        operation["security"] = [{_SCHEME: sorted(route.roles)}] if route.roles else []
        _tell_errors(operation, route)
    return document


def _tell_errors(operation: dict[str, Any], route: RouteRoles) -> None:
    responses = operation["responses"]
    usual = {"403", "503"} | ({"401"} if route.roles else set[str]())
    if "parameters" in operation or "requestBody" in operation:
        usual |= {"400", "422"}
    if "{" in route.path:
        usual.add("404")
    for status in usual if route.path.startswith("/v1/") else ():
        responses.setdefault(status, {"description": _USUAL[status]})
    for status, response in responses.items():
        if int(status) >= 400:
            if status in _USUAL and response["description"] in ("Validation Error", ""):
                response["description"] = _USUAL[status]
            response["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}}
    operation["responses"] = dict(sorted(responses.items()))


def roles(app: FastAPI) -> Iterator[RouteRoles]:
    """The routes of the description, in its order."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            gate = next((found.call for found in route.dependant.dependencies if isinstance(found.call, Gate)), None)
            for method in sorted(route.methods or ()):
                yield RouteRoles(method, route.path_format, route.summary or "", gate.roles if gate else None)


def table(app: FastAPI) -> str:
    """Of docs/api.md: which key is for which route."""
    lines = [f"| | | {' | '.join(Role)} |", f"| --- | --- |{' --- |' * len(Role)}"]
    for route in roles(app):
        marks = ["no key" if route.roles is None else "yes" if role in route.roles else "" for role in Role]
        lines.append(f"| `{route.method} {route.path}` | {route.summary} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"
