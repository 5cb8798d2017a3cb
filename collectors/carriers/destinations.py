"""Which hosts are services of one's own, that may be told whom a call is for. Decided by the name, which isn't resolved."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from importlib.resources import files
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from tallystick.collectors.failures import warn_once

PRIVATE_NETWORKS: Final = tuple(
    map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"))
)
"""Loopback, RFC 1918, RFC 4193. Not the link-local networks: there the metadata services of the clouds answer."""

PRIVATE_SUFFIXES: Final = (
    ".internal", ".local", ".localhost", ".localdomain", ".lan", ".home.arpa", ".svc", ".consul",
)  # fmt: skip
"""Names that no public DNS has. Kubernetes' `*.svc.cluster.local` is one of `.local`."""

_SINGLE_LABEL: Final = re.compile(r"[a-z_][a-z0-9_-]*")
"""Begins with a letter: `134744072` and `0x8080808` are 8.8.8.8 to a resolver."""

_PATTERN: Final = re.compile(r"!?[a-z0-9._:*?\[\]-]+")


class Destinations:
    """Private hosts and those that match a pattern, except for `!` patterns and, always, the hosts of model providers."""

    def __init__(self, patterns: Sequence[str] = (), *, private: bool = True) -> None:
        self._private = private
        self._included = tuple(pattern for pattern in patterns if not pattern.startswith("!"))
        self._excluded = tuple(pattern[1:] for pattern in patterns if pattern.startswith("!"))
        self._decide = lru_cache(maxsize=1024)(self._decided)

    def include(self, host: str) -> bool:
        """Whether a request to `host` (a name or an address, without its port) may carry attribution."""
        return self._decide(host)

    @property
    def anyone(self) -> bool:
        """False where propagation is off."""
        return self._private or bool(self._included)

    def _decided(self, host: str) -> bool:
        host = host.lower().rstrip(".")
        if host.startswith("["):
            host = host[1:].partition("]")[0]
        if not host or _matches(host, self._excluded) or _matches(host, provider_hosts()):
            return False
        return (self._private and is_private(host)) or _matches(host, self._included)


def destinations(setting: str) -> Destinations:
    """From `TALLYSTICK_PROPAGATE_TO`: `off`, or patterns beside the private hosts. What is no pattern is left out, with a warning."""
    patterns = [part for part in re.split(r"[,\s]+", setting.lower()) if part]
    if patterns == ["off"]:
        return Destinations(private=False)
    for pattern in (pattern for pattern in patterns if not _PATTERN.fullmatch(pattern)):
        warn_once(
            f"TALLYSTICK_PROPAGATE_TO {pattern}",
            f"TALLYSTICK_PROPAGATE_TO: {pattern!r} is no host name with * and ?; it is left out, the others count",
        )
    return Destinations([pattern for pattern in patterns if _PATTERN.fullmatch(pattern)])


def is_private(host: str) -> bool:
    """Whether `host` (lowercase) is of a private network, as far as its name or address tells."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.endswith(PRIVATE_SUFFIXES) or bool(_SINGLE_LABEL.fullmatch(host))
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address in network for network in PRIVATE_NETWORKS)


@cache
def provider_hosts() -> tuple[str, ...]:
    """Patterns of the hosts of model providers and gateways, which are told nothing whatever the settings say."""
    lines = files("tallystick.collectors.carriers").joinpath("provider_hosts.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def _matches(host: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(host, pattern) for pattern in patterns)
