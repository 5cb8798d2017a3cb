"""A circuit breaker as a state machine: closed, open, half-open. Pure; the clock is passed in."""

from collections import deque
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]
Outcome = Literal["good", "bad", "slow", "unknown"]
"""Of a call. `unknown` tells nothing about the provider: a bad request, or one that was given up."""

_STEPS: Final = 10
"""Parts of the window by which calls are counted, so that memory doesn't grow with them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """When a circuit opens, and for how long. errors: share of calls, 0 to 1, that are bad or slow. Times in seconds."""

    errors: float
    window_s: float
    min_calls: int
    open_s: float


@dataclass(slots=True)
class _Step:
    begin: float
    calls: int = 0
    failed: int = 0
    slow: int = 0


class Circuit:
    """Of one provider and model. After `open_s` one call is let through as a trial: its outcome closes or opens it again."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._steps: deque[_Step] = deque()
        self.state: State = "closed"
        self._until = 0.0
        """When it may be tried: while it is open, or while a trial that never ends is waited for."""
        self.reason = ""
        """Why it opened last: `12 of 20 calls failed`."""
        self.round = 0
        """Rises whenever the state changes: what a call says of an older one is history."""

    def allow(self, now: float) -> int | None:
        """The round that a call belongs to; None where it mustn't be made."""
        if self.state == "closed":
            return self.round
        if now < self._until:
            return None
        # One at a time. Should its end never be heard of, the next is tried after as long.
        self._to("half-open", now)
        return self.round

    def done(self, round: int, outcome: Outcome, now: float) -> None:
        """round: what `allow` said when the call began."""
        if round != self.round:
            return
        if self.state == "half-open":
            if outcome == "good":
                self._steps.clear()
                self._to("closed", now)
            elif outcome == "unknown":
                # The trial told nothing: the next call is one.
                self._until = now
            else:
                self.reason = f"a trial {'was slow' if outcome == 'slow' else 'failed'}"
                self._to("open", now)
        elif outcome != "unknown":
            self._count(outcome, now)

    def retry_after_s(self, now: float) -> float:
        return max(self._until - now, 0.0)

    def _count(self, outcome: Outcome, now: float) -> None:
        width = self._rules.window_s / _STEPS
        if not self._steps or not self._steps[-1].begin <= now < self._steps[-1].begin + width:
            self._steps.append(_Step(now))
        while self._steps[0].begin <= now - self._rules.window_s or self._steps[0].begin > now:
            self._steps.popleft()
        step = self._steps[-1]
        step.calls += 1
        step.failed += outcome == "bad"
        step.slow += outcome == "slow"
        calls, failed, slow = (sum(getattr(one, name) for one in self._steps) for name in ("calls", "failed", "slow"))
        if calls >= self._rules.min_calls and failed + slow >= self._rules.errors * calls and failed + slow > 0:
            told = [f"{number} {what}" for number, what in ((failed, "failed"), (slow, "were slow")) if number]
            self.reason = f"of {calls} calls in {self._rules.window_s:g} s {' and '.join(told)}"
            self._to("open", now)

    def _to(self, state: State, now: float) -> None:
        self.state = state
        self.round += 1
        self._until = now + self._rules.open_s
