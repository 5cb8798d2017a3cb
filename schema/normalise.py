"""The statement that turns decoded OTLP into rows, rendered from its template and the dialect tables."""

import re
from functools import cache
from importlib.resources import files
from typing import Final

from tallystick.schema.dialects import (
    COUNTS,
    LAYERS,
    columns,
    dialects,
    place_expression,
    quote,
    rank_expression,
    usage_names,
)

_START: Final = "NOT startsWith(v, '\\n'), length(v) + 1, length(v) < 130, 3, length(v) < 16387, 4, length(v) < 2097156, 5, 6"
"""SQL, for multiIf: where the text in an AnyValue `v` begins as it stands on the wire: tag, length (a varint), text. Behind its end if there is none."""

_SEVENS: Final = " + ".join(f"bitAnd(bitShiftRight(w, {8 + i}), {127 << 7 * i})" for i in range(5))
_INTEGER: Final = f"multiIf(length(v) > 10, -1, length(v) > 6, 1e15, toFloat64({_SEVENS}))"
"""SQL: the integer in an AnyValue `v`, whose first eight bytes are the number `w`: a tag and a varint of seven bits a byte; ten bytes are a
negative one, over five are beyond any count."""


@cache
def normalise_sql(source: str) -> str:
    """SELECT over `source` (a table of envelopes) that yields the columns of `staged`: one row for each span that is or claims to be a model call."""
    known = dialects()
    table = columns()
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
        "v.text": f"substring(v, multiIf({_START}))",
        "v.integer": _INTEGER,
        "dialects": "[" + ", ".join(f"({', '.join(row)})" for row in rows) + "]",
        "prefixes": "[" + ", ".join(quote(d.scope[1:] + "\n" if d.scope.startswith("=") else d.scope) for d in known) + "]",
        "first_number": str(table.first_number),
        "rank": rank_expression("n"),
        "place.finish": place_expression("finish"),
        "counts": ", ".join(f"integers[{place_expression(column)}]" for column in COUNTS),
        "usage_names": ", ".join(f"[{', '.join(map(quote, names))}]" for names in usage_names()),
    }
    values |= {f"text.{column}": f"texts[{place_expression(column)}]" for column in table.texts}
    values |= {f"number.{column}": f"numbers[{place_expression(column)}]" for column in table.numbers}
    sql = files("tallystick.schema").joinpath("sql/normalise.sql").read_text(encoding="utf-8")
    for name, expression in values.items():
        sql = sql.replace("{{" + name + "}}", expression)
    if "{{" in sql:
        raise ValueError(f"normalise.sql: no value for {sql.split('{{', 1)[1].split('}}', 1)[0]}")
    return nested(sql)


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
