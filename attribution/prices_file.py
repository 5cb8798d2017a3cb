"""The user's prices: the `prices:` part of the configuration file, validated. Reference: docs/prices.md."""

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Self, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

MAX_USD_A_TOKEN: Final = Decimal(100)
"""More can only be a mistake, and would leave the range in which the ledger calculates exactly."""

Loc = tuple[int | str, ...]


class PriceFileError(ValueError):
    """The user's prices can't be used. Each of `problems` says where, what is wrong, and what to write instead."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def _instant(value: object) -> object:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise ValueError("write a date (2026-01-31) or a time (2026-01-31T12:00:00Z)")


def _names(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return value


Instant = Annotated[datetime, BeforeValidator(_instant)]
Number = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=1_000_000, allow_inf_nan=False, max_digits=24)]
Percent = Annotated[Number, Field(le=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s,]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=False)


class Rule(_Part):
    """What a rule is for (nothing said: everything), from when (inclusive) until when (exclusive), and on whose word."""

    provider: Name | None = None
    model: Annotated[tuple[Name, ...], BeforeValidator(_names)] = ()
    from_: Instant | None = Field(default=None, alias="from")
    until: Instant | None = None
    source: str = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.from_ and self.from_.year < 1970:
            raise ValueError("`from` lies before 1970; leave it out for a price that was always valid")
        if self.from_ and self.until and self.until <= self.from_:
            raise ValueError("`until` must be after `from` (it is the first moment at which the price no longer holds)")
        return self

    def valid_at(self, moment: datetime) -> bool:
        return (self.from_ is None or self.from_ <= moment) and (self.until is None or moment < self.until)


class TokenPrices(_Part):
    """Prices for a million tokens of a bucket. A bucket without one is charged as the bucket that it is part of."""

    input: Number | None = None
    cache_read: Number | None = None
    cache_write: Number | None = None
    cache_write_5m: Number | None = None
    cache_write_1h: Number | None = None
    output: Number | None = None
    reasoning: Number | None = None
    audio_input: Number | None = None
    audio_output: Number | None = None
    image_input: Number | None = None

    def stated(self) -> dict[str, Decimal]:
        return self.model_dump(exclude_none=True)


class Above(_Part):
    """Prices for all tokens of a call whose whole input (cache included) is larger than `input_tokens`."""

    input_tokens: int = Field(ge=0, lt=2**32)
    per_million_tokens: TokenPrices


class OwnPrice(Rule):
    """A model's price, in `currency`. Wins over the public list; of several that hold, the last in the file wins."""

    model: Annotated[tuple[Name, ...], BeforeValidator(_names)] = Field(min_length=1)
    service_tier: Name | None = None
    per_million_tokens: TokenPrices = TokenPrices()
    per_request: Number = Decimal(0)
    above: tuple[Above, ...] = ()
    currency: str = Field(default="USD", pattern="^[A-Z]{3}$")
    exchange_rate: Number | None = Field(default=None, gt=0)
    markup_percent: Percent = Decimal(0)

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if not self.per_million_tokens.stated() and "per_request" not in self.model_fields_set:
            raise ValueError("states no price: add `per_million_tokens` or `per_request` (0 for a model that is free)")
        starts = [tier.input_tokens for tier in self.above]
        if starts != sorted(set(starts)):
            raise ValueError("`above` must be in ascending order of `input_tokens`, each once")
        return self


class Discount(Rule):
    """A reduction of public list prices."""

    percent: Percent = Field(le=100)


class Markup(Rule):
    """A surcharge on every price, for costs that no price list shows."""

    percent: Percent


class TierFactor(Rule):
    """What a service tier costs, as a factor of the base price, where it has no price of its own."""

    service_tier: Name
    factor: Number = Field(le=100)


