"""Grafana's dashboards and data sources, without Grafana: what they ask exists. test_compose_commands runs the SQL."""

import json
import re
from typing import Any

import pytest
import yaml
from composed import ROOT, composed, made_env

from tallystick.server.metrics import METRICS, Kind

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in (GRAFANA / "dashboards").glob("*.json")}
SOURCES = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "tallystick.yml").read_text())["datasources"]

LABELS = {"role", "instance", "job", "le"}
"""Of Prometheus itself, and of our configuration of it."""


def targets(dashboard: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(panel["title"], target) for panel in dashboard["panels"] for target in panel["targets"]]


def test_panels_ask_sources_that_are_provisioned() -> None:
    known = {(source["type"], source["uid"]) for source in SOURCES}
    asked = {(t["datasource"]["type"], t["datasource"]["uid"]) for board in DASHBOARDS.values() for _, t in targets(board)}
    assert asked == known


def test_panels_lie_beside_each_other() -> None:
    for name, board in DASHBOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            assert at["x"] + at["w"] <= 24
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert taken.isdisjoint(cells), f"{name}: {panel['title']}"
            taken |= cells
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize(
    ("title", "target"), targets(DASHBOARDS["pipeline"]), ids=lambda value: value if isinstance(value, str) else ""
)
def test_figures_of_the_pipeline_are_shown_by_some_role(title: str, target: dict[str, Any]) -> None:
    shown = {metric.prometheus: metric for metric in METRICS}
    names = re.findall(r"\b(?:tallystick|http_server)_\w+", target["expr"])
    assert names or target["expr"].startswith("count by (role) (up{")
    labels = set(LABELS)
    for name in names:
        metric = shown.get(name) or shown[re.sub(r"_(bucket|count|sum)$", "", name)]
        assert (metric.kind is Kind.HISTOGRAM) == (metric.prometheus != name), name
        assert (metric.kind is Kind.GAUGE) != (
            "rate(" in target["expr"] or "increase(" in target["expr"] or title == "Lost to retention"
        )
        labels |= {attribute.replace(".", "_") for attribute in metric.attributes}
    used = re.findall(r"by \(([^)]+)\)", target["expr"]) + re.findall(r"(\w+)=~?", target["expr"])
    assert {label.strip() for group in used for label in group.split(",")} <= labels
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels


def test_sources_are_services_and_their_passwords_variables(tmp_path: Any) -> None:
    grafana = (services := composed(made_env(tmp_path / ".env"))["services"])["grafana"]
    for source in SOURCES:
        host = source.get("jsonData", {}).get("host") or re.findall(r"//(\w+):", source["url"])[0]
        assert set(services[host]["networks"]) & set(grafana["networks"]), f"Grafana doesn't reach {host}"
        for value in source.get("secureJsonData", {}).values():
            assert value.removeprefix("$") in grafana["environment"]
