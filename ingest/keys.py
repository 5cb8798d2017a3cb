"""API keys. A key is shown once, when it is made; what is kept is its hash."""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_FILE: Final = "keys.json"
_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class BadTenant(ValueError):
    """A tenant's name is letters, digits, '.', '_' and '-', at most 64."""


@dataclass(frozen=True)
class KeyInfo:
    """A key as it may be shown. operator: may see all tenants and send for any. Times are UTC."""

    id: str
    tenant: str
    operator: bool
    created_at: datetime
    revoked_at: datetime | None = None


class KeyStore:
    """Keys of one data directory, shared by processes: each change is a new file in place of the old one.

    A key is `ts_ID_SECRET` with 256 random bits, so that a plain SHA-256 of it can't be reversed.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / _FILE
        self._stamp: tuple[int, int] | None = None
        self._by_hash: dict[str, KeyInfo] = {}

    def create(self, tenant: str, operator: bool = False) -> str:
        """A new key. Raises BadTenant."""
        if not _TENANT.fullmatch(tenant):
            raise BadTenant(f"{tenant!r} is no tenant's name: letters, digits, '.', '_' and '-', at most 64")
        id_ = secrets.token_hex(4)
        key = f"ts_{id_}_{secrets.token_urlsafe(32)}"
        with self._change() as rows:
            rows.append(
                {"hash": _hash(key), "id": id_, "tenant": tenant, "operator": operator, "created_at": _now(), "revoked_at": None}
            )
        return key

    def all(self) -> list[KeyInfo]:
        return [_info(row) for row in self._read()]

    def revoke(self, id_: str) -> bool:
        """Whether there was such a key in force."""
        with self._change() as rows:
            for row in rows:
                if row["id"] == id_ and row["revoked_at"] is None:
                    row["revoked_at"] = _now()
                    return True
        return False

    def find(self, key: str) -> KeyInfo | None:
        """Whose key it is; None if it is nobody's or revoked. Notices changes that other processes make."""
        try:
            status = self._path.stat()
            stamp = status.st_mtime_ns, status.st_ino
        except FileNotFoundError:
            return None
        if stamp != self._stamp:
            self._by_hash = {row["hash"]: _info(row) for row in self._read()}
            self._stamp = stamp
        found = self._by_hash.get(_hash(key))
        return found if found and found.revoked_at is None else None

    def _read(self) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return []
        return rows

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
        row["operator"],
        datetime.fromisoformat(row["created_at"]),
        datetime.fromisoformat(revoked) if revoked else None,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
