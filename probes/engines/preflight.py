"""What an engine is and takes, found out by asking it: before anything is measured, one real request as all of a run will be."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import aiohttp

from tallystick.probes.client.request import send
from tallystick.probes.config import EngineEntry, Timeouts
from tallystick.probes.engines.bodies import CHAT, COMPLETIONS, OPTIONAL, Prompt, body
from tallystick.probes.engines.profiles import Profile, profile
from tallystick.probes.engines.tokens import TokeniserError, tokeniser
from tallystick.probes.engines.told import told
from tallystick.probes.records import Ask, Kind, Outcome, Record
from tallystick.probes.runs import EngineFacts

OUTPUT_TOKENS: Final = 16
"""Most that the real request asks for."""

_TEXT: Final = "Say something about the weather, and then say more about it."
_IDS: Final = tuple(range(100, 116))
"""In every vocabulary; for engines that take ids and have no tokeniser to ask."""
_LISTED: Final = 20
_LENGTH: Final = {"ignore_eos", "min_tokens", "generation_config"}


class PreflightFailed(Exception):
    """The engine can't be measured. `message` says why, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Way(NamedTuple):
    """Of asking. token_ids: the prompt is a list of them."""

    endpoint: str
    token_ids: bool


async def preflight(
    session: aiohttp.ClientSession, entry: EngineEntry, url: str, timeouts: Timeouts, key: str | None
) -> EngineFacts:
    """Ask the engine at `url` for its models, for one streamed answer, and for what it tells of itself. Raises PreflightFailed."""
    url = url.rstrip("/").removesuffix("/v1")
    served = await _served(session, url, timeouts, key)
    model = chosen(served if profile(entry.engine).lists_models else None, entry.model, url)
    keeps = profile(entry.engine).keeps_connections
    facts = EngineFacts(entry.engine, url, model, "", COMPLETIONS, (), False, False, None, None, keeps_connections=keeps)
    facts, record = await _answered(session, facts, entry, timeouts, key)
    of_itself = await told(session, facts, key)
    return replace(
        facts,
        version=of_itself.version,
        context=of_itself.context,
        settings=of_itself.settings,
        metrics_url=of_itself.metrics_url,
        sees_usage=record.usage is not None and record.usage.completion_tokens is not None,
        notes=(*facts.notes, *remarks(facts, record), *of_itself.notes),
    )


def chosen(served: Sequence[str] | None, wanted: str | None, url: str) -> str:
    """The model to be asked for. served: None where the engine lists none. Raises PreflightFailed."""
    if not served:
        if wanted is None:
            raise PreflightFailed(f"{url}/v1/models lists no models", "name the one to be measured: `model`")
        return wanted
    listed = ", ".join(served[:_LISTED]) + (f" and {len(served) - _LISTED} more" if len(served) > _LISTED else "")
    if wanted is None:
        if len(served) > 1:
            raise PreflightFailed(f"{url} serves {len(served)} models: {listed}", "name the one to be measured: `model`")
        return served[0]
    # Ollama lists `llama3.2:latest`, and takes `llama3.2`.
    if wanted not in served and f"{wanted}:latest" not in served:
        raise PreflightFailed(f"{url} serves no model {wanted!r}, only {listed}", "correct `model`, or serve it")
    return wanted


def ways(api: str, capable: Profile) -> tuple[Way, ...]:
    """To be tried in this order. Of a completion the prompt's length is exact where ids are taken; of a chat the engine adds its template."""
    exact = (Way(COMPLETIONS, True),) if capable.token_ids else ()
    match api:
        case "chat":
            return (Way(CHAT, False),)
        case "completions":
            return (*exact, Way(COMPLETIONS, False))
        case _:
            return (*exact, Way(CHAT, False), Way(COMPLETIONS, False))


def fewer(fields: tuple[str, ...], refusal: str) -> tuple[str, ...] | None:
    """What is left to be tried with after a refusal: without the fields that it names, else without any; None where there were none."""
    if "max_completion_tokens" in refusal and "max_completion_tokens" not in fields:
        return (*fields, "max_completion_tokens")
    optional = [name for name in fields if name != "max_completion_tokens"]
    if not optional:
        return None
    named = [name for name in optional if name in refusal]
    return tuple(name for name in fields if name not in (named or optional))


def remarks(facts: EngineFacts, record: Record) -> Iterator[str]:
    """What the answer to the real request shows of those to come."""
    usage = record.usage
    if not profile(facts.kind).seen:
        yield f"what is known of {profile(facts.kind).name} was read in its documentation, and not tried before on one that runs"
    if all(event.kind is not Kind.DONE for event in record.events):
        yield "its streams end without [DONE]"
    if usage is None:
        yield "it tells no usage: output tokens are what its tokeniser counts, or unknown"
    if not facts.token_ids:
        yield "prompts are sent as text, and their length is what the engine counts"
    elif usage and usage.prompt_tokens not in (None, record.input_tokens):
        yield f"of {record.input_tokens} prompt tokens sent it counts {usage.prompt_tokens}"
    if not _LENGTH & set(facts.fields):
        yield "it takes no field against an early end: answers may end before the tokens asked for"
    elif usage and usage.completion_tokens not in (None, OUTPUT_TOKENS):
        yield f"asked for {OUTPUT_TOKENS} tokens and no fewer, it counts {usage.completion_tokens}"


