"""Usage and cost reports from a provider's API into a file, a page a line; where it stopped, the next run goes on.

Endpoints: https://platform.openai.com/docs/api-reference/usage, https://platform.claude.com/docs/en/api/admin.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from tallystick.attribution.invoices.ledger import midnight

if TYPE_CHECKING:
    import httpx

_ATTEMPTS: Final = 6
_LONGEST_WAIT_S: Final = 60.0
_TIMEOUT_S: Final = 60.0
_MOST_PAGES: Final = 10_000
_MOST_BYTES: Final = 64 << 20
"""Of a page."""


class FetchFailed(RuntimeError):
    """What was asked for can't be had; pages that had come are in the file. hint: what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Provider:
    """An API of reports. key_env: the variable that holds the key; needs: what kind of key that is."""

    name: str
    url: str
    key_env: str
    needs: str
    headers: Callable[[str], Mapping[str, str]]
    reports: Callable[[date, date], list[str]]


def _openai(since: date, until: date) -> list[str]:
    span = [
        ("start_time", int(midnight(since).timestamp())),
        ("end_time", int(midnight(until).timestamp())),
        ("bucket_width", "1d"),
    ]
    usage = urlencode([*span, ("group_by", "model"), ("group_by", "batch"), ("limit", 31)])
    return [
        f"/v1/organization/costs?{urlencode([*span, ('group_by', 'line_item'), ('limit', 180)])}",
        f"/v1/organization/usage/completions?{usage}",
        f"/v1/organization/usage/embeddings?{urlencode([*span, ('group_by', 'model'), ('limit', 31)])}",
    ]


def _anthropic(since: date, until: date) -> list[str]:
    span = [("starting_at", f"{since}T00:00:00Z"), ("ending_at", f"{until}T00:00:00Z"), ("bucket_width", "1d"), ("limit", 31)]
    return [
        f"/v1/organizations/cost_report?{urlencode([*span, ('group_by[]', 'description')])}",
        f"/v1/organizations/usage_report/messages?{urlencode([*span, ('group_by[]', 'model'), ('group_by[]', 'service_tier')])}",
    ]


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider(
        "openai", "https://api.openai.com", "OPENAI_ADMIN_KEY", "an admin key of the organization",
        lambda key: {"authorization": f"Bearer {key}"}, _openai,
    ),
    "anthropic": Provider(
        "anthropic", "https://api.anthropic.com", "ANTHROPIC_ADMIN_KEY", "an Admin API key (sk-ant-admin…)",
        lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"}, _anthropic,
    ),
}  # fmt: skip


def fetch(
    provider: Provider, since: date, until: date, key: str, out: Path, *, sleep: Callable[[float], object], url: str | None = None
) -> Iterator[int]:
    """Write all reports of the days in [since, until) to `out`, and yield how many pages it has, after each that came.

    Pages that are in `out` already aren't fetched again. Raises FetchFailed, OSError.
    """
    base = url or provider.url
    _check_url(base)
    reports = provider.reports(since, until)
    got = _kept(out, reports)
    with _Api(base, provider, key, sleep) as api, out.open("a", encoding="utf-8") as file:
        count = sum(len(cursors) for cursors in got.values())
        for report in reports:
            cursors = got.get(report, [])
            cursor = cursors[-1] if cursors else None
            while not cursors or cursor is not None:
                page, page_text = api.page(report, cursor, count)
                following = page.get("next_page") if page.get("has_more") else None
                if count >= _MOST_PAGES or (following is not None and following in cursors):
                    raise FetchFailed(
                        f"{_path(report)} gives the same pages again and again",
                        f"{out} holds {count:,} pages; report it to {provider.name}",
                    )
                file.write(f'{{"report": {json.dumps(report)}, "page": {page_text}}}\n')
                file.flush()
                cursor = following
                cursors.append(cursor)
                count += 1
                yield count


class _Api:
    """One connection, whose errors never hold the key."""

    def __init__(self, base: str, provider: Provider, key: str, sleep: Callable[[float], object]) -> None:
        import httpx

        self._provider, self._sleep = provider, sleep
        # A redirect would take the key to another host: none is followed.
        self._http = httpx.Client(base_url=base, headers=provider.headers(key), timeout=_TIMEOUT_S, follow_redirects=False)

    def __enter__(self) -> "_Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def page(self, report: str, cursor: str | None, kept: int) -> tuple[dict[str, Any], str]:
        """One page, and its text on one line, asked for again while the API is busy or can't be reached. Raises FetchFailed."""
        import httpx

        target = f"{report}&{urlencode({'page': cursor})}" if cursor else report
        left = f"{kept:,} pages are kept: run it again, and it goes on from there" if kept else "nothing was fetched yet"
        why = ""
        for attempt in range(_ATTEMPTS):
            wait = min(2.0**attempt, _LONGEST_WAIT_S)
            try:
                response = self._http.get(target)
            except httpx.HTTPError as error:
                why = f"{self._provider.name} can't be reached ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    # A line break in JSON is white space; read and written again, amounts would lose decimals.
                    return _page(response, _path(report), left), response.text.replace("\r", " ").replace("\n", " ")
                why = f"{self._provider.name} answered {response.status_code} to {_path(report)}{_message(response)}"
                if response.status_code in (401, 403):
                    hint = f"{self._provider.key_env} must hold {self._provider.needs}; {left}"
                    raise FetchFailed(why, hint)
                if response.status_code != 429 and response.status_code < 500:
                    raise FetchFailed(why, left)
                asked = response.headers.get("retry-after", "")
                wait = min(float(asked), _LONGEST_WAIT_S) if asked.isdecimal() else wait
            if attempt + 1 < _ATTEMPTS:
                self._sleep(wait)
        raise FetchFailed(f"{why}, {_ATTEMPTS} times", left)


def _kept(out: Path, reports: list[str]) -> dict[str, list[str | None]]:
    """Cursors to the following pages, by report, of pages that the file has; what was cut off of its last one is taken away."""
    if not out.exists():
        return {}
    raw = out.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    got: dict[str, list[str | None]] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found = json.loads(line)
            report, page = found["report"], found["page"]
            following = page.get("next_page") if page.get("has_more") else None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FetchFailed(f"{out}:{number} isn't a page that was fetched", "name another file with -o") from None
        if report not in reports:
            raise FetchFailed(f"{out} holds a report of other days or another provider", "name another file with -o")
        got.setdefault(report, []).append(following)
    if raw and not whole and raw.strip():
        raise FetchFailed(f"{out} holds something other than pages that were fetched", "name another file with -o")
    if len(whole) < len(raw):
        os.truncate(out, len(whole))
    return got


def _page(response: "httpx.Response", path: str, left: str) -> dict[str, Any]:
    try:
        page = json.loads(response.content) if len(response.content) <= _MOST_BYTES else None
    except ValueError:
        page = None
    if not isinstance(page, dict) or not isinstance(page.get("data"), list):
        raise FetchFailed(f"{path} answered something other than a page of a report", left)
    return page


def _message(response: "httpx.Response") -> str:
    """What the API says is wrong, which has no key in it but parts: those are cut."""
    try:
        told = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    words = " ".join("…" if word.strip(".,:;'\"()").startswith("sk-") else word for word in told.split())
    return f": {words[:200]}"


def _path(report: str) -> str:
    return report.partition("?")[0]


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise FetchFailed(
            f"{parts.scheme or 'no'}://{parts.hostname or ''} would send the key in the clear", "name it with https://"
        )
