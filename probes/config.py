"""What a probe is to measure: the YAML file of `tallystick probe run`, validated. Reference: docs/probes.md."""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

KINDS: Final = ("vllm", "llamacpp", "sglang", "tgi", "tensorrt-llm", "triton", "ollama", "transformers", "openai")
"""Of engines, as probes/engines/profiles.yaml has them; `openai` is any other that speaks its protocol."""

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class ConfigError(ValueError):
    """The file can't be used. `problems`: where, and what is wrong, one a line."""

    def __init__(self, file: str, problems: list[str]) -> None:
        super().__init__("\n".join(f"{file}: {problem}" for problem in problems))
        self.problems = problems


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Start(_Part):
    """An engine to be started for the run and stopped after it, from a package that is installed."""

    model: str
    """A file or folder, or `generated:F32`, `generated:Q8_0`, `generated:Q4_0` for random weights that are made here."""
    options: dict[str, str | int | float | bool] = {}
    """Of the engine itself, as its own command line names them."""


class Variant(_Part):
    """What of the model is measured: shown and compared, not verified."""

    model: str = ""
    quantisation: str = ""
    """FP16, BF16, F32, Q8_0, Q4_0, AWQ, GPTQ …"""
    notes: str = ""


class Hardware(_Part):
    """On what it runs, as far as it can't be found out."""

    gpu: str = ""
    gpus: Annotated[int, Field(ge=0, le=100_000)] | None = None
    notes: str = ""


class Cost(_Part):
    """What the hardware costs: rented by the hour, or bought. USD. Formulas: probes/money/hourly_cost.py."""

    usd_per_hour: Money | None = None
    """Of one machine, or of one GPU where `gpus` says how many there are."""
    gpus: Annotated[int, Field(ge=1, le=100_000)] = 1
    purchase_usd: Money | None = None
    years: Positive = 4
    residual_percent: Annotated[Decimal, Field(ge=0, le=100)] = Decimal(0)
    watts: Positive | Literal["nvml"] | None = None
    """Drawn under load, or measured while the probe runs."""
    pue: Annotated[Decimal, Field(ge=1, le=10)] = Decimal("1.3")
    usd_per_kwh: Money = Decimal("0.15")
    fixed_usd_per_month: Money = Decimal(0)
    """What comes on top: people, space, network."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.usd_per_hour is None) == (self.purchase_usd is None):
            raise ValueError("give `usd_per_hour` (rented) or `purchase_usd` (bought), one of them")
        return self


class EngineEntry(_Part):
    """One engine to be measured: at `url`, or started by `start`."""

    name: Name
    engine: Literal["vllm", "llamacpp", "sglang", "tgi", "tensorrt-llm", "triton", "ollama", "transformers", "openai"] = "openai"
    url: str | None = None
    model: str | None = None
    """As the engine calls it; the only one that it serves unless given."""
    api: Literal["chat", "completions", "auto"] = "auto"
    key_env: str | None = None
    """Variable of the environment that holds its API key."""
    start: Start | None = None
    variant: Variant = Variant()
    hardware: Hardware = Hardware()
    cost: Cost | None = None
    machine: str = ""
    """Engines of one machine are never measured at once; '' is the host of the URL."""
    request: dict[str, Any] = {}
    """Fields added to each request."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.url is None) == (self.start is None):
            raise ValueError("give `url` (it runs already) or `start` (it is to be started), one of them")
        return self

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return url.rstrip("/") if url else url


class Spread(_Part):
    """A distribution of token counts: always `mean`, or uniform between `min` and `max`, or normal around `mean` and cut at both."""

    mean: Tokens | None = None
    stdev: Annotated[float, Field(ge=0)] = 0
    min: Tokens | None = None
    max: Tokens | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.mean is None and (self.min is None or self.max is None):
            raise ValueError("give `mean`, or `min` and `max`")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("`min` is more than `max`")
        return self


class Feature(_Part):
    """Real calls of a feature (or any other dimension) in the ledger of a tallystick server: their sizes, and their times."""

    where: dict[str, str] = {}
    since: str = "7d"
    until: str | None = None


class Prefix(_Part):
    """A prompt's beginning that calls share. `experiment` sends the four groups of docs/probes.md: cold, warm, control, interleaved."""

    tokens: Tokens
    share: Annotated[float, Field(ge=0, le=1)] = 1
    """Of the calls."""
    distinct: Annotated[int, Field(ge=1)] = 1
    experiment: bool = False


class Workload(_Part):
    """What is asked: synthetic prompts (input_tokens, output_tokens), a trace file, or a feature's own history."""

    input_tokens: Tokens | Spread | None = None
    output_tokens: Tokens | Spread | None = None
    trace: Path | None = None
    """A file as `tallystick replay` takes it, or `azure-conversation`, `azure-code`, `mooncake`: those that come with tallystick."""
    ledger: Feature | None = None
    most_input_tokens: Tokens | None = None
    """Calls of a trace or feature that are larger are cut to this many, and said to be."""
    most_output_tokens: Tokens | None = None
    prefix: Prefix | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        sources = [self.trace is not None, self.ledger is not None, self.input_tokens is not None]
        if sum(sources) != 1:
            raise ValueError("give one of `input_tokens` (with `output_tokens`), `trace` and `ledger`")
        if self.input_tokens is not None and self.output_tokens is None:
            raise ValueError("`output_tokens` is missing")
        return self


