"""What N spans a day take: a model on paper, of stages that were measured. Prints the tables of docs/sizing.md.

    python benchmarks/sizing.py [--spans-a-day 1000000000 …] [--peak 3] [--free 0.3] [--retention-days 400] [--clickhouse-replicas 2]
        [--kafka-hours 168] [--kafka-replicas 3] [--query-cores 4]

What a stage takes is read from benchmarks/results, prices from cloud_prices.csv beside this file; what is assumed stands in ASSUMED.
"""

import argparse
import csv
import math
import pathlib
import re
from typing import NamedTuple

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
HOURS_A_MONTH = 730


class Measure(NamedTuple):
    """A figure of a file of results: `found` has one group, the number. Where there is no such file yet, `aim` stands in its place."""

    what: str
    file: str
    found: str
    aim: float | None = None


MEASURES = {
    "embedded_us": Measure(
        "one process, HTTP to stored row, µs of CPU a span", "ingest.txt", r"server gzip .*'us_a_span': ([\d.]+)"
    ),
    "stored_bytes": Measure("bytes a span on ClickHouse's disk", "ingest.txt", r"server gzip .*'bytes_a_span': ([\d.]+)"),
    "process_mib": Measure("most memory of one process, MiB", "ingest.txt", r"server gzip .*'peak_mib': (\d+)"),
    "receiver_us": Measure(
        "receiver, HTTP to Kafka, µs of CPU a span", "receiver.txt", r"512 gzip kafka .*'us_a_span': ([\d.]+)"
    ),
    "receiver_mib": Measure("most memory of a receiver, MiB", "receiver.txt", r"512 gzip kafka .*'peak_mib': (\d+)"),
    "consumer_us": Measure(
        "consumer, Kafka to insert, µs of CPU a span",
        "consumer.txt",
        r"batches of 64,000, 1 consumer: .* consumer ([\d.]+) \+ ClickHouse",
        4,
    ),
    "engine_us": Measure(
        "ClickHouse for the same, µs of CPU a span",
        "consumer.txt",
        r"batches of 64,000, 1 consumer: .* \+ ClickHouse ([\d.]+) =",
        14,
    ),
}

ASSUMED = {
    "shard_cores": (16, "cores of a ClickHouse server at most, then there is another shard"),
    "shard_tb": (10, "TB of disk of a ClickHouse server at most"),
    "core_gib": (4, "GiB of memory for each core of ClickHouse, as the servers priced here have"),
    "disk_full": (0.7, "of a disk is used at most: merges write anew before they delete"),
    "broker_cores": (2, "cores of a broker: it passes compressed bytes on"),
    "zones": (3, "availability zones, over which everything is spread evenly"),
    "partitions": (3, "partitions for each consumer, so that one more takes an even share"),
}


class Load(NamedTuple):
    """What comes, and how long it stays. peak: busiest second over the day's mean; free: of every core at the peak."""

    spans_a_day: int
    peak: float = 3
    free: float = 0.3
    retention_days: int = 400
    clickhouse_replicas: int = 2
    kafka_hours: int = 168
    kafka_replicas: int = 3
    query_cores: int = 4
    wire_bytes: int = 118
    """Of a span that senders compress by gzip: benchmarks/traffic.py, 512 spans a request, 765 bytes each uncompressed."""
    kafka_bytes: int = 146
    """Of the same by lz4, as it is sent to brokers and stays there."""


class Plan(NamedTuple):
    """What to have. Rates are at the peak; disk is whole, with what must stay free."""

    load: Load
    spans_s: float
    embedded_cores: float
    receivers: int
    consumers: int
    partitions: int
    shards: int
    clickhouse_cores: int
    clickhouse_gib: int
    clickhouse_tb: float
    brokers: int
    kafka_gb: float
    network_mb_s: float
    zone_gb_day: float
    usd_cores: float
    usd_disk: float
    usd_network: float

    @property
    def usd(self) -> float:
        """A month."""
        return self.usd_cores + self.usd_disk + self.usd_network


class Prices(NamedTuple):
    """USD: of a core an hour, of a GB of disk a month, of a GB from zone to zone."""

    core: float
    disk: float
    zone: float


