"""Where guards and breakers meet calls: once this is imported they are asked for each. Importing is what makes it happen once."""

import os
from typing import Final

from tallystick.collectors import start
from tallystick.collectors.calls.request import Gate, Request, Ticket, gates
from tallystick.collectors.guard.admission import admitted
from tallystick.collectors.guard.breakers import breaker, passed
from tallystick.collectors.guard.guards import guard
from tallystick.collectors.guard.keepers import standing
from tallystick.collectors.settings import read


class BreakerGate:
    """Asks all breakers that stand."""

    def admit(self, request: Request) -> Ticket | None:
        asked = standing(breaker)
        return passed(asked, request) if asked else None


class GuardGate:
    """Asks the guards that hold a call."""

    def admit(self, request: Request) -> Ticket | None:
        holding = [one for one in standing(guard) if one.holds(request)]
        return admitted(holding, request) if holding else None


# Breakers first: another model that they ask instead is one that guards reckon with.
_GATES: Final[tuple[Gate, ...]] = (BreakerGate(), GuardGate())
gates.extend(_GATES)
# Where nothing is exported, clients are observed for this alone.
start.observe(read(os.environ))
