"""Rules of the configuration: what is watched besides budgets. Each `type` has its own fields. Reference: docs/budgets.md."""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tallystick.alerts.config_fields import (
    Dimension,
    Duration,
    Name,
    Names,
    Number,
    Part,
    Positive,
    QuietHours,
    Scope,
    Zone,
)

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


class _Rule(Part):
    name: Name
    scope: Scope = Field(default_factory=dict)
    notify: Names
    quiet_hours: QuietHours | None = None
    timezone: Zone = "UTC"
    """Of the quiet hours, and of weekdays and hours where a rule looks at them."""
    owners: Names = ()

    @field_validator("quiet_hours")
    @classmethod
    def _without_exception(cls, quiet: QuietHours | None) -> QuietHours | None:
        if quiet and quiet.except_:
            raise ValueError("`except` names thresholds of a budget; a rule has none")
        return quiet


class _RuleOfEach(_Rule):
    each: Dimension | None = None
    """Judged for each value of this dimension by itself."""

    @field_validator("each")
    @classmethod
    def _not_fixed(cls, each: str | None, info: ValidationInfo) -> str | None:
        if each is not None and len(info.data.get("scope", {}).get(each, ())) == 1:
            raise ValueError(f"`scope` fixes {each} to one value already: take it out of one of them")
        return each


class Figure(StrEnum):
    """What an anomaly is looked for in, hour by hour."""

    SPEND = "spend"
    TOKENS_PER_CALL = "tokens_per_call"
    ERROR_SHARE = "error_share"
    CACHE_HIT_SHARE = "cache_hit_share"


class AnomalyRule(_RuleOfEach):
    """An hour unlike the same hour of the week in the weeks before.

    sensitivity: how many robust standard deviations (1.4826 times the median absolute deviation) away from the median is unusual.
    floor: hours with less spend than this, in USD, are never unusual, nor are differences smaller than this in spend.
    """

    type: Literal["anomaly"] = "anomaly"
    figure: Figure = Figure.SPEND
    sensitivity: Annotated[Number, Field(ge=1, le=100)] = Decimal(4)
    floor: Annotated[Number, Field(ge=0)] = Decimal(1)
    weeks: Annotated[int, Field(ge=2, le=26)] = 4
    """Of history that an hour is compared with."""


class LatencyRule(_RuleOfEach):
    """The share of calls whose time to first token is above `ttft_ms` eats up what `percentile` allows, `burn` times too fast.

    With percentile 95, five of a hundred calls may be slower; burn 2 speaks up at ten. It must hold over `window` and over its last
    twelfth, so that an alert doesn't outlive its cause (Google's SRE workbook, chapter 5: multiwindow burn rates).
    """

    type: Literal["latency"] = "latency"
    ttft_ms: Positive
    percentile: Annotated[Number, Field(ge=50, lt=100)] = Decimal(95)
    burn: Annotated[Number, Field(ge=1)] = Decimal(2)
    window: Duration = timedelta(hours=1)
    minimum_calls: Count = 20

    @field_validator("burn")
    @classmethod
    def _possible(cls, burn: Decimal, info: ValidationInfo) -> Decimal:
        if (percentile := info.data.get("percentile")) is not None and burn * (100 - percentile) > 100:
            raise ValueError(
                f"can't be reached: percentile {percentile} burns at most {100 / (100 - percentile):.4g} times too fast"
            )
        return burn


class CostPerSuccessRule(_RuleOfEach):
    """Spend over calls that succeeded comes to more than `at_most`, in USD."""

    type: Literal["cost_per_success"] = "cost_per_success"
    at_most: Positive
    window: Duration = timedelta(hours=1)
    minimum_calls: Count = 20


class NoDataRule(_RuleOfEach):
    """No call has arrived for `after`, where there had been some in the week before."""

    type: Literal["no_data"] = "no_data"
    after: Duration = timedelta(minutes=30)


class UnpricedRule(_RuleOfEach):
    """More than `at_most_percent` of the tokens have no price."""

    type: Literal["unpriced"] = "unpriced"
    at_most_percent: Annotated[Number, Field(ge=0, lt=100)] = Decimal(5)
    window: Duration = timedelta(days=1)
    minimum_tokens: Count = 10_000


class ProbeFigure(StrEnum):
    """What a probe measures of an engine: medians of TTFT and TPOT at each load, and the most output tokens a second."""

    TTFT = "ttft"
    TPOT = "tpot"
    THROUGHPUT = "throughput"


class ProbeRegressionRule(_Rule):
    """A probe of an engine came out worse than the median of the `runs` before by more than `worse_by_percent`.

    engine: an engine's name in the probe's configuration, or a kind such as vllm.
    """

    type: Literal["probe_regression"] = "probe_regression"
    figure: ProbeFigure = ProbeFigure.TTFT
    engine: Name | None = None
    """All engines if none is named."""
    worse_by_percent: Annotated[Number, Field(gt=0, le=10_000)] = Decimal(20)
    runs: Annotated[int, Field(ge=2, le=100)] = 5

    @field_validator("scope")
    @classmethod
    def _of_no_customer(cls, scope: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if scope:
            raise ValueError("a probe's calls are nobody's: `engine` says which are looked at")
        return scope


Rule = Annotated[
    AnomalyRule | LatencyRule | CostPerSuccessRule | NoDataRule | UnpricedRule | ProbeRegressionRule, Field(discriminator="type")
]
