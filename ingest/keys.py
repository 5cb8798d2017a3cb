"""API keys. A key is shown once, when it is made; what is kept is its hash."""

import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tallystick.ingest.errors import KeysDamaged

log = logging.getLogger(__name__)

_FILE: Final = "keys.json"
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_Stamp = tuple[int, int, int]


class BadTenant(ValueError):
    """A tenant's name is letters, digits, '.', '_' and '-', at most 64."""


class Role(StrEnum):
    """What a key is for. All but an operator's are bound to their tenant."""

    MEMBER = "member"
    """Sends, and asks."""

    WRITER = "writer"
    """Sends spans and outcomes, and asks nothing but how the budgets stand that they count towards: for a service, whose key lies about."""

    READER = "reader"
    """Asks, and sends nothing."""

    OPERATOR = "operator"
    """Sends for, and asks about, every tenant; changes budgets, silences and corrections."""

    @property
    def sends(self) -> bool:
        """Whether spans and outcomes may be sent with it."""
        return self is not Role.READER

    @property
    def asks(self) -> bool:
        """Whether what stands in the ledger may be asked with it."""
        return self is not Role.WRITER


@dataclass(frozen=True)
class KeyInfo:
    """A key as it may be shown. Times are UTC."""

    id: str
    tenant: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None

    @property
    def operator(self) -> bool:
        """Whether it is every tenant's."""
        return self.role is Role.OPERATOR


class KeyStore:
    """Keys of one data directory, or in a file of their own, shared by processes: each change is a new file in place of the old one.

    A key is `ts_ID_SECRET` with 256 random bits, so that a plain SHA-256 of it can't be reversed.
    """

    def __init__(self, data: Path, file: Path | None = None) -> None:
        self._path = (file or data / _FILE).absolute()
        self._known: tuple[_Stamp | None, dict[str, KeyInfo]] = (None, {})

    def create(self, tenant: str, role: Role = Role.MEMBER) -> str:
        """A new key. Raises BadTenant, KeysDamaged."""
        if not _TENANT.fullmatch(tenant):
            raise BadTenant(f"{tenant!r} is no tenant's name: letters, digits, '.', '_' and '-', at most 64")
        id_ = secrets.token_hex(4)
        key = f"ts_{id_}_{secrets.token_urlsafe(32)}"
        with self._change() as rows:
            rows.append({"hash": _hash(key), "id": id_, "tenant": tenant, "role": role, "created_at": _now(), "revoked_at": None})
        return key

    def all(self) -> list[KeyInfo]:
        """Raises KeysDamaged."""
        return [_info(row) for row in self._read()]

    def revoke(self, id_: str) -> bool:
        """Whether there was such a key in force. Raises KeysDamaged."""
        with self._change() as rows:
            for row in rows:
                if row["id"] == id_ and row["revoked_at"] is None:
                    row["revoked_at"] = _now()
                    return True
        return False

    def load(self) -> None:
        """Read the keys, so that `find` has some to keep to should the file be damaged later. Raises KeysDamaged."""
        stamp = self._stamp()
        self._known = stamp, {row["hash"]: _info(row) for row in self._read()}

    def find(self, key: str) -> KeyInfo | None:
        """Whose key it is; None if it is nobody's or revoked. Notices changes that other processes make.

        While the file is damaged, the keys known before stay as they were: nobody is let in or shut out by it.
        """
        stamp, known = self._stamp(), self._known
        if stamp != known[0]:
            try:
                self.load()
            except (KeysDamaged, OSError) as error:
                self._known = stamp, known[1]
                log.error("%s; until it is mended the keys known before hold, %d of them", error, len(known[1]))
            else:
                if stamp is None and known[1]:
                    log.warning("%s is gone: no key is in force any more", self._path)
        found = self._known[1].get(_hash(key))
        return found if found and found.revoked_at is None else None

    def _stamp(self) -> "_Stamp | None":
        """Changes with every change of the file, of its permissions too; None where there is none, or none that can be looked at."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ctime_ns, status.st_ino, status.st_size

    def _read(self) -> list[dict[str, Any]]:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            rows: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise self._damaged("it is empty" if not text.strip() else "it isn't JSON; was its end cut off?") from None
        if not isinstance(rows, list):
            raise self._damaged("it holds no list of keys")
        for number, row in enumerate(rows, 1):
            if (wrong := _wrong(row)) is not None:
                raise self._damaged(f"in key {number} of {len(rows)}, {wrong}")
        return rows

    def _damaged(self, why: str) -> KeysDamaged:
        return KeysDamaged(f"{self._path} is damaged: {why}")

    @contextmanager
    def _change(self) -> "Iterator[list[dict[str, Any]]]":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            rows = self._read()
            yield rows
            temporary = self._path.with_suffix(".new")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
                json.dump(rows, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(self._path)


def _info(row: dict[str, Any]) -> KeyInfo:
    revoked = row["revoked_at"]
    return KeyInfo(
        row["id"],
        row["tenant"],
        _role(row),
        datetime.fromisoformat(row["created_at"]),
        datetime.fromisoformat(revoked) if revoked else None,
    )


def _role(row: dict[str, Any]) -> Role:
    # Keys had no roles but this one before there were roles.
    return Role(row["role"]) if "role" in row else Role.OPERATOR if row["operator"] else Role.MEMBER


def _wrong(row: Any) -> str | None:
    """What is wrong with a key of the file, None if nothing is."""
    if not isinstance(row, dict):
        return "it is no object"
    left_out = "role" if "operator" in row and "role" not in row else "operator"
    return next((what for name, (fits, what) in _FORM.items() if name != left_out and not fits(row.get(name))), None)


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_FORM: Final[Mapping[str, tuple[Callable[[Any], bool], str]]] = {
    "hash": (lambda value: isinstance(value, str) and len(value) == 64, "`hash` isn't 64 characters"),
    "id": (lambda value: isinstance(value, str) and value != "", "`id` is no text"),
    "tenant": (lambda value: isinstance(value, str) and _TENANT.fullmatch(value) is not None, "`tenant` is no tenant's name"),
    "role": (lambda value: value in list(Role), f"`role` is none of {', '.join(Role)}"),
    "operator": (lambda value: isinstance(value, bool), "`operator` is neither true nor false"),
    "created_at": (_is_time, "`created_at` is no time with a zone"),
    "revoked_at": (lambda value: value is None or _is_time(value), "`revoked_at` is neither null nor a time with a zone"),
}
"""Fields of a key in the file → what each must be, what is said where it isn't. Values aren't told: they may be secret."""


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
