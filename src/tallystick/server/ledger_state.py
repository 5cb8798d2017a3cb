"""Whether the ledger has changed: what ETags are made of (RFC 9110, 8.8.3)."""

import hashlib
import json
import threading
from collections import OrderedDict
from importlib import metadata
from importlib.resources import files
from typing import Any, Final

from tallystick.ingest.cluster import Kind
from tallystick.ingest.store import Store

_TENANTS: Final = 10_000
"""Tenants whose state is remembered."""


def _sql(name: str) -> str:
    return files("tallystick.attribution").joinpath(f"queries/{name}.sql").read_text(encoding="utf-8")


class LedgerState:
    """What can be told of the ledger without asking it the question. Threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts, self._entries = _sql("ledger_parts"), _sql("ledger_entries")
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, tenant: str | None) -> str:
        """Changes with every entry that is made or deleted for its age; of the embedded ledger's tenant with nothing else. None is all tenants'.

        It is the same whichever process is asked. Ask before the question is asked: an answer may then be newer than its state, which costs one
        more answer, but never older.
        """
        to = self._store.dialect
        if to.replicated:
            # Which replica has the last part isn't known here.
            return self._of_entries(tenant)
        params = {"database": to.rows}
        parts = " ".join(str(host.command(self._parts, parameters=params)) for host in self._store.each_host(to.rows))
        # A server's ledger is too large to be looked through for one tenant with every insert.
        return self._remembered(tenant, parts) if tenant is not None and to.kind is Kind.EMBEDDED else parts

    def _remembered(self, tenant: str, parts: str) -> str:
        with self._lock:
            known = self._known.get(tenant)
        if known and known[0] == parts:
            return known[1]
        entries = self._of_entries(tenant)
        with self._lock:
            self._known[tenant] = parts, entries
            self._known.move_to_end(tenant)
            if len(self._known) > _TENANTS:
                self._known.popitem(last=False)
        return entries

    def _of_entries(self, tenant: str | None) -> str:
        sql = self._entries if tenant is not None else self._entries.replace("tenant = {tenant:String}", "1")
        return str(self._store.client().command(sql, parameters={"tenant": tenant or ""}))

    def last_entered_ms(self, tenant: str | None) -> int:
        """When the last entry was made, milliseconds since 1970; 0 where there is none."""
        condition = "" if tenant is None else "WHERE tenant = {tenant:String}"
        found = self._store.client().query(
            f"SELECT toUnixTimestamp64Milli(max(entered_at)) FROM ledger {condition}",  # noqa: S608
            parameters={"tenant": tenant or ""},
        )
        return int(found.result_rows[0][0])


def etag(tenant: str | None, state: str, question: Any) -> str:
    """Of an answer: by whom it was asked, of which ledger, and what. question: anything that JSON has, with times made absolute."""
    parts = [metadata.version("tallystick"), tenant, state, question]
    return f'"{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"'


def unchanged(if_none_match: str | None, tag: str) -> bool:
    """Whether the client has the answer already (RFC 9110, 13.1.2). `*` isn't taken: nobody can know what they have by it."""
    return if_none_match is not None and tag in (one.strip().removeprefix("W/") for one in if_none_match.split(","))
