"""What reaches the application in place of an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from tallystick.collectors.calls.request import Refusal
from tallystick.collectors.guard.accounts import Measure

Per = Literal["call", "session", "budget", "process"]

_UNIT: Final[Mapping[Measure, str]] = {"usd": "USD", "tokens": "tokens", "calls": "calls"}


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a call was stopped. Figures are in `measure`: USD, tokens or calls; None is unknown."""

    guard: str
    """As it was made: `guard(customer='acme', max_usd_per_session=1)`."""
    per: Per
    """What the limit is for."""
    measure: Measure
    limit: Decimal | None
    spent: Decimal | None
    reserved: Decimal | None
    """By calls under way."""
    wanted: Decimal | None
    """What the call may have come to at most; None where the model has no price."""
    model: str
    scope: Mapping[str, str]
    """Whom the call was for: attribute name → value."""
    reason: Literal["over the limit", "no price", "server unknown"] = "over the limit"
    subject: str = ""
    """The budget's name, or the session."""
    hint: str = ""

    def __str__(self) -> str:
        unit = _UNIT[self.measure]
        what = f"{self.per} {self.subject!r}" if self.subject else self.per
        if self.reason == "no price":
            told = f"{self.model!r} has no price, so nobody knows whether it fits {_figure(self.limit)} {unit} a {what}"
        elif self.reason == "server unknown":
            told = f"how {what} stands isn't known: the server can't be asked"
        else:
            told = f"a call of {self.model!r} may take {_figure(self.wanted)} {unit}; the limit of a {what} is {_figure(self.limit)} {unit}"
            if self.per != "call":
                told += f", {_figure(self.spent)} spent and {_figure(self.reserved)} reserved"
        return f"{told}. {self.hint} ({self.guard})"


class BudgetExceeded(Refusal):
    """A call that wasn't sent, because a guard's limit wouldn't have held."""

    def __init__(self, excess: Excess) -> None:
        super().__init__(str(excess))
        self.excess = excess
        """All that is known of it; the fields most asked for are here, too."""
        self.limit = excess.limit
        self.spent = excess.spent
        self.reserved = excess.reserved
        self.wanted = excess.wanted
        self.scope = excess.scope

    def __reduce__(self) -> tuple[type["BudgetExceeded"], tuple[Excess]]:
        # A worker hands it to its parent.
        return type(self), (self.excess,)


class CircuitOpen(Refusal):
    """A call that wasn't sent, because too many before it failed or were slow."""

    def __init__(self, circuit: str, reason: str, retry_after_s: float) -> None:
        super().__init__(f"{circuit}: {reason}; tried again in {retry_after_s:.0f} s")
        self.circuit = circuit
        """`openai gpt-5` or `api.openai.com`."""
        self.reason = reason
        self.retry_after_s = retry_after_s
        """When a call is tried next."""

    def __reduce__(self) -> tuple[type["CircuitOpen"], tuple[str, str, float]]:
        return type(self), (self.circuit, self.reason, self.retry_after_s)


def _figure(value: Decimal | None) -> str:
    return "an unknown amount of" if value is None else f"{value.normalize():f}"