class UserPrices(_Part):
    """The content of `prices:`."""

    exchange_rates: dict[str, Annotated[Number, Field(gt=0)]] = {}
    providers: dict[str, Name] = {}
    models: tuple[OwnPrice, ...] = ()
    discounts: tuple[Discount, ...] = ()
    markups: tuple[Markup, ...] = ()
    service_tiers: tuple[TierFactor, ...] = ()

    @field_validator("models")
    @classmethod
    def _in_usd(cls, models: tuple[OwnPrice, ...], info: ValidationInfo) -> tuple[OwnPrice, ...]:
        rates = {"USD": Decimal(1), **info.data.get("exchange_rates", {})}
        converted = []
        for at, price in enumerate(models):
            rate = price.exchange_rate or rates.get(price.currency)
            if rate is None:
                raise ValueError(
                    f"models[{at}] is in {price.currency}, which has no exchange rate: "
                    f"add `exchange_rates: {{{price.currency}: …}}`, the price of one {price.currency} in USD"
                )
            converted.append(price.model_copy(update={"exchange_rate": rate}))
        return tuple(converted)

    @model_validator(mode="after")
    def _within_range(self) -> Self:
        surcharge = Decimal(1)
        for markup in self.markups:
            surcharge *= 1 + markup.percent / 100
        surcharge *= max((tier.factor for tier in self.service_tiers), default=Decimal(1))
        for at, price in enumerate(self.models):
            stated = [
                *price.per_million_tokens.stated().values(),
                *(p for t in price.above for p in t.per_million_tokens.stated().values()),
            ]
            dearest = max([*stated, price.per_request * 1000, Decimal(1000)]) / 1_000_000
            if (
                dearest * (price.exchange_rate or 1) * (1 + price.markup_percent / 100) * max(surcharge, Decimal(1))
                > MAX_USD_A_TOKEN
            ):
                raise ValueError(
                    f"models[{at}] comes to more than {MAX_USD_A_TOKEN} USD a token: prices are for a million tokens"
                )
        return self

    @property
    def version(self) -> str:
        """Eight hex digits that change with the content; '' when no price is stated."""
        content = self.model_dump_json(by_alias=True, exclude_defaults=True)
        return "" if content == "{}" else hashlib.sha256(content.encode()).hexdigest()[:8]


def load_prices(
    config: Mapping[str, object], file: str = "configuration", line_of: Callable[[Loc], int | None] = lambda _: None
) -> UserPrices:
    """The key `prices` of a parsed configuration; other keys are not looked at. `line_of` tells the line of a field.

    Raises `PriceFileError` with every problem found.
    """
    try:
        return UserPrices.model_validate(config.get("prices") or {})
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            loc = ("prices", *detail["loc"])
            line = line_of(loc)
            problems.append(f"{file}{f':{line}' if line else ''}: {_dotted(loc)}: {_advice(detail)}")
        raise PriceFileError(problems) from None


def load_prices_file(path: Path) -> UserPrices:
    """`load_prices` of a YAML file, with line numbers in the messages. Raises `PriceFileError`, `OSError`."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        repeated = list(_repeated_keys(root, within="prices"))
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise PriceFileError([f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}"]) from None
    if repeated:
        raise PriceFileError([f"{path}:{line}: `{key}` is there twice in the same place: keep one" for key, line in repeated])
    if not isinstance(config, dict):
        raise PriceFileError([f"{path}: expected a mapping with the key `prices`, see docs/prices.md"])
    return load_prices(config, str(path), lambda loc: _line(root, loc))


def _dotted(loc: Loc) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")


def _advice(detail: ErrorDetails) -> str:
    field = str(detail["loc"][-1]) if detail["loc"] else "prices"
    if detail["type"] == "extra_forbidden":
        known = _fields_at(detail["loc"][:-1])
        near = difflib.get_close_matches(field, known, 1)
        return f"unknown field; did you mean `{near[0]}`?" if near else f"unknown field; known here: {', '.join(known)}"
    if detail["type"] == "missing":
        return f"is missing: add `{field}`"
    if detail["type"] == "string_pattern_mismatch":
        return "three capital letters such as EUR" if field == "currency" else "a name without spaces or commas"
    return f"{detail['msg'].removeprefix('Value error, ')} (found {detail['input']!r:.60})"


def _fields_at(loc: Loc) -> list[str]:
    """Names of the fields of the part of the file at `loc`, by following the declared types."""
    part: type[BaseModel] = UserPrices
    for step in loc:
        if isinstance(step, str):
            declared = part.model_fields[step].annotation
            part = next((t for t in (declared, *get_args(declared)) if isinstance(t, type) and issubclass(t, BaseModel)), part)
    return [field.alias or name for name, field in part.model_fields.items()]


def _line(root: Any, loc: Loc) -> int | None:
    """The line of the deepest node on the way to `loc` that exists."""
    node, line = root, None
    for step in loc:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == step), None)
            if pair is None:
                break
            node, line = pair[1], pair[0].start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _repeated_keys(node: Any, within: str | None = None) -> Any:
    """(key, line) of mapping keys that YAML would silently let the last one win of. within: of deeper keys, only those of this part."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield key.value, key.start_mark.line + 1
            seen.add(key.value)
            if within in {None, key.value}:
                yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)
