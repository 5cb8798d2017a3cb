"""An engine's own tokeniser over HTTP: what it counts itself is what a prompt's length means."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp

from tallystick.probes.engines.profiles import Exchange, found, profile
from tallystick.probes.runs import EngineFacts

_PATIENCE_S: Final = 30


class TokeniserError(Exception):
    """It doesn't answer, or not with tokens."""


class Tokeniser:
    """Text to token ids and back, without special tokens."""

    def __init__(self, session: aiohttp.ClientSession, facts: EngineFacts, key: str | None = None) -> None:
        exchanges = profile(facts.kind)
        assert exchanges.tokenise is not None
        self._session, self._facts, self._key = session, facts, key
        self._encode, self._decode = exchanges.tokenise, exchanges.detokenise

    @property
    def decodes(self) -> bool:
        """Whether it can turn ids into text."""
        return self._decode is not None

    async def encode(self, text: str) -> tuple[int, ...]:
        """Raises TokeniserError."""
        ids = await self._ask(self._encode, {"$text": text})
        if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
            raise TokeniserError(f"{self._encode.path} answered without token ids")
        return tuple(ids)

    async def count(self, text: str) -> int:
        """Tokens of a text. Raises TokeniserError."""
        return len(await self.encode(text))

    async def decode(self, ids: Sequence[int]) -> str:
        """Raises TokeniserError, also where the engine can't: see `decodes`."""
        if self._decode is None:
            raise TokeniserError("the engine turns no token ids into text")
        text = await self._ask(self._decode, {"$tokens": list(ids)})
        if not isinstance(text, str):
            raise TokeniserError(f"{self._decode.path} answered without text")
        return text

    async def _ask(self, exchange: Exchange, values: Mapping[str, Any]) -> Any:
        known = {"$model": self._facts.model, **values}
        sent = {name: known.get(value, value) if isinstance(value, str) else value for name, value in exchange.send.items()}
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        timeout = aiohttp.ClientTimeout(_PATIENCE_S)
        try:
            async with self._session.post(
                self._facts.url + exchange.path, json=sent, headers=headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise TokeniserError(f"{exchange.path} answered with HTTP status {response.status}")
                return found(await response.json(content_type=None), exchange.at)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise TokeniserError(f"{exchange.path}: {error or type(error).__name__}") from None


async def tokeniser(session: aiohttp.ClientSession, facts: EngineFacts, key: str | None = None) -> Tokeniser | None:
    """The engine's, if it has one that works; one short text is sent to see."""
    if profile(facts.kind).tokenise is None:
        return None
    candidate = Tokeniser(session, facts, key)
    try:
        return candidate if await candidate.count("one two three") > 0 else None
    except TokeniserError:
        return None
