"""Which keys a route is for, and as whom who calls it is remembered."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final

from fastapi import Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tallystick.ingest.keys import Role
from tallystick.server.auth import Door

Who = Annotated[
    str,
    Query(
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Who asks, as it is remembered, beside the key that was sent.",
        examples=["ana"],
    ),
]


_KEY: Final = HTTPBearer(
    scheme_name="key", description="A key of `tallystick keys create --tenant NAME --role ROLE`.", auto_error=False
)


def _only(check: Callable[[str | None], object], roles: Iterable[Role]) -> dict[str, Any]:
    async def gate(request: Request, described: Annotated[HTTPAuthorizationCredentials | None, Security(_KEY)]) -> None:
        check(request.headers.get("authorization"))

    # The API's description names them: OpenAPI 3.1 has roles of keys where OAuth has scopes.
    return {"dependencies": [Security(gate, scopes=sorted(roles))]}


def operators_only(door: Door) -> dict[str, Any]:
    """Arguments of a router or route: everybody else is turned away before anything is looked at."""
    return _only(door.check_operator, [Role.OPERATOR])


def askers_only(door: Door) -> dict[str, Any]:
    """Arguments of a router or route: a writer's key is turned away. Whose rows may be read, `door.reader` says."""
    return _only(door.reader, (role for role in Role if role.asks))


def senders_only(door: Door | None) -> dict[str, Any]:
    """Arguments of a router or route: a reader's key is turned away. For whom it sends, `door.sender` says; None where the route asks that itself."""
    return _only(door.sender if door else lambda authorization: None, (role for role in Role if role.sends))


def author(door: Door, request: Request, who: str) -> str:
    """`ana (key 3f9a1c22 of acme)`, without a key `ana`, of a nobody `local`."""
    key = door.key(request.headers.get("authorization"))
    if key is None:
        return who or "local"
    return f"{who} (key {key.id} of {key.tenant})" if who else f"key {key.id} of {key.tenant}"
