"""Every route with every role: who is let in is who the API's description says."""

from typing import Any

import pytest
from server import Server

from tallystick.ingest.keys import Role
from tallystick.server.api_doc import roles

BODIES: dict[str, dict[str, Any]] = {"/v1/traces": {"content": b"", "headers": {"content-type": "application/x-protobuf"}}}


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[Role, str]:
    return {role: server.key("roles-acme", role=role) for role in Role}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    described: dict[str, Any] = server.http.get("/openapi.json").json()
    return described


def test_every_route_lets_in_whom_it_says(server: Server, keys: dict[Role, str], document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        # No such thing has this name: what is let in changes nothing.
        address = path.replace("{", "no-").replace("}", "")
        for method, operation in operations.items():
            allowed = roles(operation)
            for role, key in keys.items():
                sent = {"authorization": f"Bearer {key}"}
                options = dict(BODIES.get(path, {"json": {"no such field": 1}} if "requestBody" in operation else {}))
                answer = server.http.request(
                    method.upper(), address, **{**options, "headers": {**options.get("headers", {}), **sent}}
                )
                let_in = allowed is None or role in allowed
                assert (answer.status_code != 403) == let_in, (method, path, role, answer.text)
                if not let_in:
                    error = answer.json()["error"]
                    assert error["code"] == "forbidden"
                    assert error["message"] == f"A {role}'s key isn't for this."
                    assert Role.OPERATOR in error["hint"]
            if allowed is not None:
                unknown = server.http.request(method.upper(), address, headers={"authorization": "Bearer ts_nobody"})
                assert unknown.status_code == 401, (method, path)


def test_what_each_role_is_for(document: dict[str, Any]) -> None:
    def of(method: str, path: str) -> set[Role]:
        return set(roles(document["paths"][path][method]) or ())

    assert (
        of("get", "/v1/spend") == of("get", "/v1/charges") == of("post", "/v1/sql") == {Role.READER, Role.MEMBER, Role.OPERATOR}
    )
    assert of("post", "/v1/traces") == of("post", "/v1/outcomes") == {Role.WRITER, Role.MEMBER, Role.OPERATOR}
    assert of("get", "/v1/status") == of("put", "/v1/budgets/{name}") == {Role.OPERATOR}
    open_to_all = {path for path, operations in document["paths"].items() for one in operations.values() if roles(one) is None}
    assert open_to_all == {"/healthz", "/readyz"}


def test_over_grpc_too(server: Server, keys: dict[Role, str]) -> None:
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub: Any = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
        for role, key in keys.items():
            metadata = [("authorization", f"Bearer {key}")]
            if role.sends:
                stub.Export(ExportTraceServiceRequest(), metadata=metadata)
                continue
            with pytest.raises(grpc.RpcError) as refused:
                stub.Export(ExportTraceServiceRequest(), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
