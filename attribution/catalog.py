"""What clients of ClickHouse ask of a server before their user asks anything: its version, and which tables and columns there are.

Nothing of the engine's own system tables is shown. A query's `system.columns` becomes `values(…)` with what is told here, and the
query's tree is then checked as any other.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from tallystick.attribution.meanings import ABOUT, meaning
from tallystick.attribution.user_sql import Column

Tree = dict[str, Any]
Row = tuple[str | int | None, ...]


class Table(NamedTuple):
    """A table of `system`. structure: as `values` takes it."""

    structure: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Catalog:
    """What is told of this server. views: name → columns. settings: name → value of those that a client may change."""

    database: str
    version: str
    revision: int
    timezone: str
    views: Mapping[str, Sequence[Column]]
    settings: Mapping[str, str]

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Tables of `system` by name: their columns are those of ClickHouse that clients ask for."""
        return {
            "one": Table("dummy UInt8", [(0,)]),
            "databases": Table(
                "name String, engine String, data_path String, uuid String, comment String",
                [(self.database, "Atomic", "", "", "")],
            ),
            "tables": Table(
                "database String, name String, uuid String, engine String, is_temporary UInt8, create_table_query String, engine_full String,"
                " partition_key String, sorting_key String, primary_key String, sampling_key String, total_rows Nullable(UInt64),"
                " total_bytes Nullable(UInt64), comment String",
                [
                    (
                        self.database,
                        view,
                        "",
                        "View",
                        0,
                        self.statement(view),
                        "",
                        "",
                        "",
                        "",
                        "",
                        None,
                        None,
                        ABOUT.get(view, ""),
                    )
                    for view in sorted(self.views)
                ],
            ),
            "columns": Table(
                "database String, table String, name String, type String, position UInt64, default_kind String, default_expression String,"
                " comment String, is_in_partition_key UInt8, is_in_sorting_key UInt8, is_in_primary_key UInt8, is_in_sampling_key UInt8,"
                " character_octet_length Nullable(UInt64), numeric_precision Nullable(UInt64), numeric_precision_radix Nullable(UInt64),"
                " numeric_scale Nullable(UInt64), datetime_precision Nullable(UInt64)",
                [
                    (
                        self.database,
                        view,
                        column.name,
                        column.type,
                        at,
                        "",
                        "",
                        meaning(view, column.name),
                        0,
                        0,
                        0,
                        0,
                        *_sizes(column.type),
                    )
                    for view in sorted(self.views)
                    for at, column in enumerate(self.views[view], 1)
                ],
            ),
            "settings": Table(
                "name String, value String, changed UInt8, description String, min Nullable(String), max Nullable(String), readonly UInt8,"
                " type String, default String",
                [(name, value, 0, "", None, None, 0, "String", value) for name, value in self.settings.items()],
            ),
            "data_type_families": Table(
                "name String, case_insensitive UInt8, alias_to String", [(name, 0, "") for name in _TYPES]
            ),
            "table_engines": Table("name String", [("View",)]),
        }

    def statement(self, view: str) -> str:
        """`CREATE VIEW` with its columns, as a client shows it."""
        columns = ",\n".join(f"    `{column.name}` {column.type}" for column in self.views[view])
        return f"CREATE VIEW {self.database}.{view}\n(\n{columns}\n)"

    def constant(self, function: str) -> str | int | None:
        """What a function answers that tells of the server; None of any other."""
        constants: dict[str, str | int] = {
            "version": self.version,
            "revision": self.revision,
            "timezone": self.timezone,
            "servertimezone": self.timezone,
            "displayname": "tallystick",
            "hostname": "tallystick",
            "fqdn": "tallystick",
            "currentdatabase": self.database,
            "database": self.database,
            "schema": self.database,
            "currentuser": "default",
            "user": "default",
        }
        return constants.get(function.lower())


