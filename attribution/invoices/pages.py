"""Pages of a provider's reporting API as JSON: one page, a list of them, or a file that `reconcile fetch` wrote, a page a line. Pure."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from tallystick.attribution.invoices.lines import BadInvoice

ENDPOINTS: Final[Mapping[str, str]] = {
    "organization.usage.completions.result": "OpenAI's usage of completions",
    "organization.usage.embeddings.result": "OpenAI's usage of embeddings",
    "organization.costs.result": "OpenAI's costs",
}
"""`object` of a result → what it is; other usage of OpenAI's is no tokens."""

Json = dict[str, Any]


class Bucket(NamedTuple):
    """A bucket of a page: its results, its time (aware UTC), and its JSON path."""

    results: list[Any]
    began: datetime
    ended: datetime
    where: str


def pages(text: str, name: str) -> list[tuple[str, Json]]:
    """Each page and where it stands. Raises BadInvoice where the text isn't JSON, or its end is missing."""
    text = text.removeprefix("\ufeff")
    try:
        # Floats would lose decimals of money.
        whole = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        if len(text.strip().split("\n")) > 1 and (found := _by_line(text, name)):
            return found
        line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
        raise BadInvoice(f"{name}:{line}", "isn't whole JSON", "the file may be cut off: fetch it again") from None
    many = whole if isinstance(whole, list) else [whole]
    found = [(f"{name}: [{at}]." if isinstance(whole, list) else f"{name}: ", _page(page)) for at, page in enumerate(many)]
    for where, page in found:
        _check_page(where, page)
    return found


def buckets(where: str, page: Json, start: str, end: str) -> Iterator[Bucket]:
    """Buckets of a page, whose times stand under `start` and `end`, as Unix seconds or RFC 3339. Raises BadInvoice."""
    for at, bucket in enumerate(page["data"]):
        path = f"{where}data[{at}]"
        if not isinstance(bucket, dict) or not isinstance(bucket.get("results"), list):
            raise BadInvoice(path, "has no `results`", looks_like(page))
        began, ended = _time(bucket.get(start), f"{path}.{start}"), _time(bucket.get(end), f"{path}.{end}")
        last = ended.replace(microsecond=0).timestamp() - 1
        if ended <= began or datetime.fromtimestamp(last, UTC).date() != began.date():
            raise BadInvoice(path, "isn't of one UTC day", "fetch with bucket_width=1d or 1h: calls are compared by UTC day")
        yield Bucket(bucket["results"], began, ended, path)


def looks_like(page: object) -> str:
    """Which endpoint's answer something is, in words: what to say of a file that can't be read."""
    if not isinstance(page, dict):
        return 'what is read is a page: {"data": [{…, "results": […]}]}'
    if isinstance(page.get("error"), dict):
        return "it looks like an error that the API answered: fetch again"
    kinds = {str(one.get("object")) for one in _results(page)} - {"None"}
    first = next(iter(sorted(kinds)), str(page.get("object", "")))
    if first.startswith("organization.usage."):
        return (
            f"it looks like OpenAI's /v1/organization/usage/{first.split('.')[2]}; read are completions and embeddings, and costs"
        )
    if first in ("chat.completion", "response", "message") or "usage" in page:
        return "it looks like the answer to a model call; needed is the organization's usage or cost report"
    if first == "list" or "data" in page:
        return "it looks like a list of another endpoint; docs/reconciliation.md has those that are read"
    return "it looks like no page of a usage or cost report; docs/reconciliation.md has those that are read"


def _results(page: Json) -> Iterator[Json]:
    for bucket in page.get("data") or [] if isinstance(page.get("data"), list) else []:
        found = bucket.get("results") if isinstance(bucket, dict) else None
        yield from (one for one in found if isinstance(one, dict)) if isinstance(found, list) else ()


def _by_line(text: str, name: str) -> list[tuple[str, Json]]:
    found: list[tuple[str, Json]] = []
    lines = text.strip().split("\n")
    for number, line in enumerate(lines, 1):
        try:
            page = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError):
            if not found:
                return []
            what = "isn't whole JSON"
            hint = "run `reconcile fetch` with the same -o again: it goes on where it stopped"
            raise BadInvoice(
                f"{name}:{number}", what, hint, f"{len(found)} pages before it are whole, and weren't used"
            ) from None
        where = f"{name}:{number}: "
        page = _page(page)
        _check_page(where, page)
        found.append((where, page))
    return found


def _page(found: Any) -> Any:
    """A page, out of what `reconcile fetch` wraps it in."""
    return found["page"] if isinstance(found, dict) and isinstance(found.get("page"), dict) else found


def _check_page(where: str, page: Any) -> None:
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise BadInvoice(where.rstrip(":. "), "isn't a page of a usage or cost report", looks_like(page))


def _time(value: object, where: str) -> datetime:
    try:
        if isinstance(value, int):
            return datetime.fromtimestamp(value, UTC)
        given = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        raise BadInvoice(where, f"{str(value)[:30]!r} is no time", "the file isn't as the API gives it: fetch it again") from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)
