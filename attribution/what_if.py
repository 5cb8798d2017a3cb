"""What-if price books: what calls of the past would have cost at other prices, without touching the ledger.

The models that were called get the prices of what stands in for them, and the engine prices the calls by them as it does when they
are entered: schema/sql/cost.sql. How to ask: docs/what-if.md.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from genai_prices.data import providers

from tallystick.attribution.moments import nanoseconds
from tallystick.attribution.prices import PriceBook, PriceRow
from tallystick.attribution.prices_file import Discount, UserPrices
from tallystick.attribution.prices_names import collapsed, provider_id, undated
from tallystick.attribution.spend import Ask, expression, period, quoted
from tallystick.attribution.sql_files import shared, statement
from tallystick.schema.models import Seen

MOST_MODELS: Final = 2_000
"""Models as spans name them, in one question: each takes up to 2 ms to price."""

_COUNTS: Final = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens",
    "audio_input_tokens", "audio_output_tokens", "image_input_tokens",
)  # fmt: skip
_KNOWN: Final = {collapsed(provider.id): provider.id for provider in providers}


class BadVariant(ValueError):
    """What is to be supposed can't be priced. `hint` says what to write instead."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class Replacement(NamedTuple):
    """Another model for those called `old`: a name, a pattern (`gpt-5*`), either after `provider/`. new: a model, or `provider/model`."""

    old: str
    new: str


@dataclass(frozen=True)
class Variant:
    """What is supposed. It starts from `prices`: the user's, which win over the public list.

    tier: of all calls (`batch`, `standard`, …; '' leaves each its own). discounts come off public list prices, and multiply with
    those of `prices`. public: what replaces another model is priced by the public list alone, whatever `prices` says.
    """

    prices: UserPrices
    replacements: tuple[Replacement, ...] = ()
    tier: str = ""
    discounts: tuple[Discount, ...] = ()
    public: bool = False


@dataclass(frozen=True)
class Question:
    """Calls of [since, until), nanoseconds since 1970, that fit `where` (dimension → value), by `dimensions`."""

    since_ns: int
    until_ns: int
    dimensions: tuple[str, ...] = ("model",)
    where: Mapping[str, str] | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Answer:
    """rows: columns of queries/what_if.sql. notes: what a reader must know to read them right."""

    rows: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...]


class Supposed(NamedTuple):
    """Prices of a variant under the names of the calls as they are, and what is to be said of them."""

    rows: tuple[PriceRow, ...]
    notes: tuple[str, ...]


def what_if(ask: Ask, variant: Variant, question: Question) -> Answer:
    """Raises BadVariant, UnknownDimension, and what `ask` raises."""
    params: dict[str, Any] = {"limit": MOST_MODELS + 1}
    conditions = _conditions(question, params)
    called = ask(statement("models_called").replace("/*conditions*/", conditions), params)
    if len(called) > MOST_MODELS:
        raise BadVariant(
            f"more than {MOST_MODELS:,} models were called in this time, by the names that spans give them",
            "ask for less: a shorter period, or one provider with `where`",
        )
    seen = [Seen(*(row[name] for name in Seen._fields)) for row in called]
    supposed = suppose(variant, seen)
    params |= {
        "prices": _as_json(supposed.rows),
        "book": "",
        "limit": question.limit if question.limit is not None else 2**63 - 1,
    }
    return Answer(ask(_priced(question, conditions, params), params), supposed.notes)


def suppose(variant: Variant, seen: Iterable[Seen]) -> Supposed:
    """The prices of what stands in for each model of `seen`. Pure. Raises BadVariant for a supposition that fits none of them."""
    seen = tuple(dict.fromkeys(seen))
    book = _book(variant.prices, variant.discounts)
    listed = _book(UserPrices(), variant.discounts) if variant.public else book
    stand_in = {one: as_if(one, variant, listed) for one in seen}
    _check(variant, seen, stand_in, (book, listed))
    rows: list[PriceRow] = []
    at_base: set[str] = set()
    for one, other in stand_in.items():
        found = (book if _replacement(one, variant) is None else listed).rows([other])
        rows += [row._replace(**one._asdict()) for row in found]
        if variant.tier and found and all(",at=base" in price_id for row in found for price_id in row.price_ids):
            at_base.add(found[0].price_key.partition(",")[0])
    return Supposed(tuple(rows), tuple(_notes(variant, at_base)))


def as_if(seen: Seen, variant: Variant, book: PriceBook) -> Seen:
    """What stands in for a model as seen. A new name is looked for at the same provider, then by itself."""
    tier = variant.tier or seen.service_tier
    replacement = _replacement(seen, variant)
    if replacement is None:
        return seen._replace(service_tier=tier)
    head, slash, rest = replacement.new.partition("/")
    if slash and (named := provider_id(head, _KNOWN)) in _KNOWN.values():
        return Seen(named, rest, "", tier)
    same = Seen(seen.provider, replacement.new, "", tier)
    return same if book.resolve(same) else same._replace(provider="")