def measured(results: pathlib.Path = RESULTS) -> dict[str, tuple[float, bool]]:
    """Each figure of MEASURES, and whether it was measured. Raises ValueError where a file of results doesn't hold it any more."""
    figures = {}
    for name, measure in MEASURES.items():
        file = results / measure.file
        if not file.exists() and measure.aim is not None:
            figures[name] = measure.aim, False
            continue
        found = re.search(measure.found, file.read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{file.name} doesn't hold {measure.found!r}")
        figures[name] = float(found[1]), True
    return figures


def prices(file: pathlib.Path = HERE / "cloud_prices.csv") -> Prices:
    """Of the parts of a cloud."""
    with file.open(encoding="utf-8", newline="") as rows:
        return Prices(**{row["part"]: float(row["usd"]) for row in csv.DictReader(rows)})


def assumed(name: str) -> float:
    return ASSUMED[name][0]


def size(load: Load, figures: dict[str, tuple[float, bool]], usd: Prices) -> Plan:
    """What a load takes. Receivers and consumers are processes of one core each, two at least, so that one may be away."""
    spans_s = load.spans_a_day / 86_400 * load.peak

    def cores(stage: str) -> float:
        return spans_s * figures[stage][0] / 1e6 / (1 - load.free)

    receivers, consumers = (max(2, math.ceil(cores(stage))) for stage in ("receiver_us", "consumer_us"))
    held_tb = load.spans_a_day * figures["stored_bytes"][0] * load.retention_days / 1e12 / assumed("disk_full")
    engine = cores("engine_us") + load.query_cores
    shards = max(1, math.ceil(engine / assumed("shard_cores")), math.ceil(held_tb / assumed("shard_tb")))
    # Every replica stores what the others do; questions go to one of them. A server has whole cores, and two at least.
    server_cores = max(2, math.ceil(engine / shards))
    clickhouse_cores = server_cores * shards * load.clickhouse_replicas
    clickhouse_tb = held_tb * load.clickhouse_replicas
    brokers = max(1, load.kafka_replicas)
    kafka_gb = load.spans_a_day / 24 * load.kafka_hours * load.kafka_bytes * load.kafka_replicas / 1e9 / assumed("disk_full")
    # To a broker, to its replicas, to a consumer, to ClickHouse and to its replicas.
    hops = 1 + (load.kafka_replicas - 1) + 1 + 1 + (load.clickhouse_replicas - 1)
    sent_day = load.spans_a_day * (load.wire_bytes + hops * load.kafka_bytes) / 1e9
    elsewhere = 1 - 1 / assumed("zones")
    # Replicas stand in other zones by intent, everything else by chance.
    far = (load.kafka_replicas - 1) + (load.clickhouse_replicas - 1)
    zone_gb_day = load.spans_a_day * ((load.wire_bytes + 3 * load.kafka_bytes) * elsewhere + far * load.kafka_bytes) / 1e9
    all_cores = receivers + consumers + clickhouse_cores + brokers * assumed("broker_cores")
    return Plan(
        load=load,
        spans_s=spans_s,
        embedded_cores=cores("embedded_us"),
        receivers=receivers,
        consumers=consumers,
        partitions=max(12, math.ceil(consumers * assumed("partitions"))),
        shards=shards,
        clickhouse_cores=clickhouse_cores,
        clickhouse_gib=math.ceil(clickhouse_cores * assumed("core_gib")),
        clickhouse_tb=clickhouse_tb,
        brokers=brokers,
        kafka_gb=kafka_gb,
        network_mb_s=sent_day / 86_400 * load.peak * 1000,
        zone_gb_day=zone_gb_day,
        usd_cores=all_cores * usd.core * HOURS_A_MONTH,
        usd_disk=(clickhouse_tb * 1000 + kafka_gb) * usd.disk,
        usd_network=zone_gb_day * 365 / 12 * usd.zone,
    )


ROWS = (
    ("spans a second, at the peak", lambda plan: f"{plan.spans_s:,.0f}"),
    ("one process for all of it: cores", lambda plan: f"{plan.embedded_cores:,.2f}"),
    ("receivers (a core each)", lambda plan: f"{plan.receivers}"),
    ("consumers (a core each)", lambda plan: f"{plan.consumers}"),
    ("partitions", lambda plan: f"{plan.partitions}"),
    ("Kafka brokers", lambda plan: f"{plan.brokers}"),
    ("Kafka's disk, together", lambda plan: f"{plan.kafka_gb:,.0f} GB"),
    ("ClickHouse shards × replicas", lambda plan: f"{plan.shards} × {plan.load.clickhouse_replicas}"),
    ("ClickHouse's cores, together", lambda plan: f"{plan.clickhouse_cores}"),
    ("ClickHouse's memory, together", lambda plan: f"{plan.clickhouse_gib} GiB"),
    ("ClickHouse's disk, together", lambda plan: f"{plan.clickhouse_tb:,.2f} TB"),
    ("network, at the peak", lambda plan: f"{plan.network_mb_s:,.1f} MB/s"),
    ("from zone to zone, a day", lambda plan: f"{plan.zone_gb_day:,.1f} GB"),
    ("USD a month: cores", lambda plan: f"{plan.usd_cores:,.0f}"),
    ("USD a month: disk", lambda plan: f"{plan.usd_disk:,.0f}"),
    ("USD a month: network", lambda plan: f"{plan.usd_network:,.0f}"),
    ("USD a month", lambda plan: f"{plan.usd:,.0f}"),
    ("USD a million spans", lambda plan: f"{plan.usd / (plan.load.spans_a_day * 365 / 12) * 1e6:.3f}"),
)


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def report(loads: list[Load], results: pathlib.Path = RESULTS) -> str:
    """The tables, in Markdown: what it takes, then from which figures."""
    figures = measured(results)
    plans = [size(load, figures, prices()) for load in loads]
    sized = table(
        ["spans a day", *(f"{load.spans_a_day:,}" for load in loads)],
        [[what, *(show(plan) for plan in plans)] for what, show in ROWS],
    )
    stages = [
        [
            MEASURES[name].what,
            f"{value:g}",
            f"[{MEASURES[name].file}](../benchmarks/results/{MEASURES[name].file})" if known else "the aim",
        ]
        for name, (value, known) in figures.items()
    ]
    given = [
        [f"`--{field.replace('_', '-')}`", f"{value:g}"] for field, value in loads[0]._asdict().items() if field != "spans_a_day"
    ]
    assumptions = [[what, f"{value:g}"] for value, what in ASSUMED.values()]
    return "\n\n".join(
        [sized, table(["measured", "", "where"], stages), table(["given", ""], given), table(["assumed", ""], assumptions)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans-a-day", type=lambda text: int(float(text)), nargs="+", default=list(EXAMPLES))
    for name, default in Load._field_defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    given = vars(parser.parse_args())
    days = given.pop("spans_a_day")
    print(report([Load(spans, **given) for spans in days]))


EXAMPLES = (10_000_000, 100_000_000, 1_000_000_000)

if __name__ == "__main__":
    main()
