"""The statement that turns decoded OTLP into rows, rendered from its template and the dialect tables."""

import re
from importlib.resources import files
from typing import Final

from tallystick.schema.dialects import (
    COUNTS,
    LAYERS,
    Columns,
    columns,
    dialects,
    quote,
    usage_names,
)

_START: Final = "3 + (length(v) >= 130) + (length(v) >= 16387) + (length(v) >= 2097156)"
"""SQL: where the text begins in an AnyValue `v` that holds one, as it stands on the wire: tag, length (a varint), text."""

_SEVENS: Final = " + ".join(f"bitAnd(bitShiftRight(w, {8 + i}), {127 << 7 * i})" for i in range(5))
_INTEGER: Final = f"multiIf(length(v) > 10, -1, length(v) > 6, 1e15, toFloat64({_SEVENS}))"
"""SQL: the integer in an AnyValue `v`, whose first eight bytes are the number `w`: a tag and a varint of seven bits a byte; ten bytes are a
negative one, over five are beyond any count."""


def normalise_sql(source: str, kept: frozenset[str] | None = None) -> str:
    """SELECT over `source` (a table of envelopes) that yields the columns of `staged`: one row for each span that is or claims to be a model call.

    kept: of `attributes.csv`, the columns that it looks for; where another is filled, it fails with FUNCTION_THROW_IF_VALUE_IS_NON_ZERO. To look
    for each of them in each span is a tenth of the work, and most sources fill few.
    """
    return nested(_filled_in(_template(), source, columns(kept)))


def filled_columns_sql(source: str) -> str:
    """SELECT over `source` that yields the numbers in `columns()` of those that its spans fill, if only with an empty text, and perhaps 0."""
    chain, found, _ = _template().partition(",\ntexts AS\n")
    if not found:
        raise ValueError("normalise.sql: no step is called texts")
    numbers = "SELECT arrayJoin(groupUniqArrayArray(arrayMap(r -> bitShiftRight(r, 5), wanted))) AS number\nFROM attributes"
    return nested(_filled_in(f"{chain}\n{numbers}", source, columns()))


def _template() -> str:
    return files("tallystick.schema").joinpath("sql/normalise.sql").read_text(encoding="utf-8")


def _filled_in(sql: str, source: str, table: Columns) -> str:
    known = dialects()
    rows = [
        (
            quote(d.bare), str(LAYERS[d.layer]), quote("content" if d.layer == "native" else "chunk"),
            str(int(d.input_excludes_cache == "any")), quote("" if d.input_excludes_cache == "any" else d.input_excludes_cache),
            str(int(d.zero == "unknown")), str(int(d.absent == "zero")), str(int(d.estimates == "streams")), quote(d.finish),
            str(int(d.dialect == "langfuse")), str(int(d.scope != "")),
        )
        for d in known
    ]  # fmt: skip
    values = {
        "source": source,
        "v.start": _START,
        "v.text": f"substring(v, if(startsWith(v, '\\n'), {_START}, length(v) + 1))",
        "v.integer": _INTEGER,
        "dialects": "[" + ", ".join(f"({', '.join(row)})" for row in rows) + "]",
        "prefixes": "[" + ", ".join(quote(d.scope[1:] + "\n" if d.scope.startswith("=") else d.scope) for d in known) + "]",
        "first_number": str(table.first_number),
        "rank": table.rank("n"),
        "only_kept": f"WHERE NOT throwIf(columns[-1] IN ({table.beyond}))" if table.beyond else "",
        "counts": ", ".join(_found("integers", table.place(column), "CAST(NULL, 'Nullable(Int64)')") for column in COUNTS),
        "finish_list": _found("span.attributes.value", table.place("finish"), "''"),
        "usage_names": ", ".join(f"[{', '.join(map(quote, names))}]" for names in usage_names()),
    }
    for column in columns().texts:
        values[f"text.{column}"] = _found("texts", table.place(column), "''")
    for column in columns().numbers:
        values[f"number.{column}"] = _found("numbers", table.place(column), "CAST(NULL, 'Nullable(Float64)')")
    for name, expression in values.items():
        sql = sql.replace("{{" + name + "}}", expression)
    if "{{" in sql:
        raise ValueError(f"normalise.sql: no value for {sql.split('{{', 1)[1].split('}}', 1)[0]}")
    return sql


def _found(array: str, place: str | None, none: str) -> str:
    return none if place is None else f"{array}[{place}]"


def nested(sql: str) -> str:
    """A chain of common table expressions as subqueries, one in the other: the engine copies a chain's text for every step of it."""
    text = "\n".join(line for line in sql.splitlines() if not line.lstrip().startswith("--"))
    head, _, text = text.rpartition("\n)\n")
    for name, body in reversed(re.findall(r"^(\w+) AS\n\(\n(.*?)(?:\n\),$|\Z)", head, flags=re.MULTILINE | re.DOTALL)):
        before, *after = re.split(rf"^ *FROM {name}$", text, flags=re.MULTILINE)
        if len(after) != 1:
            raise ValueError(f"normalise.sql: {name} is read {len(after)} times, not once")
        text = f"{before}FROM (\n{body}\n){after[0]}"
    return text
