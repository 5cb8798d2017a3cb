"""A call as its client tells of it, and as the engine that served it does: one call, with what each of them knows."""

from collections.abc import Iterator

import pytest
from otlp import request, span
from server import Server

# What a client of a stream that tells no usage knows of the call; and what vLLM's own span of the request does.
CLIENT: dict[str, object] = {
    "gen_ai.response.id": "chatcmpl-{name}", "gen_ai.request.stream": True, "gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None,
    "gen_ai.response.finish_reasons": None, "tallystick.customer": "acme",
}  # fmt: skip
SERVED: dict[str, object] = {
    "gen_ai.operation.name": None, "gen_ai.provider.name": None, "gen_ai.request.model": None, "gen_ai.response.model": None,
    "gen_ai.usage.input_tokens": None, "gen_ai.usage.output_tokens": None, "gen_ai.response.finish_reasons": None,
    "gen_ai.request.id": "chatcmpl-{name}", "gen_ai.usage.prompt_tokens": 1000, "gen_ai.usage.completion_tokens": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("served") / "data") as server:
        yield server


def named(attributes: dict[str, object], name: str) -> dict[str, object]:
    return {key: value.format(name=name) if isinstance(value, str) else value for key, value in attributes.items()}


@pytest.mark.parametrize("order", ["together", "client first", "engine first"])
def test_an_engine_that_names_no_model(server: Server, order: str) -> None:
    """The engine's span wins, as it knows the usage; whom it was for and what it is priced by are the client's."""
    name = order.replace(" ", "-")
    client = request(span(f"{name}-client", attributes=named(CLIENT, name)))
    told = span(f"{name}-engine", duration_ns=990_000_000, attributes=named(SERVED, name))
    told.name = "llm_request"
    engine = request(told, scope="vllm.llm_engine", resource={"service.name": "gpu"})
    if order == "together":
        server.post_all([client, engine])
    else:
        for body in (client, engine) if order == "client first" else (engine, client):
            server.post_all([body])
    rows = server.sql(
        "SELECT customer, request_model, response_model, sum(calls) AS n, sum(input_tokens) AS input, sum(output_tokens) AS output,"
        " toString(sum(cost_usd)) AS cost"
        f" FROM charges WHERE response_id = 'chatcmpl-{name}' GROUP BY ALL HAVING n != 0"
    )
    known = {
        "customer": "acme",
        "request_model": "gpt-4o-mini",
        "response_model": "gpt-4o-mini-2024-07-18",
        "n": 1,
        "input": 1000,
        "output": 100,
        "cost": "0.00021",
    }
    if order == "engine first":
        # What stands in the ledger isn't changed: the client's span, which knows less, comes too late.
        known |= {"customer": "", "request_model": "", "response_model": "", "cost": None}
    assert rows == [known]
