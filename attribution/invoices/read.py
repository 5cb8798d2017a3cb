"""A file of whatever form as invoice lines. Pure: it gets bytes."""

import gzip
import io
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from tallystick.attribution.invoices import anthropic, aws, focus, openai, plain, sheet
from tallystick.attribution.invoices.lines import BadInvoice, Invoice, InvoiceLine
from tallystick.attribution.invoices.pages import looks_like, pages

MOST_BYTES: Final = 256 << 20
"""Of a file, unpacked."""


def read(raw: bytes, name: str, rates: Mapping[str, Decimal]) -> Invoice:
    """The lines of a file: JSON of OpenAI or Anthropic, CSV (also gzipped) of AWS, FOCUS, or plain.

    name: as it is called in errors and notes. rates: currency → price of one unit in USD. Raises BadInvoice.
    """
    text = _text(raw, name)
    if not text.strip("\ufeff \r\n\t"):
        raise BadInvoice(name, "is empty", "export it again")
    if text.lstrip("\ufeff \r\n\t")[0] in "[{":
        return _json(text, name, rates)
    table = sheet.read(text, name)
    for fits, reader in ((aws.is_cur, aws.read), (focus.is_focus, focus.read), (plain.is_plain, plain.read)):
        if fits(table.header):
            found = reader(table, name, rates)
            if not found.lines:
                raise BadInvoice(name, "has no line about models", "docs/reconciliation.md has the files that are read")
            return found
    seen = ", ".join(table.header[:6])
    raise BadInvoice(f"{name}:1", f"has columns of no known export ({seen} …)", "a plain CSV has day, provider, model, cost_usd")


def _json(text: str, name: str, rates: Mapping[str, Decimal]) -> Invoice:
    lines: list[InvoiceLine] = []
    found = pages(text, name)
    for where, page in found:
        if anthropic.is_anthropic(page):
            lines += anthropic.read(where, page, rates)
        elif openai.is_openai(page):
            lines += openai.read(where, page, rates)
        elif page["data"]:
            raise BadInvoice(where.rstrip(":. "), "isn't a page of a usage or cost report", looks_like(page))
    notes = []
    if found and found[-1][1].get("has_more"):
        notes.append(f"{name}: the report goes on after its last page (has_more): days may be missing")
    return Invoice(lines, tuple(notes))


def _text(raw: bytes, name: str) -> str:
    if raw[:2] == b"\x1f\x8b":
        try:
            with gzip.open(io.BytesIO(raw)) as packed:
                raw = packed.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error):
            raise BadInvoice(name, "can't be unpacked", "the file may be cut off: export it again") from None
    if len(raw) > MOST_BYTES:
        raise BadInvoice(name, f"has more than {MOST_BYTES >> 20} MiB", "split it by day")
    if raw[:4] == b"PAR1":
        raise BadInvoice(name, "is Parquet, which isn't read", "export it as CSV")
    try:
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInvoice(name, f"isn't text in UTF-8 (byte {error.start})", "save it as UTF-8") from None
