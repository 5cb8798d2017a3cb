"""The user's rules for shared cost: the `allocations:` part of the configuration file. Reference: docs/allocation.md."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from tallystick.attribution.config_file import ConfigFileError, problems_of, read
from tallystick.attribution.corrections import WHO
from tallystick.attribution.months import Length
from tallystick.attribution.spend import UnknownDimension, check_dimension

Kind = Literal["overhead", "fixed", "idle", "amount"]
By = Literal["cost", "tokens", "calls", "equal", "shares"]

_FIELDS: Final[Mapping[Kind, frozenset[str]]] = {
    "overhead": frozenset({"percent"}),
    "fixed": frozenset({"amount", "per"}),
    "idle": frozenset({"usd_per_hour", "gpus", "hours", "charged_to"}),
    "amount": frozenset(),
}
"""Fields that are of one kind of rule only."""

_NEEDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "overhead": ("percent",), "fixed": ("amount",), "idle": ("usd_per_hour", "charged_to"), "amount": (),
}  # fmt: skip


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("write a number")
    return str(value) if isinstance(value, float) else value


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


Number = Annotated[Decimal, BeforeValidator(_number), Field(allow_inf_nan=False, max_digits=24, decimal_places=12)]
Words = Annotated[tuple[str, ...], BeforeValidator(_several)]


class AllocationRule(BaseModel):
    """How an amount comes about (`kind` and the fields of it), and who bears it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")
    kind: Kind
    percent: Number | None = None
    amount: Number | None = None
    per: Literal["period", "day"] | None = None
    usd_per_hour: Number | None = Field(default=None, ge=0)
    gpus: Number | None = Field(default=None, gt=0)
    hours: Number | None = Field(default=None, ge=0)
    charged_to: dict[str, str] | None = Field(default=None, min_length=1)
    over: Words = Field(min_length=1)
    by: By = "cost"
    shares: dict[str, Annotated[Number, Field(ge=0)]] = {}
    tenant: str | None = None
    scope: dict[str, str] = {}
    set: dict[str, str] = {}
    period: Length = "month"
    include_allocations: bool = False
    reason: str = ""

    @field_validator("over")
    @classmethod
    def _over_who(cls, over: tuple[str, ...]) -> tuple[str, ...]:
        for name in over:
            if name != "tenant":
                _check_who(name)
        return tuple(dict.fromkeys(over))

    @field_validator("set")
    @classmethod
    def _set_who(cls, names: dict[str, str]) -> dict[str, str]:
        for name in names:
            _check_who(name)
        return names

    @field_validator("scope", "charged_to")
    @classmethod
    def _known(cls, names: dict[str, str] | None) -> dict[str, str] | None:
        for name in names or {}:
            check_dimension(name)
        return names

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        others = {name for kind, names in _FIELDS.items() if kind != self.kind for name in names}
        if wrong := sorted(others & self.model_fields_set):
            kind = next(kind for kind, names in _FIELDS.items() if wrong[0] in names)
            raise ValueError(f"`{wrong[0]}` is of rules of kind {kind}, this one is of kind {self.kind}")
        if missing := [name for name in _NEEDED[self.kind] if getattr(self, name) is None]:
            raise ValueError(f"a rule of kind {self.kind} needs `{missing[0]}`")
        if (self.by == "shares") != bool(self.shares):
            raise ValueError("`by: shares` and `shares: {NAME: NUMBER}` go together")
        if self.by == "shares" and (len(self.over) != 1 or not any(self.shares.values())):
            raise ValueError("`by: shares` needs one dimension in `over`, and a share that isn't 0")
        if self.tenant is not None and (self.by != "shares" or self.over == ("tenant",)):
            raise ValueError("`tenant` says whose given shares are; otherwise each tenant bears its own")
        if both := sorted(set(self.over) & self.set.keys()):
            raise ValueError(f"`{both[0]}` can't be in both `over` and `set`")
        return self

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed, and rarely meant."""
        if self.percent is not None and not 0 <= self.percent <= 100:
            return (f"{self.percent:f} % isn't between 0 and 100: 15 to 30 are usual for hidden cost",)
        return ()


class _Allocations(BaseModel):
    allocations: tuple[AllocationRule, ...] = ()

    @field_validator("allocations")
    @classmethod
    def _named_once(cls, rules: tuple[AllocationRule, ...]) -> tuple[AllocationRule, ...]:
        names = [rule.name for rule in rules]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the name {twice} is there twice")
        return rules


def read_allocations(text: str, file: str = "configuration") -> tuple[AllocationRule, ...]:
    """The section of a YAML text; others aren't looked at. Raises ConfigFileError with every problem by line."""
    found = read(text, file, "allocations", "docs/allocation.md")
    try:
        return _Allocations.model_validate({"allocations": found.content.get("allocations") or ()}).allocations
    except ValidationError as error:
        raise ConfigFileError(problems_of(error, _Allocations, (), file, found.line)) from None


def load_allocations(path: Path) -> tuple[AllocationRule, ...]:
    """`read_allocations` of a file. Raises ConfigFileError, OSError."""
    try:
        return read_allocations(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise ConfigFileError([f"{path}: is no text in UTF-8"]) from None


def _check_who(name: str) -> None:
    check_dimension(name)
    if name not in WHO and not name.startswith("tag:"):
        raise UnknownDimension(f"cost can't be given to a {name}: there are {', '.join(WHO)} and tag:NAME")