class Load(_Part):
    """How it is asked. A stage a rate or concurrency; `sweep` chooses its own rates until it has found the knee and the limit.

    constant, poisson: open loop, `rates` a second. trace: at the workload's own times, `rates` scale them to that mean (none: as they were).
    closed: so many at once, the next when one ends.
    """

    kind: Literal["constant", "poisson", "trace", "closed", "sweep"]
    rates: tuple[Positive, ...] = ()
    concurrencies: tuple[Annotated[int, Field(ge=1, le=100_000)], ...] = ()
    stages: Annotated[int, Field(ge=3, le=30)] = 8
    """Most of a sweep."""
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    """Of a stage, without those that warm up."""
    warmup: Annotated[int, Field(ge=0, le=10_000)] = 5
    seconds: Positive = 120
    """After which a stage ends, whatever is under way."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 20261121

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind in ("constant", "poisson") and not self.rates:
            raise ValueError(f"`rates` is missing: requests a second of each stage of a {self.kind} load")
        if self.kind == "closed" and not self.concurrencies:
            raise ValueError("`concurrencies` is missing: requests at once of each stage of a closed loop")
        fastest = max(self.rates, default=0)
        if fastest > 100_000:
            raise ValueError(f"{fastest:g} requests a second can't be sent by one client")
        if self.kind in ("constant", "poisson") and self.rates and self.requests / min(self.rates) > self.seconds * 10:
            raise ValueError(
                f"{self.requests} requests at {min(self.rates):g} a second take {self.requests / min(self.rates):,.0f} seconds,"
                f" and a stage ends after {self.seconds:g}: raise `seconds`, or ask for fewer"
            )
        return self


class Target(_Part):
    """The latency within which a request counts as good (goodput), in ms; and the share of requests that must be good."""

    ttft_ms: Positive | None = None
    tpot_ms: Positive | None = None
    e2e_ms: Positive | None = None
    share: Annotated[float, Field(gt=0, le=1)] = 0.95

    @model_validator(mode="after")
    def _any(self) -> Self:
        if self.ttft_ms is None and self.tpot_ms is None and self.e2e_ms is None:
            raise ValueError("give at least one of `ttft_ms`, `tpot_ms` and `e2e_ms`")
        return self


class BreakEven(_Part):
    """API models that the engines are held against, on the calls of a trace file or of a feature."""

    against: Annotated[tuple[str, ...], Field(min_length=1)]
    """`openai/gpt-5-mini`, `anthropic/claude-haiku-4-5`: as `tallystick prices show` knows them."""
    trace: Path | None = None
    ledger: Feature | None = None


class Timeouts(_Part):
    """In seconds."""

    connect: Positive = 10
    first_token: Positive = 120
    between_tokens: Positive = 60
    whole: Positive = 600
    start: Positive = 300
    """Of an engine that is started."""


class ProbeConfig(_Part):
    """The whole file."""

    name: Name
    engines: Annotated[tuple[EngineEntry, ...], Field(min_length=1, max_length=50)]
    workload: Workload
    load: Load
    target: Target | None = None
    breakeven: BreakEven | None = None
    timeouts: Timeouts = Timeouts()
    at_once: bool = False
    """Measure engines of one machine at once, though they take from each other."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [entry.name for entry in self.engines]
        if len(set(names)) != len(names):
            raise ValueError("two of `engines` have one name")
        if self.load.kind == "sweep" and self.target is None:
            raise ValueError("a sweep looks for the highest rate within a latency: `target` is missing")
        if self.load.kind == "trace" and self.workload.input_tokens is not None:
            raise ValueError("`load: trace` takes its times from `workload.trace` or `workload.ledger`, and neither is there")
        return self


def read_config(text: str, file: str = "configuration") -> ProbeConfig:
    """Raises ConfigError with every problem found."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(file, [f"not valid YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise ConfigError(file, ["holds no mapping; docs/probes.md shows what it should look like"])
    try:
        return ProbeConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(file, [_said(one["loc"], one["msg"]) for one in error.errors()]) from None


def load_config(path: Path) -> ProbeConfig:
    """`read_config` of a file. Raises ConfigError, OSError."""
    return read_config(path.read_text(encoding="utf-8"), str(path))


def _said(loc: tuple[int | str, ...], message: str) -> str:
    # Of what a field may be, pydantic names each by its own means: `constrained-int`, `function-after[…]`.
    where = ".".join(str(part) for part in loc if isinstance(part, int) or part.isidentifier()) or "the whole"
    return f"{where}: {message.removeprefix('Value error, ')}"