def _replacement(seen: Seen, variant: Variant) -> Replacement | None:
    names = [name.strip().lower() for name in (seen.response_model, seen.request_model) if name]
    names += [shorter for name in names if (shorter := undated(name))]
    by_provider = [
        f"{provider}/{name}" for name in names for provider in (seen.provider.lower(), provider_id(seen.provider, _KNOWN))
    ]
    return next(
        (one for one in variant.replacements if any(fnmatchcase(name, one.old.lower()) for name in (*names, *by_provider))), None
    )


def _check(variant: Variant, seen: Sequence[Seen], stand_in: Mapping[Seen, Seen], books: tuple[PriceBook, PriceBook]) -> None:
    book, listed = books
    if not seen:
        return
    called = sorted({name for one in seen for name in (one.response_model, one.request_model) if name})
    for replacement in variant.replacements:
        of_it = [one for one in seen if _replacement(one, variant) is replacement]
        if not of_it:
            raise BadVariant(f"no model of this time is called {replacement.old!r}", _meant(replacement.old, called))
        if not any(listed.resolve(stand_in[one]) for one in of_it):
            close = get_close_matches(replacement.new, [model.id for provider in providers for model in provider.models], 1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else "`tallystick prices list` has all; state others in a file, see docs/prices.md"
            )
            raise BadVariant(f"there is no price for {replacement.new!r}", hint)
    billed = sorted({key.partition("/")[0] for one in stand_in.values() if (key := book.resolve(one) or listed.resolve(one))})
    for discount in variant.discounts:
        if discount.provider and provider_id(discount.provider, _KNOWN) not in billed:
            message = f"the discount of {discount.provider!r} fits no priced call of this time"
            raise BadVariant(message, _meant(discount.provider, billed))


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known[:10])}{' …' if len(known) > 10 else ''}"


def _notes(variant: Variant, at_base: Iterable[str]) -> Iterable[str]:
    if variant.replacements:
        yield "tokens are those that were counted: another model counts the same text differently, and answers at another length"
    if variant.replacements and variant.public:
        yield "replacing models are priced by the public list"
    if models := sorted(at_base):
        named = ", ".join(models[:5]) + (f" and {len(models) - 5} more" if len(models) > 5 else "")
        yield f"no price at service tier {variant.tier} is known of {named}: their base price is taken"


def _book(prices: UserPrices, discounts: tuple[Discount, ...]) -> PriceBook:
    return PriceBook(prices.model_copy(update={"discounts": (*prices.discounts, *discounts)}))


def _priced(question: Question, conditions: str, params: dict[str, Any]) -> str:
    names = [f"by_{at}" for at in range(len(question.dimensions))]
    expressions = [
        f"{expression(dimension, f'tag_{name}', params)} AS {name}, "
        for name, dimension in zip(names, question.dimensions, strict=True)
    ]
    columns = [f"{name} AS {quoted(dimension)}, " for name, dimension in zip(names, question.dimensions, strict=True)]
    return (
        statement("what_if")
        .replace("/*dimensions*/", "".join(columns))
        .replace("/*names*/", "".join(f"{name}, " for name in names))
        .replace("/*expressions*/", "".join(expressions))
        .replace("/*counts*/", ", ".join(f"sign * {name} AS {name}" for name in _COUNTS))
        .replace("/*order*/", ", ".join(names) or "1")
        .replace("/*conditions*/", conditions)
        .replace("/*cost*/", shared("cost"))
        .replace("/*join*/", shared("cost_join"))
    )


def _conditions(question: Question, params: dict[str, Any]) -> str:
    conditions = [period(question.since_ns, question.until_ns, params)]
    for at, (name, value) in enumerate((question.where or {}).items()):
        params[f"where_{at}"] = value
        conditions.append(f"toString({expression(name, f'where_tag_{at}', params)}) = {{where_{at}:String}}")
    return " AND ".join(conditions)


def _as_json(rows: Iterable[PriceRow]) -> str:
    return json.dumps(
        [
            [
                *(row.provider, row.request_model, row.response_model, row.service_tier, nanoseconds(row.valid_from)),
                *(row.price_ids, [f"{rate:f}" for rate in row.rates], row.above, row.day_starts),
            ]
            for row in rows
        ]
    )


def replacement(text: str) -> Replacement:
    """`OLD=NEW`. Raises BadVariant."""
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (old and equals and new):
        raise BadVariant(f"{text!r} isn't OLD=NEW", "write gpt-5=gpt-5-mini, or 'claude-*=anthropic/claude-haiku-4-5'")
    return Replacement(old, new)


def discount(text: str) -> Discount:
    """`PROVIDER=PERCENT` or `PROVIDER/MODEL=PERCENT`, with or without %; PROVIDER may be `*`. Raises BadVariant."""
    name, equals, percent = (part.strip() for part in text.rpartition("="))
    provider, slash, model = name.partition("/")
    try:
        if not (name and equals):
            raise ValueError
        given: dict[str, Any] = {"percent": percent.removesuffix("%").strip()}
        given |= {"provider": provider} if provider != "*" else {}
        return Discount.model_validate(given | ({"model": model} if slash else {}))
    except ValueError:
        raise BadVariant(f"{text!r} is no discount", "write openai=20%, or openai/gpt-5*=12.5%; 0 to 100 percent") from None