_TYPES: Final = (
    "Array", "Bool", "Date", "Date32", "DateTime", "DateTime64", "Decimal", "Enum16", "Enum8", "FixedString", "Float32", "Float64", "Int128",
    "Int16", "Int256", "Int32", "Int64", "Int8", "LowCardinality", "Map", "Nullable", "String", "Tuple", "UInt128", "UInt16", "UInt256",
    "UInt32", "UInt64", "UInt8", "UUID",
)  # fmt: skip


def told(tree: Tree, catalog: Catalog) -> bool:
    """Put what the catalog tells into a query's tree. Whether there was anything to put."""
    asked = False
    names: dict[str, str] = {}
    for node in _nodes(tree):
        if node.get("type") == "TableExpression":
            place = node.get("database_and_table_name", {})
            schema, _, name = str(place.get("name")).partition(".")
            if schema.lower() == "system" and name in catalog.tables:
                alias = str(place.get("alias", name))
                names.setdefault(f"{schema}.{name}", alias)
                del node["database_and_table_name"]
                node["table_function"] = _values(catalog.tables[name], alias)
                asked = True
    for node in _nodes(tree):
        match node.get("type"):
            case "Identifier" if (table := ".".join(str(node["name"]).split(".")[:2])) in names:
                parts = [names[table], *str(node["name"]).split(".")[2:]]
                node["name"], node["name_parts"] = ".".join(parts), parts
            case "SelectQuery":
                for column in node.get("select", {}).get("children", []):
                    if _is_constant(column, catalog):
                        column.setdefault("alias", f"{column['name']}()")
            case _:
                pass
    for node in _nodes(tree):
        if _is_constant(node, catalog):
            value = catalog.constant(str(node["name"]))
            constant = _literal(value)
            if isinstance(value, int):
                # Clients read a number into the type that the function has.
                constant = {
                    "type": "Function",
                    "name": "toUInt32",
                    "arguments": {"type": "ExpressionList", "children": [constant]},
                }
            named = {key: node[key] for key in ("alias",) if key in node}
            node.clear()
            node.update(constant | named)
            asked = True
    return asked


def _is_constant(node: Tree, catalog: Catalog) -> bool:
    arguments = node.get("arguments", {}).get("children", []) if node.get("type") == "Function" else [None]
    return not arguments and catalog.constant(str(node["name"])) is not None


def _nodes(tree: Tree) -> Iterator[Tree]:
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            yield node
            if node.get("type") != "Literal":
                waiting += node.values()


def _values(table: Table, alias: str) -> Tree:
    rows = [
        {"type": "Literal", "value": {"field_type": "Tuple", "value": [_field(value) for value in row]}} for row in table.rows
    ]
    if len(table.structure.split(",")) == 1:
        rows = [_literal(row[0]) for row in table.rows]
    arguments = [_literal(table.structure), *rows]
    return {"type": "Function", "name": "values", "arguments": {"type": "ExpressionList", "children": arguments}, "alias": alias}


def _literal(value: str | int | None) -> Tree:
    return {"type": "Literal", "value": _field(value)}


def _field(value: str | int | None) -> Tree:
    match value:
        case None:
            return {"field_type": "Null", "value": None}
        case int():
            return {"field_type": "UInt64", "value": value}
        case str():
            return {"field_type": "String", "value": value}


def _sizes(kind: str) -> tuple[int | None, int | None, int | None, int | None, int | None]:
    """character_octet_length, numeric_precision, its radix, scale, datetime_precision: as ClickHouse's system.columns has them."""
    kind = kind.removeprefix("LowCardinality(").removeprefix("Nullable(")
    if found := re.match(r"Decimal\((\d+), (\d+)\)", kind):
        return None, int(found[1]), 10, int(found[2]), None
    if found := re.match(r"DateTime64\((\d)", kind):
        return None, None, None, None, int(found[1])
    if found := re.match(r"(?:U?Int|Float)(\d+)", kind):
        return None, int(found[1]), 2, None if kind.startswith("Float") else 0, None
    return None, None, None, None, 0 if kind.startswith("DateTime") else None
