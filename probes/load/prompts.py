"""Prompts of exactly so many tokens, of which no two begin alike unless they are to, and the requests of a stage made of them.

Where the engine takes a list of token ids, that is one, drawn from those that its own tokeniser makes of plain words: special ones aren't
among them. Where it only takes text, words are put together by what each counts, the whole is counted by the engine, and what a chat template
adds is measured once. Without a tokeniser a word is taken for a token, the length isn't known before, and the engine's usage tells it.
"""

from asyncio import Semaphore, gather
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from random import Random
from typing import Any, Final, Literal, NamedTuple, Protocol

from tallystick.probes.config import Load, Prefix, Workload
from tallystick.probes.engines.bodies import Prompt, body
from tallystick.probes.load.arrivals import arrivals, replayed
from tallystick.probes.load.sizes import Size, sizes
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.records import Ask, LoadPoint
from tallystick.probes.runs import EngineFacts

_MEASURED: Final = 32
"""Tokens of the prompt by which it is seen what the engine adds."""
_ROUNDS: Final = 4
_UNSEEN_IDS: Final = range(1000, 2000)
"""Taken where there is no tokeniser: below, some vocabularies have bytes and special tokens."""


class Tokeniser(Protocol):
    """The engine's own: probes/engines/tokens.py."""

    async def encode(self, text: str) -> Sequence[int]:
        """Ids of a text's tokens."""
        ...

    async def count(self, text: str) -> int:
        """How many they are."""
        ...


Used = Callable[[Prompt], Awaitable[int | None]]
"""Sends one request, and says how many tokens the engine counted in its prompt; None where it doesn't tell."""


class Made(NamedTuple):
    """tokens: of the prompt as the engine counts it, None where that isn't known."""

    prompt: Prompt
    tokens: int | None


class Asked(NamedTuple):
    """The requests of a stage, those that warm up first. notes: what was cut, repeated or isn't exact."""

    asks: tuple[Ask, ...]
    notes: tuple[str, ...]


class Prompts:
    """Makes the prompts of a run. salt: the run's id, for an engine that still has an earlier run's prompts in its cache must not know these."""

    def __init__(self, facts: EngineFacts, seed: int, salt: str) -> None:
        self.facts = facts
        self.notes: tuple[str, ...] = ()
        self._seed, self._salt = seed, salt
        self._words = plain_words()
        self._ids: tuple[int, ...] = ()
        self._costs: Mapping[str, int] = dict.fromkeys(self._words, 1)
        self._tokeniser: Tokeniser | None = None
        self._added: int | None = None

    async def prepare(self, tokeniser: Tokeniser | None, used: Used | None = None) -> None:
        """Learn the tokeniser and what the engine adds. Without `used`, that is taken to be nothing of ids, and not known of text."""
        self._tokeniser = tokeniser
        if self.facts.token_ids:
            self._ids, self._added = await _ids(tokeniser, self._words), 0
        elif tokeniser is not None:
            self._costs = await _costs(tokeniser, self._words)
            self._words = tuple(self._costs)
        if used is not None:
            await self._measure(used)
        self.notes = (self._said(),)

    async def prompt(self, size: Size, number: int, stage: int = 0) -> Made:
        """The same for the same seed, salt, stage and number. Raises what the tokeniser raises."""
        own, shared = Random(f"{self._seed}/{self._salt}/{stage}/{number}"), self._of_prefix(size, stage)  # noqa: S311
        kept = 0 if size.prefix is None else size.prefix_tokens
        if self._ids:
            wanted = max(1, size.input_tokens - (self._added or 0))
            kept = min(kept, wanted - 1)
            ids = (*shared.choices(self._ids, k=kept), *own.choices(self._ids, k=wanted - kept))
            return Made(Prompt(ids, ""), None if self._added is None else wanted + self._added)
        beginning = self._text("", shared, kept) if kept else ""
        return await self._exact(beginning, own, size.input_tokens)

    def _of_prefix(self, size: Size, stage: int) -> Random:
        return Random(f"{self._seed}/{self._salt}/{stage}/prefix {size.prefix}")  # noqa: S311

    async def _measure(self, used: Used) -> None:
        made = await self.prompt(Size(_MEASURED, 1, None, "", None), -1)
        if made.prompt.token_ids is not None:
            sent = len(made.prompt.token_ids)
        elif self._tokeniser is not None:
            sent = await self._tokeniser.count(made.prompt.text)
        else:
            return
        counted = await used(made.prompt)
        if counted is not None:
            self._added = counted - sent

    def _said(self) -> str:
        added = f"; the engine adds {self._added:,} of its own, which are in the length" if self._added else ""
        if self._ids:
            whence = "" if self._tokeniser else ", chosen blindly, for it has no tokeniser to ask"
            return f"prompts are lists of {len(self._ids):,} different token ids{whence}: their length is exact{added}"
        if self._tokeniser is None:
            return "the engine has no tokeniser to ask: prompts are about as long as they should be, and its usage tells how long"
        if self._added is None:
            return "prompts are text, counted by the engine's tokeniser; what a chat template adds isn't known, and its usage tells it"
        return f"prompts are text, counted by the engine's tokeniser: their length is exact{added}"

    async def _exact(self, beginning: str, random: Random, tokens: int) -> Made:
        target = tokens - (self._added or 0)
        state, asked = random.getstate(), target - _cost(beginning, self._costs)
        text = ""
        for _ in range(_ROUNDS):
            random.setstate(state)
            text = self._text(beginning, random, asked)
            if self._tokeniser is None:
                return Made(Prompt(None, text), None)
            counted = await self._tokeniser.count(text)
            if counted == target:
                return Made(Prompt(None, text), None if self._added is None else tokens)
            # Words beside each other may count otherwise than alone.
            asked += target - counted
        return Made(Prompt(None, text), None)

    def _text(self, beginning: str, random: Random, tokens: int) -> str:
        """Words after `beginning` that come to `tokens` by what each counts, at least one."""
        words = [beginning] if beginning else []
        largest = max(self._costs.values())
        left = tokens
        while left > 2 * largest:
            word = random.choice(self._words)
            words.append(word)
            left -= self._costs[word]
        words += self._last(left) or ([] if words else [random.choice(self._words)])
        return " ".join(words)

    def _last(self, left: int) -> list[str]:
        """Words that come to `left` together; [] where none do."""
        # least[n]: the last word of the fewest that come to n.
        least: list[list[str] | None] = [[]]
        by_cost = {cost: word for word, cost in self._costs.items()}
        for total in range(1, left + 1):
            ways = [
                (before, word) for cost, word in by_cost.items() if cost <= total and (before := least[total - cost]) is not None
            ]
            least.append(min(([*before, word] for before, word in ways), key=len, default=None))
        return (least[left] or []) if left >= 0 else []


