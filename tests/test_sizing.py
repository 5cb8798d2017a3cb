"""The sizing model: its arithmetic, that its figures are those of the results, and that docs/sizing.md is what it prints."""

import gzip
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from tallystick.ingest.topics import RECEIVED_CONFIG

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

sizing: Any = import_module("sizing")
traffic: Any = import_module("traffic")

PRICES = sizing.Prices(core=0.05, disk=0.1, zone=0.02)
FIGURES = dict.fromkeys(sizing.MEASURES, (10.0, True)) | {"stored_bytes": (100.0, True)}


def plan(spans_a_day: int, **given: Any) -> Any:
    return sizing.size(sizing.Load(spans_a_day, **given), FIGURES, PRICES)


def test_a_load_of_round_figures_by_hand() -> None:
    """864,000,000 spans a day are 10,000 a second; ten times that at the peak, at 10 µs each, keep a core busy, and two of which half is free."""
    found = plan(864_000_000, peak=10, free=0.5, retention_days=70, clickhouse_replicas=2, kafka_hours=24, kafka_replicas=3, query_cores=6,
                 wire_bytes=100, kafka_bytes=200)  # fmt: skip
    assert found.spans_s == 100_000
    assert found.embedded_cores == pytest.approx(2)
    assert (found.receivers, found.consumers) == (2, 2)
    # 864e6 × 100 bytes × 70 days, of which a disk is 0.7.
    assert found.clickhouse_tb == pytest.approx(6.048 / 0.7 * 2)
    assert found.shards == 1
    assert found.clickhouse_cores == 8 * 2
    assert found.clickhouse_gib == 64
    assert found.kafka_gb == pytest.approx(864e6 * 200 * 3 / 1e9 / 0.7)
    # In once by gzip; to the leader, to two followers, to a consumer, to ClickHouse and to its replica by lz4.
    assert found.network_mb_s == pytest.approx(100_000 * (100 + 6 * 200) / 1e6)
    assert found.zone_gb_day == pytest.approx(864e6 * ((100 + 3 * 200) * 2 / 3 + 3 * 200) / 1e9)
    assert found.usd_cores == pytest.approx((2 + 2 + 16 + 3 * 2) * 0.05 * 730)
    assert found.usd_disk == pytest.approx((found.clickhouse_tb * 1000 + found.kafka_gb) * 0.1)
    assert found.usd_network == pytest.approx(found.zone_gb_day * 365 / 12 * 0.02)
    assert found.usd == found.usd_cores + found.usd_disk + found.usd_network


def test_processes_grow_with_the_load_and_are_never_fewer_than_two() -> None:
    assert plan(1).receivers == plan(1).consumers == 2
    loads = [plan(10**exponent) for exponent in range(6, 12)]
    for less, more in pairwise(loads):
        assert less.consumers <= more.consumers
        assert less.usd < more.usd
        assert more.partitions >= more.consumers * 3
    large = plan(10**11)
    assert large.receivers == ceil(10**11 / 86_400 * 3 * 10 / 1e6 / 0.7)


def test_what_is_measured_is_read_from_the_results() -> None:
    figures = sizing.measured()
    assert {name for name, (_, known) in figures.items() if not known} <= {
        name for name, measure in sizing.MEASURES.items() if not (BENCHMARKS / "results" / measure.file).exists()
    }
    assert 80 < figures["stored_bytes"][0] < 95


def test_results_that_lost_a_figure_are_no_aim(tmp_path: Path) -> None:
    for measure in sizing.MEASURES.values():
        (tmp_path / measure.file).write_text("nothing of it")
    with pytest.raises(ValueError, match=r"doesn't hold"):
        sizing.measured(tmp_path)


def test_bytes_on_the_wire_are_those_of_the_benchmarks_spans() -> None:
    payload = traffic.payload(512, 1, 1_790_000_000_000_000_000)
    defaults = sizing.Load(1)
    assert len(gzip.compress(payload, 6)) / 512 == pytest.approx(defaults.wire_bytes, rel=0.03)
    assert len(lz4.frame.compress(payload)) / 512 == pytest.approx(defaults.kafka_bytes, rel=0.03)


def test_kafka_keeps_what_the_topics_are_made_with() -> None:
    assert sizing.Load(1).kafka_hours * 3_600_000 == int(RECEIVED_CONFIG["retention.ms"])


def test_every_price_has_its_source_and_date() -> None:
    rows = (BENCHMARKS / "cloud_prices.csv").read_text().splitlines()
    assert rows[0] == "part,unit,usd,what,source,as_of"
    assert all("https://" in row and row.rsplit(",", 1)[1].startswith("20") for row in rows[1:])


def test_the_document_is_what_the_script_prints() -> None:
    done = subprocess.run([sys.executable, BENCHMARKS / "sizing.py"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8"), (
        "copy what it prints into docs/sizing.md"
    )
