"""`tallystick up` with Kafka in between: the same ledger as without it, to the last decimal."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import otlp
import pytest
from broker import Broker
from consuming import until
from server import Server


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


BY_SPAN = """SELECT trace_id, span_id, customer, sum(input_tokens) AS input, sum(output_tokens) AS output, sum(cost_usd) AS cost, sum(calls) AS calls
    FROM charges GROUP BY trace_id, span_id, customer HAVING calls != 0 ORDER BY trace_id, span_id"""
"""What stands, whatever was voided on the way there."""


def bodies() -> list[bytes]:
    """Some of each: calls, a call that two spans tell of, no calls, and calls that can't be."""
    made = []
    for number in range(40):
        client = otlp.span(f"t{number}", f"client{number}", attributes={"gen_ai.response.id": f"r{number}"})
        gateway = otlp.span(
            f"t{number}", f"gateway{number}", parent=f"client{number}", attributes={"gen_ai.response.id": f"r{number}"}
        )
        other = otlp.span(f"o{number}", attributes={"gen_ai.request.model": "gpt-4o", "tallystick.customer": f"c{number % 3}"})
        tool = otlp.span(f"n{number}", attributes={"gen_ai.operation.name": "execute_tool"})
        wrong = otlp.span(f"w{number}", duration_ns=-5)
        made.append(otlp.request(client, other, tool, wrong).SerializeToString())
        made.append(otlp.request(gateway).SerializeToString())
    return made


def test_the_ledger_is_the_same_through_kafka(broker: Broker, tmp_path: Path, server: Server) -> None:
    sent = bodies()
    with Server(tmp_path / "kafka" / "data", env={"TALLYSTICK_KAFKA": broker.address, "TALLYSTICK_HEALTH_PORT": "0"}) as through:
        key, same = through.key("acme"), server.key("through-kafka")
        with ThreadPoolExecutor(32) as pool:
            for to, whose in ((through, key), (server, same)):
                answers = pool.map(partial(to.post, key=whose), sent * 2)
                assert {answer.status_code for answer in answers} == {200}
        expected = server.sql(BY_SPAN, same)
        assert expected
        until(lambda: through.http.get("/readyz").status_code == 200, otherwise=through.log)

        def read() -> int:
            status = through.http.get("/v1/status").json()
            return int(status["stored_calls"] + sum(status["dropped_spans"].values()) + sum(status["rejected_spans"].values()))

        until(lambda: read() == 2 * len(sent) // 2 * 5, otherwise=through.log)
        assert through.sql(BY_SPAN, key) == expected
        totals = "SELECT sum(calls) AS calls, sum(cost_usd) AS cost, sum(input_tokens) AS input FROM charges"
        assert through.sql(totals, key) == server.sql(totals, same)
        through.stop()
