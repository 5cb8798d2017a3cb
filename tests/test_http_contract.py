"""The server keeps to its own description, for whatever schemathesis makes of that."""

from collections.abc import Iterator
from itertools import product
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from otlp import request, span
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance
from server import Server

from tallystick.ingest.keys import Role

HARMLESS: Final = {
    "/v1/sql", "/v1/outcomes", "/v1/whatif", "/v1/budgets/validate", "/v1/alerts/evaluate", "/v1/alerts/test", "/v1/alerts/silences",
    "/v1/alerts/ack",
}  # fmt: skip
"""POSTs that change nothing, or nothing that matters here."""


CHECKS: Final = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES: Final = 6
SLOW: Final = [HealthCheck.too_slow, HealthCheck.filter_too_much]
NOTHING_TO_GET_WRONG: Final = {"/healthz", "/readyz"}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a server of its own with a few calls, and an operator's key."""
    with Server(tmp_path_factory.mktemp("contract") / "data") as server:
        server.post_all([request(*(span(f"contract-{n}", attributes={"tallystick.customer": f"c{n % 3}"}) for n in range(9)))])
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json"), server.key("contract", role=Role.OPERATOR)


def asked(path: str, method: str) -> bool:
    return method == "GET" or (method == "POST" and path in HARMLESS)


def test_the_description_is_kept(described: Any) -> None:
    schema, key = described
    found: dict[str, str] = {}
    operations = [one.ok() for one in schema.get_all_operations()]
    tried = [one for one in operations if asked(one.path, one.method.upper())]
    for operation, mode in product(tried, GenerationMode):
        if mode is GenerationMode.NEGATIVE and operation.path in NOTHING_TO_GET_WRONG:
            continue

        @seed(6)
        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=SLOW)
        @given(operation.as_strategy(generation_mode=mode))
        def kept(case: Any) -> None:
            answer: Response = case.call(headers={"authorization": f"Bearer {key}"})
            case.validate_response(answer, checks=CHECKS)

        try:
            kept()
        except Exception as failure:  # all operations are tried before any is told
            found[f"{operation.label}, {mode.value}"] = f"{failure}"
    assert not found, "\n\n".join(f"{label}: {text}" for label, text in found.items())
    assert len(tried) > 20


@pytest.mark.parametrize(
    ("path", "names", "query"),
    [
        ("/v1/spend", {}, {"by": "customer,day,tag:plan", "limit": "2"}),
        ("/v1/spend", {}, {"by": "total", "format": "csv"}),
        ("/v1/spend", {}, {"where": "customer=nobody"}),
        ("/v1/charges", {}, {"limit": "4"}),
        ("/v1/charges", {}, {"format": "csv", "where": "customer=c1"}),
        ("/v1/dimensions/{name}/values", {"name": "model"}, {}),
        ("/v1/dimensions/{name}/values", {"name": "tag"}, {"prefix": "p"}),
        ("/v1/q/{name}", {"name": "spend"}, {"by": "customer"}),
        ("/v1/whatif", {}, {"tier": "batch"}),
        ("/v1/focus/days", {}, {"since": "2d"}),
    ],
)
def test_answers_with_something_in_them_are_as_described(
    described: Any, path: str, names: dict[str, str], query: dict[str, str]
) -> None:
    schema, key = described
    case = schema[path]["GET"].Case(path_parameters=names, query=query)
    answer: Response = case.call(headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.content
    case.validate_response(answer, checks=CHECKS)
