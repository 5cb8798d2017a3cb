"""The process' own metrics where spans and questions come in, too: for operators, and for whoever is on the same machine."""

from fastapi import APIRouter, Response

from tallystick.server.auth import Door
from tallystick.server.metrics import Metrics
from tallystick.server.operators import operators_only


def router(metrics: Metrics, door: Door) -> APIRouter:
    """GET /metrics."""
    routes = APIRouter(tags=["operation"])

    # On a thread of its own: some figures are questions to the store.
    @routes.get("/metrics", summary="Metrics of the server for Prometheus", response_class=Response, **operators_only(door))
    def figures() -> Response:
        page = metrics.page()
        return Response(page.body, media_type=page.content_type)

    return routes
