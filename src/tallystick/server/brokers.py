"""Which Kafka brokers a role talks to, and as whom, from its settings and the environment."""

import os
from collections.abc import Mapping

from tallystick.schema.kafka import Brokers, addresses, is_topic, security
from tallystick.settings import BadSetting, Settings


def brokers_of(settings: Settings, environ: Mapping[str, str] | None = None) -> Brokers:
    """Raises BadSetting where no broker is named, or what is said of security or topics makes no sense."""
    hosts = addresses(settings.kafka or "")
    if not hosts:
        raise BadSetting("TALLYSTICK_KAFKA names no broker: HOST:PORT, several divided by commas")
    for variable, topic in (
        ("TALLYSTICK_KAFKA_RECEIVED", settings.kafka_received),
        ("TALLYSTICK_KAFKA_DEAD_LETTERS", settings.kafka_dead_letters),
    ):
        if not is_topic(topic):
            raise BadSetting(f"{variable} is no name of a topic: {topic!r}")
    return Brokers(hosts, security(os.environ if environ is None else environ, _refuse))


def _refuse(variable: str, problem: str) -> None:
    raise BadSetting(problem.rpartition(";")[0])
