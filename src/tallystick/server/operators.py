"""Routes for operators alone, and as whom they are remembered."""

from typing import Annotated, Any

from fastapi import Depends, Query, Request

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


def operators_only(door: Door) -> dict[str, Any]:
    """Arguments of a router: everybody else is turned away before anything is looked at."""

    async def check(request: Request) -> None:
        door.check_operator(request.headers.get("authorization"))

    return {
        "dependencies": [Depends(check)],
        "responses": {
            401: {"description": "A key is needed, or this one isn't known."},
            403: {"description": "The key is a tenant's: an operator's is needed."},
            503: {"description": "The alert ledger can't be reached now; see Retry-After."},
        },
    }


def author(door: Door, request: Request, who: str) -> str:
    """`ana (key 3f9a1c22 of acme)`, without a key `ana`, of a nobody `local`."""
    key = door.key(request.headers.get("authorization"))
    if key is None:
        return who or "local"
    return f"{who} (key {key.id} of {key.tenant})" if who else f"key {key.id} of {key.tenant}"
