"""Which addresses a webhook may reach: the internet's, and private ones only where the operator allows them (P13).

What counts is `permitted`, asked with the address that is connected to, after names are resolved, so that no spelling and no change
of a name's address gets around it. `check_url` only tells the same earlier, where a configuration is read.
Networks: IANA's registries of special-purpose addresses (RFC 6890 and its updates), whatever the version of Python knows of them.
"""

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Final

import httpx

ALLOW: Final = "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS=1"
Resolve = Callable[[str, int], list[str]]

NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
        "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's wire server: a public number that only virtual machines reach, with their credentials
    )
)  # fmt: skip
PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
# Forms that carry an IPv4 address: mapped, and NAT64 as networks without IPv4 use it to reach the internet. Judged by what they carry.
CARRIERS: Final = tuple(ipaddress.IPv6Network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96"))


class BadAddress(ValueError):
    """A URL that a webhook may not have; the text doesn't repeat it."""


def permitted(address: str, *, allow_private: bool) -> bool:
    """Whether this IP address, as a resolver writes it, may be connected to."""
    if allow_private:
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and any(ip in network for network in CARRIERS):
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in NOT_PUBLIC_4)
    return ip in PUBLIC_6 and not any(ip in network for network in NOT_PUBLIC_6)


def check_url(url: str, *, allow_private: bool) -> httpx.URL:
    """The URL, taken apart, or `BadAddress`: not http(s), no host, with a user name in it, or with an address that may not be reached.

    Asks no resolver: a name that leads to a private address is found when it is connected to.
    """
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        raise BadAddress("it can't be read as a URL") from None
    if parts.scheme not in ("http", "https"):
        raise BadAddress("its scheme isn't http or https; write the whole URL, as https://…")
    if parts.userinfo or "@" in parts.netloc.decode("ascii", "replace"):
        raise BadAddress("it has a user name or password before the host; a webhook's secret is in its path or its signature")
    if not parts.host or any(c in parts.host for c in " %\\"):
        raise BadAddress("it has no host")
    if parts.port is not None and not 0 < parts.port < 65_536:
        raise BadAddress("its port isn't between 1 and 65535")
    host = parts.host.rstrip(".").lower()
    odd = _other_spelling(host)
    if odd is not None:
        raise BadAddress(f"its host is a number that stands for {odd}; write the address as four decimal numbers")
    if allow_private:
        return parts
    literal = _literal(host)
    if (
        (literal is not None and not permitted(literal, allow_private=False))
        or host == "localhost"
        or host.endswith(".localhost")
    ):
        raise BadAddress(f"its host is a private address; set {ALLOW} if webhooks may reach those")
    return parts


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, in the resolver's order. Raises OSError (`socket.gaierror`)."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _literal(host: str) -> str | None:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.partition("%")[0]))
    return None


def _other_spelling(host: str) -> str | None:
    """The IPv4 address that `0x7f.1`, `2130706433` or `0177.0.0.1` stands for; None for a name and for a plain address."""
    if _literal(host) is not None:
        return None
    with contextlib.suppress(OSError, UnicodeError):
        return socket.inet_ntoa(socket.inet_aton(host))
    return None
