"""Real calls that a command of the probes asks for: of a trace file, or of the ledger."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tallystick.cli.access import connect
from tallystick.cli.failure import Failure
from tallystick.settings import Settings

if TYPE_CHECKING:
    from tallystick.probes.config import Feature
    from tallystick.probes.load.traffic_mix import Mix


def real_calls(trace: Path | None, feature: "Feature | None", settings: Settings, *, as_they_came: bool = False) -> "Mix | None":
    """None where neither is asked for. Raises Failure where there are none, and what `connect` raises."""
    from tallystick.attribution.spend import UnknownDimension
    from tallystick.probing.mix import NoCalls, feature_calls, trace_calls

    try:
        if trace is not None:
            return trace_calls(trace)
        if feature is None:
            return None
        with connect(settings) as ledger:
            return feature_calls(
                lambda query, params: ledger.sql(query, params).dicts(), feature, time.time_ns(), as_they_came=as_they_came
            )
    except NoCalls as error:
        raise Failure(error.message, error.hint) from None
    except UnknownDimension as error:
        raise Failure(str(error)) from None
