"""Who a request comes from."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from tallystick.ingest.keys import KeyInfo, KeyStore, Role
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.receiver import Sender

DEFAULT_TENANT: Final = "default"
"""Whose the spans are that come without a key."""

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip")


class Unauthorized(PayloadError):
    """The key is missing, unknown or revoked."""

    def __init__(self, message: str) -> None:
        super().__init__(
            401, "unauthorized", message, "Send `Authorization: Bearer KEY`; `tallystick keys create --tenant NAME` makes a key."
        )


class Forbidden(PayloadError):
    """The key isn't for this. The hint names the roles that are."""

    def __init__(self, role: Role, needed: str) -> None:
        super().__init__(
            403,
            "forbidden",
            f"A {role}'s key isn't for this.",
            f"Ask with {needed}'s key; `tallystick keys create --tenant NAME --role ROLE` makes one.",
        )


class Door:
    """Asks for keys, but on a loopback address, where whoever can connect could as well read the directory."""

    def __init__(self, keys: KeyStore, host: str) -> None:
        self._keys = keys
        self.open = is_loopback(host)

    def key(self, authorization: str | None) -> KeyInfo | None:
        """The key that was sent; None where none was and none is needed. Raises Unauthorized."""
        if authorization is None:
            if self.open:
                return None
            raise Unauthorized("A key is needed.")
        scheme, _, secret = authorization.partition(" ")
        found = self._keys.find(secret.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Unauthorized("The key is unknown or revoked.")
        return found

    def sender(self, authorization: str | None) -> Sender:
        """For whom spans are stored. Raises Unauthorized, Forbidden where the key only asks."""
        key = self.key(authorization)
        if key is None:
            return Sender(DEFAULT_TENANT, False)
        if not key.role.sends:
            raise Forbidden(key.role, "a writer's, a member's or an operator")
        return Sender(key.tenant, key.operator)

    def reader(self, authorization: str | None) -> str | None:
        """Whose rows may be read; None is everybody's. Raises Unauthorized, Forbidden where the key only sends."""
        key = self.key(authorization)
        if key is None or key.operator:
            return None
        if not key.role.asks:
            raise Forbidden(key.role, "a reader's, a member's or an operator")
        return key.tenant

    def check_operator(self, authorization: str | None) -> None:
        """Raises Forbidden unless everybody's rows may be read and changed, Unauthorized."""
        key = self.key(authorization)
        if key is not None and not key.operator:
            raise Forbidden(key.role, "an operator")

    def suspicious(self, headers: Mapping[str, str]) -> bool:
        """A request without a key that a page elsewhere or a proxy makes in somebody's name: its Host isn't this machine's, or it was forwarded."""
        if not self.open or "authorization" in headers:
            return False
        name = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else headers["host"]
        return any(header in headers for header in _FORWARDED) or not is_loopback(name.strip("[]"))


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
