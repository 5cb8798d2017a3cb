"""Guards and breakers with what they need of the other rooms: the price book."""

from tallystick.collectors.guard import pricing
from tallystick.collectors.guard.breakers import breaker
from tallystick.collectors.guard.guards import guard
from tallystick.collectors.guard.refusals import BudgetExceeded, CircuitOpen

__all__ = ["BudgetExceeded", "CircuitOpen", "breaker", "guard"]


def _load() -> pricing.RatesOf:
    from tallystick.estimating import rates

    def rates_of(model: str, provider: str, service_tier: str) -> pricing.Rates | None:
        return rates(model, provider, None, service_tier)

    # The list is read with the first question.
    rates_of("gpt-4o-mini", "openai", "")
    return rates_of


pricing.use(_load)
