"""The list of metrics is what a running process shows; its page is current."""

from pathlib import Path

import httpx
from otlp import request, span
from pushed_runs import priced, pushed
from server import Server

from tallystick.ingest.keys import Role as KeyRole
from tallystick.metrics_docs import markdown
from tallystick.server.health import Health, Page
from tallystick.server.metrics import METRICS, Kind, Metric, Metrics, Role

DOCS = Path(__file__).parent.parent / "docs" / "metrics.md"


def missing(page: str, role: Role) -> list[str]:
    """Metrics that a process of that role should show and doesn't."""
    return [metric.name for metric in METRICS if role in metric.roles and not shown(page, metric)]


def shown(page: str, metric: Metric) -> bool:
    name = metric.prometheus + ("_count" if metric.kind is Kind.HISTOGRAM else "")
    return any(line.split("{")[0].split(" ")[0] == name for line in page.splitlines())


def labels(page: str) -> set[str]:
    return {label.split("=")[0].strip() for line in page.splitlines() if "{" in line and not line.startswith("#")
            for label in line.split("{", 1)[1].rsplit("}", 1)[0].split('",') if "=" in label}  # fmt: skip


def test_all_of_up(server: Server) -> None:
    assert server.post(request(span("metrics")), server.key("acme")).status_code == 200
    assert server.post(b"\xff\xff").status_code == 400
    run = pushed(probe="metrics")
    assert server.http.post("/v1/probes/runs", json=run).status_code == 200
    assert server.http.post("/v1/probes/prices", json=priced(run)).status_code == 200
    page = server.http.get("/metrics").text
    assert missing(page, Role.UP) == []
    attributes = {name.replace(".", "_") for metric in METRICS for name in metric.attributes}
    process = {"le", "major", "minor", "patchlevel", "implementation", "version"}
    assert {label for label in labels(page) if not label.startswith(("service_", "telemetry_"))} <= attributes | process
    assert "acme" not in page


def test_spans_come_by_their_route(server: Server) -> None:
    """FastAPI doesn't stand between; a method that it doesn't know is still refused as everywhere."""
    assert server.post(b"\xff\xff").status_code == 400
    refused = server.http.get("/v1/traces")
    assert (refused.status_code, refused.json()["error"]["code"]) == (405, "method_not_allowed")
    page = server.http.get("/metrics").text
    assert 'http_route="/v1/traces"' in page
    assert "/v1/traces" in server.http.get("/openapi.json").json()["paths"]


def test_for_operators(server: Server) -> None:
    assert (
        server.http.get("/metrics", headers={"authorization": f"Bearer {server.key('acme', role=KeyRole.READER)}"}).status_code
        == 403
    )
    assert (
        server.http.get("/metrics", headers={"authorization": f"Bearer {server.key('acme', operator=True)}"}).status_code == 200
    )


def test_made_up_paths_and_methods_are_one_series(server: Server) -> None:
    for path in ("/nothing", "/nothing/else"):
        server.http.request("BREW", path)
    page = server.http.get("/metrics").text
    assert "nothing" not in page
    assert "BREW" not in page


def test_the_list() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names) == len({metric.prometheus for metric in METRICS})
    assert all(metric.roles and metric.meaning.endswith(".") for metric in METRICS)
    assert not {"tenant", "service", "customer", "model"} & {name for metric in METRICS for name in metric.attributes}


def test_figures_that_cant_be_had_are_left_out() -> None:
    metrics = Metrics(Role.UP, {})
    first, second = [metric for metric in METRICS if metric.kind is Kind.GAUGE and not metric.attributes][:2]

    def broken() -> list[tuple[float, dict[str, str]]]:
        raise OSError("gone")

    metrics.show(first, broken)
    metrics.show(second, lambda: [(1.5, {})])
    page = metrics.page().body.decode()
    assert not shown(page, first)
    assert f"{second.prometheus} 1.5" in page
    metrics.close()


def test_health() -> None:
    reasons = ["it is starting"]
    health = Health("127.0.0.1", 0, lambda: reasons[0], lambda: Page(b"x 1\n", "text/plain"))
    health.start()
    try:
        with httpx.Client(base_url=health.url, trust_env=False) as http:
            assert (http.get("/healthz").status_code, http.get("/readyz").status_code) == (200, 503)
            assert http.get("/readyz").json() == {"status": "it is starting"}
            reasons[0] = ""
            assert http.get("/readyz?full").status_code == 200
            assert http.get("/metrics").text == "x 1\n"
            assert (http.get("/else").status_code, http.post("/healthz").status_code) == (404, 501)
    finally:
        health.close()


def test_the_page_is_current() -> None:
    assert DOCS.read_text(encoding="utf-8") == markdown(), "make docs"
