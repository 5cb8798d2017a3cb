"""Whether a user's query may run: a pure function of the tree that the engine's own parser makes of it.

Everything is an allow-list: kinds of nodes and what they may hold (below), functions (functions.txt), tables (`charges` and what
the query itself names in WITH). What a later version of the engine adds to its SQL is refused until it is put here.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

Node = Mapping[str, Any]

VIEWS: Final = frozenset({"charges", "outcomes", "price_rates", "probe_figures"})
"""The tables that users may read."""

_NODES: Final[Mapping[str, frozenset[str]]] = {
    kind: frozenset(keys.split())
    for kind, keys in {
        "ArrayJoin": "kind expression_list",
        "Asterisk": "transformers",
        "ColumnsApplyTransformer": "func_name parameters lambda lambda_arg column_name_prefix",
        "ColumnsExceptTransformer": "children pattern is_strict",
        "ColumnsListMatcher": "column_list transformers",
        "ColumnsRegexpMatcher": "pattern transformers",
        "ColumnsReplaceTransformer": "children is_strict",
        "ColumnsReplaceTransformerReplacement": "name children",
        "ColumnsTransformerList": "children",
        "ExpressionList": "children",
        "Function": "name arguments parameters alias kind is_operator is_lambda_function is_window_function window_name"
        " window_definition nulls_action",
        "Identifier": "name name_parts alias",
        "InterpolateElement": "column expr",
        "Literal": "value alias",
        "OrderByElement": "direction nulls_direction nulls_direction_was_explicitly_specified expression collation with_fill"
        " fill_from fill_to fill_step fill_staleness",
        "QualifiedAsterisk": "qualifier transformers",
        "QualifiedColumnsListMatcher": "qualifier column_list transformers",
        "QualifiedColumnsRegexpMatcher": "qualifier pattern transformers",
        "QueryParameter": "name param_type alias",
        "SelectIntersectExceptQuery": "children final_operator",
        "SelectQuery": "with recursive_with cte_aliases select distinct tables where group_by group_by_all group_by_with_rollup"
        " group_by_with_cube group_by_with_grouping_sets having window qualify order_by order_by_all interpolate limit_by"
        " limit_by_length limit_by_offset limit_length limit_offset limit_with_ties",
        "SelectWithUnionQuery": "union_mode list_of_modes list_of_selects is_outfile_append is_outfile_truncate"
        " is_into_outfile_with_stdout",
        "Subquery": "children alias cte_name",
        "TableExpression": "database_and_table_name table_function subquery column_aliases",
        "TableIdentifier": "name name_parts alias",
        "TableJoin": "kind strictness locality is_natural on_expression using_expression_list",
        "TablesInSelectQuery": "children",
        "TablesInSelectQueryElement": "table_expression table_join array_join",
        "WindowDefinition": "parent_window_name partition_by order_by frame_is_default frame_type frame_begin_type"
        " frame_begin_preceding frame_begin_offset frame_end_type frame_end_preceding frame_end_offset",
        "WindowListElement": "name definition",
        "WithElement": "name subquery aliases is_materialized",
    }.items()
}
"""Kinds of nodes of parseQueryToJSON, and the keys that each may have beside `type`."""

_CLAUSES: Final = {
    "out_file": ("INTO OUTFILE", "`tallystick sql --format csv -o FILE` writes files."),
    "format_ast": ("FORMAT", "The request says it: `?format=csv`; `tallystick sql --format csv`."),
    "settings": ("SETTINGS", "Limits and settings are the server's."),
    "settings_ast": ("SETTINGS", "Limits and settings are the server's."),
    "group_by_with_totals": ("WITH TOTALS", "GROUP BY … WITH ROLLUP puts totals among the rows."),
    "prewhere": ("PREWHERE", "Write WHERE: the engine moves what it can by itself."),
    "final": ("FINAL", "Rows are final."),
    "sample_size": ("SAMPLE", "Filter by a hash, as in WHERE cityHash64(trace_id) % 10 = 0."),
}
"""What may be written in SELECT but not here: key of a node → name, hint."""

_OTHER_DATABASES: Final = frozenset({"system", "information_schema", "default", "work"})
_CASTS: Final = frozenset({"cast", "try_cast", "accuratecast", "accuratecastornull", "accuratecastordefault"})
_IN: Final = frozenset({"in", "notin", "globalin", "globalnotin", "nullin", "notnullin", "globalnullin", "globalnotnullin"})
ONLY_SELECT: Final = "One SELECT, with WITH, subqueries and UNION as needed; docs/charges.md describes the columns."


class BadQuery(Exception):
    """The query can't be answered. `code` is for programs, `message` says what is wrong, `hint` what to do (may be '')."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class Functions(NamedTuple):
    """Names in lower case."""

    scalars: frozenset[str]
    higher_order: frozenset[str]
    aggregates: frozenset[str]
    combinators: tuple[str, ...]
    tables: frozenset[str]

    def allows(self, name: str) -> bool:
        """Whether a user may call `name` in an expression. An aggregate may carry combinators: sumIf, quantilesTDigestOrNull."""
        name = name.lower()
        if name in self.scalars or name in self.higher_order:
            return True
        while name not in self.aggregates:
            ending = next((c for c in self.combinators if name.endswith(c)), None)
            if ending is None:
                return False
            name = name.removesuffix(ending)
        return True


