"""`breaker`: a circuit for each model that is called, which opens when calls fail or are slow."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tallystick.collectors.calls.request import Refusal, Request, Ticket, Usage, http_status
from tallystick.collectors.forks import at_fork
from tallystick.collectors.guard.circuit import Circuit, Outcome, Rules, State
from tallystick.collectors.guard.keepers import Fallback, Keeper
from tallystick.collectors.guard.refusals import CircuitOpen

MOST_CIRCUITS: Final = 1_000

_FAILED: Final = frozenset({408, 429})
"""Statuses that tell of the provider, as those from 500 do; other 4xx tell of the request."""


@dataclass(frozen=True, slots=True)
class CircuitStanding:
    """A circuit, and why it opened last."""

    circuit: str
    state: State
    reason: str


class breaker(Keeper):
    """Stops calls of a model while too many of them fail or are slow: a context manager and a decorator, sync and async; or `install()` it.

    A circuit opens when `errors`, a share from 0 to 1, of at least `min_calls` in `window_s` seconds failed or were slow, and
    is tried again with one call after `open_s`. A call fails with 408, 429, 5xx and without an answer; slow is one that isn't
    streamed and takes longer than `slow_s`. per: a circuit for each `model` of a library, or for each `host`. While one is
    open its calls raise CircuitOpen, or fall back (`Fallback`). Raises ValueError for figures that make no sense.
    """

    def __init__(
        self,
        *,
        errors: float = 0.5,
        slow_s: float | None = None,
        window_s: float = 30.0,
        min_calls: int = 10,
        open_s: float = 30.0,
        per: Literal["model", "host"] = "model",
        fallback: Fallback | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < errors <= 1:
            raise ValueError(f"errors={errors!r} is a share of calls: above 0 and up to 1")
        if min_calls < 1 or window_s <= 0 or open_s <= 0 or (slow_s is not None and slow_s <= 0):
            raise ValueError("min_calls, window_s, open_s and slow_s are above 0")
        if per not in ("model", "host"):
            raise ValueError(f"per={per!r} is neither 'model' nor 'host'")
        super().__init__(fallback)
        self._rules = Rules(errors, window_s, min_calls, open_s)
        self._slow_s, self._per, self._clock = slow_s, per, clock
        self._circuits: OrderedDict[str, Circuit] = OrderedDict()
        self._reset()
        at_fork(in_child=self._reset)

    def _reset(self) -> None:
        # Another thread may hold it when the process is forked. Reentrant, because the garbage collector ends streams anywhere.
        self._lock = threading.RLock()

    def standings(self) -> list[CircuitStanding]:
        """Of the models, or hosts, that were called last."""
        with self._lock:
            return [CircuitStanding(name, one.state, one.reason) for name, one in self._circuits.items()]

    def admitted(self, request: Request) -> "Trip":
        """Raises what `Keeper.stop` does."""
        made: list[Trip] = []

        def tried(asked: Request) -> bool:
            trip = self._begun(asked)
            if trip is not None:
                made.append(trip)
            return trip is not None

        if not tried(request):
            self.stop(request, self._refusal(request), tried)
        return made[0]

    def ended(self, trip: "Trip", outcome: Outcome) -> None:
        now = self._clock()
        if outcome == "good" and self._slow_s is not None and not trip.streamed and now - trip.begun > self._slow_s:
            outcome = "slow"
        with self._lock:
            trip.circuit.done(trip.round, outcome, now)

    def _begun(self, request: Request) -> "Trip | None":
        now = self._clock()
        with self._lock:
            circuit = self._circuit(self._name(request))
            round = circuit.allow(now)
        return None if round is None else Trip(self, request, circuit, round, now, request.model, request.streamed)

    def _refusal(self, request: Request) -> CircuitOpen:
        name = self._name(request)
        with self._lock:
            circuit = self._circuit(name)
            return CircuitOpen(name, circuit.reason, circuit.retry_after_s(self._clock()))

    def _circuit(self, name: str) -> Circuit:
        found = self._circuits.setdefault(name, Circuit(self._rules))
        self._circuits.move_to_end(name)
        if len(self._circuits) > MOST_CIRCUITS:
            self._circuits.popitem(last=False)
        return found

    def _name(self, request: Request) -> str:
        return f"{request.library} {request.model}" if self._per == "model" else request.host or request.library


@dataclass(slots=True)
class Trip:
    """A call that a closed circuit let through, or an open one as its trial."""

    breaker: breaker
    request: Request
    circuit: Circuit
    round: int
    begun: float
    model: str
    streamed: bool

    def settle(self, usage: Usage | None, error: BaseException | None) -> None:
        # A guard may have sent it to another model since.
        went = self.request.model == self.model
        self.breaker.ended(self, _outcome(error) if went else "unknown")


class Trips:
    """Of one call by several breakers."""

    def __init__(self, trips: list[Trip]) -> None:
        self._trips = trips

    def settle(self, usage: Usage | None, error: BaseException | None) -> None:
        for trip in self._trips:
            trip.settle(usage, error)


def passed(asked: list[breaker], request: Request) -> Ticket:
    """Raises a Refusal: CircuitOpen, or what a fallback answers."""
    trips: list[Trip] = []
    try:
        for one in asked:
            trips.append(one.admitted(request))
    except Refusal as refusal:
        Trips(trips).settle(None, refusal)
        raise
    return Trips(trips)


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return "good"
    if not isinstance(error, Exception) or isinstance(error, Refusal):
        return "unknown"
    status = http_status(error)
    if status is not None:
        return "bad" if status in _FAILED or status >= 500 else "unknown"
    return "bad"
