"""Records that kafka-python and aiokafka send. A consumer says itself which record it works on: `tallystick.scope.of`."""

from collections.abc import Callable
from typing import Any

from tallystick.collectors.carriers.baggage import NAME, header_in
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.failures import report


def send(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `send(topic, value, key, …, headers=[(str, bytes), …])`. Headers given by position are left as they are."""
    try:
        if len(args) < 4:
            headers = kwargs.get("headers")
            value = OUTGOING.in_message(header_in(headers))
            if value is not None:
                others = [pair for pair in headers or () if pair[0].lower() != NAME]
                kwargs = {**kwargs, "headers": [*others, (NAME, value.encode())]}
    except Exception as error:
        report("passing a scope on by Kafka", error)
    return wrapped(*args, **kwargs)
