"""The rooms import only what they may, the distributions hold everything, and public names stay."""

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import CLEAN, Server

from tallystick.schema import names
from tallystick.settings import TABLE

ROOT = Path(__file__).parent.parent
MAY_IMPORT: dict[str, set[str]] = {
    "schema": set(),
    "collectors": {"schema"},
    "ingest": {"schema"},
    "attribution": {"schema"},
    "alerts": {"schema", "attribution"},
    "probes": {"schema"},
}


def modules(folder: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_downwards(room: str) -> None:
    for path, tree in modules(room):
        for name in imported(tree):
            assert name.split(".")[0] not in MAY_IMPORT, f"{path} imports {name}, not tallystick.{name}"
            if name.startswith("tallystick."):
                other = name.split(".")[1]
                assert other == room or other in MAY_IMPORT[room], f"{path} imports {name}"
            assert name != "tallystick", f"{path} imports the front door"


def test_the_front_door_imports_by_full_name() -> None:
    for path, tree in modules("src/tallystick"):
        for name in imported(tree):
            assert name.split(".")[0] not in MAY_IMPORT, f"{path} imports {name}"


def test_the_contract_does_nothing_but_say() -> None:
    """No I/O in schema: what it reads are its own files."""
    for path, tree in modules("schema"):
        for name in imported(tree):
            assert name.split(".")[0] in {
                "csv",
                "dataclasses",
                "datetime",
                "decimal",
                "enum",
                "functools",
                "importlib",
                "itertools",
                "pydantic",
                "re",
                "tallystick",
                "typing",
                "collections",
            }, f"{path} imports {name}"


def test_rooms_are_links() -> None:
    for room in MAY_IMPORT:
        link = ROOT / "src" / "tallystick" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / ".." / room


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What the sdist, and the wheel made from it, hold, by path within the package or the project."""
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True, timeout=300)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    with zipfile.ZipFile(wheel) as archive:
        return {"sdist": inside, "wheel": set(archive.namelist())}


def sources() -> set[str]:
    """Files of the rooms and the front door that git knows, as paths within the package."""
    listed = subprocess.run(
        ["git", "ls-files", *MAY_IMPORT, "src/tallystick"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = {line for line in listed.stdout.splitlines() if not (ROOT / line).is_symlink() and (ROOT / line).exists()}
    return {f"tallystick/{file.removeprefix('src/tallystick/')}" for file in files}


def test_the_wheel_holds_everything(distributions: dict[str, set[str]]) -> None:
    wanted = sources()
    assert {Path(name).suffix for name in wanted} >= {".py", ".sql", ".csv", ".proto", ".xml", ".html", ".gz", ".typed"}
    assert not wanted - distributions["wheel"]


def test_the_wheel_holds_nothing_else(distributions: dict[str, set[str]]) -> None:
    """Neither rooms at the top of site-packages, nor tests."""
    tops = {name.split("/")[0] for name in distributions["wheel"]}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tallystick"}
    assert not {name for name in distributions["wheel"] if "test_" in name or "__pycache__" in name}
    assert {name for name in distributions["wheel"] if name.endswith(("licenses/LICENSE", "entry_points.txt"))}


def test_the_sdist_can_be_tested(distributions: dict[str, set[str]]) -> None:
    inside = distributions["sdist"]
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "tests/test_layout.py", "tests/spans/README.md"} <= inside
    assert not {name for name in inside if name.startswith((".venv", ".git/", "shared"))}


def test_what_users_import() -> None:
    code = "import tallystick, inspect; print(sorted(tallystick.__all__), *inspect.signature(tallystick.scope).parameters)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=CLEAN)
    assert done.stdout.split("] ")[0] == (
        "['BudgetExceeded', 'CircuitOpen', 'Client', 'asgi', 'breaker', 'cache_hit', 'count_tokens', 'estimate_cost', 'flush', 'flushed', 'guard', "
        "'outgoing_baggage', 'redact', 'scope', 'scope_rules', 'status', 'wsgi'"
    )
    assert done.stdout.split("] ")[1].split()[:6] == ["customer", "feature", "agent", "team", "user", "session"]
    code = "import tallystick.auto, tallystick.testing as t; print(t.ProviderServer.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=CLEAN | {"OTEL_SDK_DISABLED": "true"}
    )
    assert done.stdout == "ProviderServer\n"


def test_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli", "--help"], check=True, capture_output=True, text=True, env=CLEAN
    )
    commands = set(re.findall(r"^  ([a-z]+)  ", done.stdout.split("Commands:")[1], flags=re.MULTILINE))
    assert {"up", "demo", "replay", "costs", "sql", "prices", "keys", "doctor"} <= commands


def test_variables() -> None:
    assert {row.env for row in TABLE} >= {
        "TALLYSTICK_URL",
        "TALLYSTICK_KEY",
        "TALLYSTICK_DATA",
        "TALLYSTICK_PORT",
        "TALLYSTICK_GRPC_PORT",
    }
    defaults = {row.name: row.default for row in TABLE}
    assert (defaults["host"], defaults["port"], defaults["grpc_port"]) == ("127.0.0.1", 4318, 4317)


def test_names_on_the_wire() -> None:
    assert tuple(f"tallystick.{name}" for name in ("customer", "feature", "agent", "team", "user", "session")) == names.SCOPE_KEYS
    assert (names.TENANT, names.TAG_PREFIX) == ("tallystick.tenant", "tallystick.tag.")


CHARGES = {
    "entry": "Enum8", "calls": "Int8", "tenant": "String", "customer": "String", "feature": "String", "agent": "String", "team": "String",
    "user": "String", "session": "String", "service": "String", "environment": "String", "tags": "Map", "provider": "String",
    "request_model": "String", "response_model": "String", "operation": "String", "service_tier": "String", "streamed": "UInt8",
    "status": "Enum8", "error_type": "String", "cache_hit": "String", "input_tokens": "Int64", "cache_read_tokens": "Int64",
    "cache_write_5m_tokens": "Int64", "cache_write_1h_tokens": "Int64", "output_tokens": "Int64", "reasoning_tokens": "Int64",
    "audio_input_tokens": "Int64", "audio_output_tokens": "Int64", "usage_source": "Enum8", "started_at": "DateTime64",
    "ended_at": "DateTime64", "ttft_ms": "Float64", "ttft_kind": "String", "tpot_ms": "Float64", "price_id": "String",
    "cost_usd": "Decimal", "reported_cost_usd": "Decimal", "trace_id": "String", "span_id": "String", "response_id": "String",
}  # fmt: skip


def test_columns_of_charges(server: Server) -> None:
    answer = server.http.post("/v1/sql", json={"query": "SELECT * FROM charges LIMIT 0"}).json()
    kinds = {}
    for column in answer["columns"]:
        kind = column["type"]
        for wrapper in ("LowCardinality(", "Nullable("):
            kind = kind.removeprefix(wrapper)
        kinds[column["name"]] = re.split(r"[(),]", kind)[0]
    assert {name: kinds.get(name) for name in CHARGES} == CHARGES
    answer = server.http.post("/v1/sql", json={"query": "SELECT entry, status, usage_source FROM charges LIMIT 0"}).json()
    told = [re.findall(r"'(\w+)'", column["type"]) for column in answer["columns"]]
    assert told == [
        ["call", "void", "reprice", "allocation", "trueup"],
        ["ok", "error", "cancelled"],
        ["provider", "estimated", "partial", "missing", "none"],
    ]


def test_the_answer_of_sql(server: Server) -> None:
    question = {
        "query": "SELECT toDecimal64(1.5, 12) AS cost, 7 AS n, NULL AS unknown WHERE {yes:UInt8} = 1",
        "params": {"yes": 1},
    }
    answer = server.http.post("/v1/sql", json=question).json()
    assert answer.keys() == {"columns", "rows", "elapsed_ms"}
    assert [column.keys() for column in answer["columns"]] == [{"name", "type"}] * 3
    assert answer["rows"] == [["1.500000000000", 7, None]] or answer["rows"] == [["1.5", 7, None]]


def test_alive_and_ready(server: Server) -> None:
    assert server.http.get("/healthz").status_code == 200
    assert server.http.get("/readyz").status_code == 200
