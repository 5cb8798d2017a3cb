"""What an engine tells of itself: its version, its settings, the length of its context, and where its metrics are."""

import re
from typing import Any, Final, NamedTuple

import aiohttp

from tallystick.probes.engines.metrics import metrics_text, read_labels, read_metrics
from tallystick.probes.engines.profiles import Place, found, profile
from tallystick.probes.runs import EngineFacts

_PATIENCE_S: Final = 10
_LONGEST: Final = 200
"""Characters of a setting; chat templates are longer, and are no setting."""
_SECRET: Final = re.compile(r"api_?key|password|passwd|secret|credential|hf_token|auth", re.IGNORECASE)


class Told(NamedTuple):
    """As EngineFacts has them. notes: what it should tell and doesn't."""

    version: str
    context: int | None
    settings: dict[str, Any]
    metrics_url: str | None
    notes: tuple[str, ...]


async def told(session: aiohttp.ClientSession, facts: EngineFacts, key: str | None) -> Told:
    """Asks each path once. What can't be read isn't known; nothing is raised."""
    capable = profile(facts.kind)
    places = [place for place in (capable.version, capable.context, *capable.settings) if place]
    answers = {path: await _json(session, facts.url + path, key) for path in dict.fromkeys(place.path for place in places)}

    def at(place: Place | None) -> Any:
        return found(answers[place.path], place.at) if place else None

    version, context = at(capable.version), at(capable.context)
    settings: dict[str, Any] = {}
    for one in capable.settings:
        settings |= {name: value for name, value in plain(at(one), key).items() if name not in one.leave}
    metrics_url: str | None = None
    notes: tuple[str, ...] = ()
    if capable.metrics is not None:
        text = await metrics_text(session, facts.url + capable.metrics, key) or ""
        settings |= plain(read_labels(text, capable.labels), key)
        if read_metrics(facts.kind, text):
            metrics_url = facts.url + capable.metrics
        else:
            need = f"; it must be started with {capable.metrics_need}" if capable.metrics_need else ""
            notes = (f"{capable.metrics} tells no figures of {capable.name}{need}",)
    return Told(
        # llama.cpp's `b0-unknown`: built without saying from what.
        version if isinstance(version, str) and "unknown" not in version else "",
        context if isinstance(context, int) and context > 0 else None,
        settings,
        metrics_url,
        notes,
    )


def plain(content: Any, key: str | None = None) -> dict[str, Any]:
    """Numbers and short words of an object, without those whose name or value is a secret's; {} of anything else."""
    if not isinstance(content, dict):
        return {}
    return {
        str(name): value
        for name, value in content.items()
        if isinstance(value, bool | int | float | str)
        and value != ""
        and not (isinstance(value, str) and (len(value) > _LONGEST or (key and key in value)))
        and not _SECRET.search(str(name))
    }


async def _json(session: aiohttp.ClientSession, url: str, key: str | None) -> Any:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with session.get(url, headers=headers, timeout=aiohttp.ClientTimeout(_PATIENCE_S)) as response:
            return await response.json(content_type=None) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
