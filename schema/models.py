"""What crosses the boundary between two rooms."""

from typing import NamedTuple


class Seen(NamedTuple):
    """What spans say of a model. '' is unknown."""

    provider: str
    request_model: str
    response_model: str
    service_tier: str