def _load(path: Path) -> Functions:
    sections: dict[str, list[str]] = {}
    names: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            names = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("#"):
            names += line.lower().split()
    return Functions(
        scalars=frozenset(sections["scalars"] + sections["syntax"]),
        higher_order=frozenset(sections["higher-order"]),
        aggregates=frozenset(sections["aggregates"]),
        combinators=tuple(sections["combinators"]),
        tables=frozenset(sections["tables"]),
    )


FUNCTIONS: Final = _load(Path(__file__).parent / "functions.txt")


def check(tree: Node, database: str, tables: Collection[str]) -> frozenset[str]:
    """Names of the query's parameters. Raises BadQuery unless the query does nothing but compute over `charges`.

    tree: parseQueryToJSON of the very text that will run. tables: what the current `database` holds.
    """
    if missing := VIEWS.difference(tables):
        raise ValueError(f"{database} has no {', '.join(sorted(missing))}: its names can't be told from a query's own")
    if tree.get("type") != "SelectWithUnionQuery":
        raise BadQuery("not_a_select", "Only SELECT can be asked.", ONLY_SELECT)
    nodes = list(_nodes(tree))
    names = _Names(database, frozenset(tables) - VIEWS, frozenset(str(n["name"]) for n in nodes if n["type"] == "WithElement"))
    called = {id(n["table_function"]) for n in nodes if n["type"] == "TableExpression" and "table_function" in n}
    for node in nodes:
        match node["type"]:
            case "TableIdentifier":
                names.check_table(node)
            case "Identifier":
                names.check_column(node)
            case "WithElement":
                names.check_new(str(node["name"]))
            case "ColumnsApplyTransformer" if "func_name" in node:
                _check_name(node["func_name"])
            case "Function" if id(node) in called:
                if str(node["name"]).lower() not in FUNCTIONS.tables:
                    raise _no_table(f"{node['name']}(…)")
            case "Function":
                _check_call(node, names)
    return frozenset(str(node["name"]) for node in nodes if node["type"] == "QueryParameter")


def _nodes(tree: Node) -> Iterator[Node]:
    """All nodes, each checked to be of a known kind with known keys only. Without recursion: trees can be deep."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, dict):
            kind = str(node.get("type"))
            if kind not in _NODES:
                raise _no_syntax(kind)
            if unknown := [key for key in node if key != "type" and key not in _NODES[kind]]:
                raise _no_parameter() if "Identifier" in kind else _no_syntax(unknown[0])
            yield node
            if kind != "Literal":
                waiting += node.values()


class _Names(NamedTuple):
    """What a query's names can mean. taken: tables of the database beside the views. own: what the query defines by WITH."""

    database: str
    taken: frozenset[str]
    own: frozenset[str]

    def check_table(self, node: Node) -> None:
        name = str(node["name"])
        if name.removeprefix(f"{self.database}.") in VIEWS:
            return
        if name not in self.own:
            raise _no_table(name)

    def check_column(self, node: Node) -> None:
        # `WITH ledger AS l SELECT … IN l` makes a table of what looks like a column.
        name = str(node["name"])
        first, _, rest = name.partition(".")
        foreign = first.lower() in _OTHER_DATABASES and rest
        if name in self.taken or foreign or (first == self.database and rest.split(".")[0] not in VIEWS):
            raise _no_table(name)

    def check_new(self, name: str) -> None:
        # Where a name of the query's own is out of sight, it would mean the database's; one with a dot, that of another database.
        if name in self.taken or not name.isidentifier():
            raise BadQuery("name_taken", f"{name} can't be the name of a subquery in WITH.", "Choose another name.")


def _check_call(node: Node, names: _Names) -> None:
    name = str(node["name"])
    _check_name(name)
    arguments = node.get("arguments", {}).get("children", [])
    lower = name.lower()
    if lower in FUNCTIONS.higher_order and len(arguments) > 1 and arguments[0].get("name") != "lambda":
        # Where a lambda belongs the engine takes a bare name for a function of that name.
        raise BadQuery("lambda_expected", f"The first argument of {name} must be a lambda.", f"Write {name}(x -> …, …).")
    if lower in _CASTS and len(arguments) > 1 and arguments[1]["type"] != "Literal":
        raise BadQuery("type_expected", f"The type in {name} must be written out.", "As in CAST(x AS Decimal(18, 6)).")
    if lower in _IN and len(arguments) == 2 and arguments[1]["type"] == "Identifier":
        try:
            names.check_table(arguments[1])
        except BadQuery:
            named = arguments[1]["name"]
            raise BadQuery(
                "no_such_table", f"Right of IN, {named} would be a table.", "For an array write has(array, …)."
            ) from None


def _check_name(name: str) -> None:
    if not FUNCTIONS.allows(name):
        raise BadQuery("no_such_function", f"There is no function {name} here.", "docs/sql.md lists what can be called.")


def _no_table(name: str) -> BadQuery:
    return BadQuery(
        "no_such_table",
        f"There is no table {name}.",
        f"What can be asked: {', '.join(sorted(VIEWS))}; others can be defined in WITH.",
    )


def _no_parameter() -> BadQuery:
    return BadQuery("bad_parameter", "A parameter can't be a name.", "Bind values, as in {customer:String}; write names out.")


def _no_syntax(what: str) -> BadQuery:
    clause, hint = _CLAUSES.get(what, (what, ONLY_SELECT))
    return BadQuery("not_allowed", f"{clause} can't be used here.", hint)