async def _served(session: aiohttp.ClientSession, url: str, timeouts: Timeouts, key: str | None) -> list[str] | None:
    """Names of models; None where the engine doesn't list them. Raises PreflightFailed where nothing answers, or the key isn't taken."""
    # transformers serve answers 500 where it has no cache to list, and closes the connection after that.
    headers = {"Connection": "close"} | ({"Authorization": f"Bearer {key}"} if key else {})
    limits = aiohttp.ClientTimeout(total=timeouts.first_token, connect=timeouts.connect)
    try:
        async with session.get(f"{url}/v1/models", headers=headers, timeout=limits, allow_redirects=False) as response:
            if response.status in (401, 403):
                raise _no_entry(url, response.status, key)
            if 300 <= response.status < 400:
                raise PreflightFailed(f"{url}/v1/models redirects elsewhere", "give the URL that it redirects to")
            content = await response.json(content_type=None) if response.status == 200 else None
    except aiohttp.ClientConnectorError as error:
        number = None if isinstance(error, aiohttp.ClientConnectorDNSError) else error.os_error.errno
        reason = os.strerror(number) if number else "no such host"
        raise PreflightFailed(f"nothing answers at {url}: {reason}", "start the engine, or correct `url`") from None
    except TimeoutError:
        raise PreflightFailed(
            f"{url}/v1/models does not answer within {timeouts.first_token:g} seconds", "is it loading?"
        ) from None
    except aiohttp.InvalidURL:
        raise PreflightFailed(f"{url} is no URL", "correct `url`") from None
    except (aiohttp.ClientError, ValueError):
        return None
    models = content.get("data") if isinstance(content, dict) else None
    if not isinstance(models, list):
        return None
    return [one["id"] for one in models if isinstance(one, dict) and isinstance(one.get("id"), str)]


async def _answered(
    session: aiohttp.ClientSession, facts: EngineFacts, entry: EngineEntry, timeouts: Timeouts, key: str | None
) -> tuple[EngineFacts, Record]:
    """The first way that brings an answer, with as many of the optional fields as it takes. Raises PreflightFailed."""
    capable = profile(entry.engine)
    ids = await _ids(session, facts, key) if capable.token_ids else _IDS
    record: Record | None = None
    for way in ways(entry.api, capable):
        fields: tuple[str, ...] | None = capable.fields
        while fields is not None:
            facts = replace(facts, endpoint=way.endpoint, token_ids=way.token_ids, fields=fields)
            content = body(facts, Prompt(ids if way.token_ids else None, _TEXT), OUTPUT_TOKENS, entry.request)
            ask = Ask(0, None, content, len(ids) if way.token_ids else None, OUTPUT_TOKENS)
            record = await send(session, facts, ask, time.perf_counter_ns(), timeouts=timeouts, key=key)
            if record.outcome is Outcome.OK:
                # Again at once: does it close connections in silence? Its second answer would then fail, and every second one of a run.
                again = await send(session, facts, ask, time.perf_counter_ns(), timeouts=timeouts, key=key)
                keeps = facts.keeps_connections and not (again.outcome is Outcome.CUT_OFF and again.headers_ns is None)
                return replace(facts, keeps_connections=keeps, notes=tuple(_without(capable.fields, fields))), record
            if record.status not in (400, 422):
                break
            fields = fewer(fields, record.error)
        if record is not None and record.status not in (400, 404, 405, 422, 501):
            break
    assert record is not None
    raise _unanswered(facts, record, key)


async def _ids(session: aiohttp.ClientSession, facts: EngineFacts, key: str | None) -> tuple[int, ...]:
    own = await tokeniser(session, facts, key)
    try:
        return await own.encode(_TEXT) if own else _IDS
    except TokeniserError:
        return _IDS


def _without(tried: tuple[str, ...], taken: tuple[str, ...]) -> Iterator[str]:
    for name in tried:
        if name not in taken:
            yield f"without {name} ({OPTIONAL[name]}): it was refused"


def _no_entry(url: str, status: int, key: str | None) -> PreflightFailed:
    if key is None:
        return PreflightFailed(f"{url} asks for an API key (HTTP status {status})", "name the variable that holds it: `key_env`")
    return PreflightFailed(f"{url} doesn't take this API key (HTTP status {status})", "correct the variable that `key_env` names")


def _unanswered(facts: EngineFacts, record: Record, key: str | None) -> PreflightFailed:
    where = facts.url + facts.endpoint
    if record.status in (401, 403):
        return _no_entry(facts.url, record.status, key)
    match record.outcome, record.status:
        case Outcome.REFUSED, (404 | 405 | 501):
            what, hint = f"is no OpenAI-compatible API, or doesn't serve {facts.model!r}", "correct `url` or `model`"
        case Outcome.REFUSED, 429:
            what, hint = "is busy", "measure it when nobody else uses it"
        case Outcome.REFUSED, _:
            what, hint = (
                "refuses a plain request",
                "see the engine's log; `api` chooses chat or completions, `request` adds fields",
            )
        case Outcome.EMPTY, _:
            what, hint = "answers without a single token", "the other `api`, `chat` or `completions`, may bring some"
        case Outcome.TIMED_OUT, _:
            what, hint = "does not answer in time", "see the engine's log, or raise `timeouts`"
        case _:
            what, hint = "brings no stream of tokens", "is it an OpenAI-compatible engine?"
    return PreflightFailed(f"{where} {what}: {record.error}", hint)