def plain_words() -> tuple[str, ...]:
    """Of English, so common that most vocabularies have a token for each."""
    return tuple(files("tallystick.probes.load").joinpath("plain_words.txt").read_text(encoding="utf-8").split())


async def asks(
    prompts: Prompts,
    workload: Workload,
    load: Load,
    point: LoadPoint,
    *,
    stage: int,
    calls: Sequence[Call] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Asked:
    """The requests of one stage. calls: of the trace or feature that the workload names. extra: fields added to each request.

    Those that warm up are the first of the same schedule. Raises ValueError where a trace or feature holds no call; what the tokeniser raises.
    """
    drawn = sizes(
        workload, load.requests, load.seed, calls,
        warmup=load.warmup, context=prompts.facts.context, as_they_came=point.kind == "trace",
    )  # fmt: skip
    times = _times(point, drawn.sizes, load.seed, stage)
    made: list[Ask] = []
    inexact = 0
    for number, (size, at_ns) in enumerate(zip(drawn.sizes, times, strict=True)):
        prompt, tokens = await prompts.prompt(size, number, stage)
        inexact += tokens is None
        request = body(prompts.facts, prompt, size.output_tokens, extra or {})
        made.append(Ask(number, at_ns, request, tokens, size.output_tokens, size.group, warmup=number < load.warmup))
    notes = [*drawn.notes, *_blocks(workload.prefix, prompts.facts)]
    if inexact:
        notes.append(f"{inexact:,} of {len(made):,} prompts aren't exactly as long as they should be")
    return Asked(tuple(made), tuple(notes))


def _blocks(prefix: Prefix | None, facts: EngineFacts) -> Iterator[str]:
    """vLLM's cache keeps whole blocks: 16 tokens on GPUs, 128 on CPUs (its metric `vllm:cache_config_info` says it)."""
    size = str(facts.settings.get("block_size", ""))
    if prefix is not None and size.isdigit() and int(size) and prefix.tokens % int(size):
        kept = prefix.tokens // int(size) * int(size)
        yield f"of a prefix of {prefix.tokens:,} tokens the engine's cache keeps {kept:,}: whole blocks of {size}"


def _times(point: LoadPoint, drawn: Sequence[Size], seed: int, stage: int) -> Sequence[int | None]:
    if point.kind == "closed":
        return [None] * len(drawn)
    if point.kind == "trace":
        return replayed([size.at_ns for size in drawn if size.at_ns is not None], point.rate)
    assert point.rate is not None
    kind: Literal["constant", "poisson"] = "constant" if point.kind == "constant" else "poisson"
    return arrivals(kind, point.rate, len(drawn), seed, stage)


async def _ids(tokeniser: Tokeniser | None, words: Sequence[str]) -> tuple[int, ...]:
    """Of the tokens of words, but those that are put around every text."""
    if tokeniser is None:
        return tuple(_UNSEEN_IDS)
    one, other, every = await gather(*(tokeniser.encode(text) for text in (words[0], words[1], " ".join(words))))
    return tuple(sorted(set(every) - (set(one) & set(other))))


async def _costs(tokeniser: Tokeniser, words: Sequence[str]) -> dict[str, int]:
    """What each word counts after another. A word that counts nothing there is left out."""
    few = Semaphore(8)

    async def count(text: str) -> int:
        async with few:
            return await tokeniser.count(text)

    alone = await count(words[0])
    counted = await gather(*(count(f"{words[0]} {word}") for word in words))
    return {word: count - alone for word, count in zip(words, counted, strict=True) if count > alone}


def _cost(text: str, costs: Mapping[str, int]) -> int:
    return sum(costs[word] for word in text.split())
