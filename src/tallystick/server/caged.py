"""Questions of ours in the cage of a key's tenant: not a user's text, and so without its check."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tallystick.attribution.spend import Ask
from tallystick.attribution.user_sql import READER_SETTINGS, Checked, result
from tallystick.client import result as typed
from tallystick.ingest.store import Store

LIMITS: Final[Mapping[str, Any]] = {**READER_SETTINGS, "max_query_size": 16 << 20}
"""Prices of all models that were called travel with the query."""

_OPERATORS_S: Final = 120
"""Seconds that a question of an operator's may take: every call of a period is priced, of all tenants."""


def caged(store: Store, tenant: str | None, mark: str = "", limits: Mapping[str, Any] | None = None) -> Ask:
    """Questions of ours, of a tenant's rows (None: everybody's). mark: what KILL QUERY finds them by. Raises BadQuery."""
    limits = limits or (LIMITS if tenant is not None else {**LIMITS, "max_execution_time": _OPERATORS_S})

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with store.reader(tenant, limits) as reader:
            found = result(reader, Checked(sql, dict(params)), mark)
        return typed(((column.name, column.type) for column in found.columns), found.rows, found.elapsed_ms).dicts()

    return ask
