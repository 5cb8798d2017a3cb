"""What a request that arrives tells of whom it is for: its baggage where its sender is trusted, and rules."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from tallystick.collectors.carriers.baggage import NAME, read
from tallystick.collectors.carriers.rules import Rule, rules, rules_of_file
from tallystick.collectors.failures import report, warn_once
from tallystick.collectors.scope import anything_arrived, arrived


class Head(NamedTuple):
    """What is looked at of a request."""

    header: Callable[[str], str]
    """The value of a header by its lowercase name, several joined by commas, empty where there is none."""
    path: str
    query: str
    peer: str | None
    """Address at the other end of the connection, None where it isn't told."""


class Trust:
    """Whose baggage counts: everybody's, nobody's, or that of peers in networks."""

    def __init__(self, networks: Sequence[IPv4Network | IPv6Network] | None) -> None:
        """None is everybody."""
        self._networks = networks

    @property
    def everybody(self) -> bool:
        return self._networks is None

    @property
    def anybody(self) -> bool:
        """Messages of a broker have no peer: they count unless nobody's do."""
        return self._networks is None or bool(self._networks)

    def includes(self, peer: str | None) -> bool:
        if self._networks is None:
            return True
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


def trust(setting: str) -> Trust:
    """From `TALLYSTICK_TRUST_BAGGAGE`: `all`, `none`, or addresses and networks. What is none of these is left out, with a warning."""
    if setting in ("", "all"):
        return Trust(None)
    networks: list[IPv4Network | IPv6Network] = []
    for part in re.split(r"[,\s]+", setting):
        try:
            networks += [ip_network(part, strict=False)] if part and part != "none" else []
        except ValueError:
            warn_once(
                f"TALLYSTICK_TRUST_BAGGAGE {part}",
                f"TALLYSTICK_TRUST_BAGGAGE: {part!r} is neither all, none, an address nor a network; it is left out",
            )
    return Trust(networks)


class Incoming:
    """Reads requests. Its fields are replaced when the collector starts, `rules` also by `tallystick.scope_rules`."""

    def __init__(self) -> None:
        self.trust = Trust(None)
        self.rules: tuple[Rule, ...] = ()

    def of(self, head: Callable[[], Head]) -> Mapping[str, str]:
        """Attribute name → value of what a request brings: of several rules for a name the first, rules before baggage."""
        try:
            asked = head()
            header = asked.header(NAME)
            found = read(header) if header and self.trust.includes(asked.peer) else {}
            ruled: dict[str, str] = {}
            for rule in self.rules:
                if rule.attribute not in ruled and (value := rule.value(asked)):
                    ruled[rule.attribute] = value
        except Exception as error:
            report("reading the scope of a request", error)
            return {}
        return found | ruled


def within(
    attributes: Mapping[str, str], handle: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Awaitable[Any]:
    """`handle(*args, **kwargs)` with the attributes of its request, and with none of another."""
    if not attributes and not anything_arrived():
        return handle(*args, **kwargs)
    return _within(attributes, handle, args, kwargs)


async def _within(
    attributes: Mapping[str, str], handle: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with arrived(attributes):
        return await handle(*args, **kwargs)


INCOMING: Final = Incoming()


def scope_rules(given: str | Iterable[Mapping[str, Any]]) -> None:
    """The rules of this process, in place of those it had: a TOML file's, or a list in the same words. See docs/propagation.md.

    Of a rule that can't be understood a warning says what is wrong; the others count.
    """
    INCOMING.rules = rules_of_file(given) if isinstance(given, str) else rules(given, "scope_rules")
