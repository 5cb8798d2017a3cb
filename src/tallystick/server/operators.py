"""Which keys a route is for, and as whom who calls it is remembered."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request

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


class Gate:
    """A dependency of routes. roles: those whose keys `check` lets through, told in the API's description."""

    def __init__(self, check: Callable[[str | None], object], roles: frozenset[Role]) -> None:
        self._check, self.roles = check, roles

    async def __call__(self, request: Request) -> None:
        """Raises Unauthorized, Forbidden."""
        self._check(request.headers.get("authorization"))


ASKERS: Final = frozenset(role for role in Role if role.asks)
SENDERS: Final = frozenset(role for role in Role if role.sends)


def operators_only(door: Door) -> dict[str, Any]:
    """Arguments of a router: everybody else is turned away before anything is looked at."""
    return {
        "dependencies": [Depends(Gate(door.check_operator, frozenset({Role.OPERATOR})))],
        "responses": {503: {"description": "The alert ledger can't be reached now; see Retry-After."}},
    }


def askers_only(door: Door) -> dict[str, Any]:
    """Arguments of a router or route: a writer's key is turned away. Whose rows may be read, `door.reader` says."""
    return {"dependencies": [Depends(Gate(door.reader, ASKERS))]}


def senders_only(door: Door) -> dict[str, Any]:
    """Arguments of a router or route: a reader's key is turned away. For whom it sends, `door.sender` says."""
    return {"dependencies": [Depends(Gate(door.sender, SENDERS))]}


def author(door: Door, request: Request, who: str) -> str:
    """`ana (key 3f9a1c22 of acme)`, without a key `ana`, of a nobody `local`."""
    key = door.key(request.headers.get("authorization"))
    if key is None:
        return who or "local"
    return f"{who} (key {key.id} of {key.tenant})" if who else f"key {key.id} of {key.tenant}"
