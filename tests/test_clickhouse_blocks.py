"""Native blocks for clients of a protocol version, read back by clickhouse-connect."""

from typing import Any

import pytest
from clickhouse_connect.driver.ctypes import RespBuffCls
from clickhouse_connect.driver.query import QueryContext
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.store import Store
from tallystick.server.clickhouse_blocks import CUSTOM_SERIALIZATION, UnknownLayout, for_version, no_rows


class Bytes:
    """A response's body as clickhouse-connect takes it."""

    def __init__(self, data: bytes) -> None:
        self.last_message = b""
        self.exception_tag = None
        self.gen = iter([data])

    def close(self) -> None: ...


def read(data: bytes, block_info: bool) -> Any:
    context = QueryContext(query="SELECT 1")
    context.block_info = block_info
    buffer: Any = RespBuffCls
    found: Any = NativeTransform().parse_response(buffer(Bytes(data)), context)
    return found.column_names, [list(row) for row in found.result_rows]


VALUES = {
    "Bool": "number % 2", "UInt8": "number", "Int16": "number", "UInt32": "number", "Int64": "-number", "UInt128": "number", "Int256": "number",
    "Float32": "number", "Float64": "number / 3", "Date": "number", "Date32": "number", "DateTime('UTC')": "number",
    "DateTime64(9, 'UTC')": "number", "UUID": "toUUID('00000000-0000-0000-0000-00000000000' || toString(number % 10))",
    "IPv4": "toIPv4(number)", "IPv6": "toIPv6('::1')", "Decimal(9, 2)": "number", "Decimal(18, 12)": "number", "Decimal(38, 12)": "number",
    "Decimal(76, 1)": "number", "String": "repeat('x', number * 40)", "FixedString(7)": "toString(number)",
    "Enum8('a, (' = 0, 'b\\'' = 1)": "number % 2", "Enum16('a' = 0, 'b' = 1)": "number % 2",
    "LowCardinality(String)": "toString(number % 3)", "LowCardinality(Nullable(String))": "if(number % 2, NULL, toString(number))",
    "Nullable(Decimal(18, 12))": "if(number % 2, NULL, number)", "Nullable(String)": "if(number % 2, NULL, toString(number))",
    "Array(String)": "arrayMap(x -> toString(x), range(number % 4))", "Array(Array(UInt16))": "[range(number % 4), []]",
    "Array(LowCardinality(String))": "arrayMap(x -> toString(x), range(number % 4))", "Map(String, UInt8)": "map('a', number)",
    "Map(LowCardinality(String), String)": "map('a', toString(number))", "Tuple(UInt8, String)": "(number, toString(number))",
    "Tuple(a UInt8, `b c` Array(Nullable(Int8)))": "(number, [NULL, 1])", "Array(Tuple(LowCardinality(String), UInt8))": "[('a', number)]",
}  # fmt: skip


def column(kind: str, name: str = "c") -> str:
    written = kind.replace("\\", "\\\\").replace("'", "\\'")
    return f"CAST({VALUES[kind]}, '{written}') AS {name}"


def native(store: Store, columns: str, rows: int) -> bytes:
    with store.reader("acme", {**READER_SETTINGS, "max_block_size": 5}) as reader:
        return reader.raw_query(f"SELECT {columns} FROM numbers({rows})", fmt="Native")


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("rows", [1, 12])
def test_every_type(chdb_store: Store, kind: str, rows: int) -> None:
    plain = native(chdb_store, f"number, {column(kind)}, 'end' AS e", rows)
    assert for_version(plain, 0) == plain
    with_info = for_version(plain, 1)
    assert read(with_info, block_info=True) == read(plain, block_info=False)
    blocks = (len(with_info) - len(plain)) // 8
    assert len(for_version(plain, CUSTOM_SERIALIZATION)) == len(with_info) + 3 * blocks
    assert len(for_version(plain, CUSTOM_SERIALIZATION - 1)) == len(with_info)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6), rows=st.integers(1, 30))
def test_any_columns(chdb_store: Store, kinds: list[str], rows: int) -> None:
    plain = native(chdb_store, ", ".join(column(kind, f"c{n}") for n, kind in enumerate(kinds)), rows)
    assert read(for_version(plain, 1), block_info=True) == read(plain, block_info=False)


def test_the_byte_after_the_type(chdb_store: Store) -> None:
    found = for_version(native(chdb_store, "7::UInt8 AS a, 'x' AS b", 1), CUSTOM_SERIALIZATION)
    assert found == b"\x01\x00\x02\xff\xff\xff\xff\x00\x02\x01\x01a\x05UInt8\x00\x07\x01b\x06String\x00\x01x"


def test_no_rows() -> None:
    header = no_rows([("a", "UInt8"), ("é" * 100, "Array(String)")])
    assert read(header, block_info=False) == (("a", "é" * 100), [])
    assert read(for_version(header, 1), block_info=True) == (("a", "é" * 100), [])
    assert for_version(b"", 54460) == b""


@pytest.mark.parametrize("kind", ["Variant(String, UInt8)", "JSON", "Dynamic", "Array(Variant(String, UInt8))", "Novel"])
def test_what_is_not_known_is_told(kind: str) -> None:
    block = no_rows([("a", kind)])
    one_row = block[:1] + b"\x01" + block[2:] + bytes(64)
    with pytest.raises(UnknownLayout):
        for_version(one_row, 1)
