"""The user's prices: the `prices:` part of the configuration file, validated. Reference: docs/prices.md."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tallystick.attribution.config_file import ConfigFileError, Loc, problems_of, read

MAX_USD_A_TOKEN: Final = Decimal(100)
"""More can only be a mistake, and would leave the range in which the ledger calculates exactly."""


class PriceFileError(ConfigFileError):
    """The user's prices can't be used."""


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

    @property
    def origin(self) -> str:
        """What price ids begin with; `file` is completed by the file's version."""
        return "file"

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if not self.per_million_tokens.stated() and "per_request" not in self.model_fields_set:
            raise ValueError("states no price: add `per_million_tokens` or `per_request` (0 for a model that is free)")
        starts = [tier.input_tokens for tier in self.above]
        if starts != sorted(set(starts)):
            raise ValueError("`above` must be in ascending order of `input_tokens`, each once")
        return self


class MeasuredPrice(OwnPrice):
    """What a token of an own engine costs, as a probe measured it. It stands below the file's prices.

    `provider` is what its owner calls it. A span names it, nothing, the vendor whose protocol is spoken, or the engine's software:
    all are meant, unless the public list prices the model there. `source` says how the price came about.
    """

    run: Name

    @classmethod
    def entered(cls, entry: Mapping[str, object]) -> Self:
        """A row of table `measured_prices`. Raises pydantic's ValidationError."""
        return cls.model_validate(
            {
                "provider": entry["provider"],
                "model": entry["model"],
                "from": entry["valid_from"],
                "per_million_tokens": {bucket: entry[bucket] for bucket in ("input", "cache_read", "output")},
                "source": f"probe {entry['run']}: {entry['definition']}",
                "run": entry["run"],
            }
        )

    @property
    def origin(self) -> str:
        return f"probe@{self.run}"


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
    _measured: tuple[MeasuredPrice, ...] = PrivateAttr(())

    @property
    def measured(self) -> tuple[MeasuredPrice, ...]:
        """Prices of the ledger, not of a file, in the order in which later ones replace earlier ones."""
        return self._measured

    def with_measured(self, prices: Iterable[MeasuredPrice]) -> Self:
        """The same file's prices, over these."""
        found = self.model_copy()
        found._measured = tuple(prices)
        return found

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
        raise PriceFileError(problems_of(error, UserPrices, ("prices",), file, line_of)) from None


def read_prices(text: str, file: str = "configuration") -> UserPrices:
    """`load_prices` of the text of a YAML file, with line numbers in the messages. Raises `PriceFileError`."""
    try:
        found = read(text, file, "prices", "docs/prices.md")
    except ConfigFileError as error:
        raise PriceFileError(error.problems) from None
    return load_prices(found.content, file, found.line)


def load_prices_file(path: Path) -> UserPrices:
    """`read_prices` of a file. Raises `PriceFileError`, `OSError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PriceFileError([f"{path}: not valid YAML: {error}"]) from None
    return read_prices(text, str(path))
