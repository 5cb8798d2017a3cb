"""What a price id of the ledger stands for, whatever book it was priced by."""

import json
from importlib.resources import files
from typing import Final

from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.store import Store, read_sql

_IN_USE: Final = files("tallystick.attribution").joinpath("queries/price_in_use.sql").read_text(encoding="utf-8")
_PRICE: Final = read_sql("price_by_id")


def recorded_price(store: Store, tenant: str | None, price_id: str) -> dict[str, str] | None:
    """Columns of schema/sql/price_by_id.sql as text; None if the ledger never had the price.

    A tenant is told of prices of its own charges only: others say which models are called here, and on what terms.
    """
    with store.reader(tenant, READER_SETTINGS) as reader:
        params = {"price_id": price_id}
        if tenant is not None and not reader.raw_query(_IN_USE, params):
            return None
        found: dict[str, str] | None = json.loads(reader.raw_query(_PRICE, params, fmt="JSONEachRow") or "null")
    return found
