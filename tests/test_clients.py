"""The matrix of clients itself: what is run, what is locked, and what the collector says that it was tested with."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from clients.environment import HERE, PROJECT, environments, lock_of, python
from clients.matrix import CHECKS, Result, Run, runs, version_of
from clients.page import PAGE, page, recorded, section

from tallystick.cli.doctor import metered
from tallystick.collectors.instrumentations import Choice, choose
from tallystick.collectors.libraries import LIBRARIES, Library

RUN = Run("one", "one 1", "current", "openai", "openai", {"openai": "an instrumentation"})
ROW = dict.fromkeys(CHECKS, "–")


def result(known: list[tuple[str, str, str, str]], metered_by: str = "an instrumentation") -> Result:
    cells = {"create": {**ROW, "tokens": "yes", "cache": "no"}, "stream": {**ROW, "tokens": "no"}}
    wrong = {("create", "cache"): "3, not 4", ("stream", "tokens"): "None, not 5"}
    return Result(RUN, cells, wrong, known, {"openai": [metered_by, "on"]})  # type: ignore[arg-type]


DECLARED = [("*", "create", "cache", "it is lost"), ("one", "str*", "tokens", "nobody counts")]


def test_what_is_declared_is_expected() -> None:
    assert not result(DECLARED).unexpected()


@pytest.mark.parametrize(
    ("known", "told"),
    [
        (DECLARED[:1], "stream, tokens: None, not 5"),
        ([*DECLARED, ("*", "create", "tokens", "old")], "create, tokens: is right, take it out of KNOWN (old)"),
        ([*DECLARED, ("*", "gone", "tokens", "old")], "gone, tokens: nothing fails, take it out of KNOWN (old)"),
        ([*DECLARED, ("another", "create", "tokens", "of another run")], None),
    ],
)
def test_a_declaration_cant_rot(known: list[tuple[str, str, str, str]], told: str | None) -> None:
    found = result(known).unexpected()
    assert told in found if told else not found


def test_another_instrumentation_is_unexpected() -> None:
    assert result(DECLARED, "another").unexpected()


def test_a_section_has_each_reason_once_below_its_table() -> None:
    text = section(result([("*", "*", "*", "it is lost")]))
    assert text.count("✗ 1") == 2
    assert text.endswith("\n1. it is lost\n")
    assert f"openai {version_of(RUN)}" in text


def test_the_page_has_the_runs_and_nothing_else() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.startswith(page([]))
    recordings = [part.partition("\n")[0].removeprefix("## ") for part in recorded()]
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [*(run.client for run in runs().values()), *recordings]
    assert all(part in text for part in recorded())


def test_every_scenario_file_is_run() -> None:
    assert {path.stem for path in (HERE / "scenarios").glob("*.py")} == {run.scenarios for run in runs().values()}
    named = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_clients_*.py"))
    assert [name for name in runs() if f'"{name}"' not in named] == [], "in no test file"


@pytest.mark.parametrize("name", environments())
def test_a_lock_has_what_is_asked_for(name: str) -> None:
    locked = lock_of(name).read_text(encoding="utf-8").splitlines()
    asked = [re.sub(r"\[.*\]", "", package) for package in environments()[name]]
    assert [package for package in asked if package not in {line.partition(" ;")[0] for line in locked}] == []
    needed = re.findall(
        r'^  "([a-z0-9-]+)>=', PROJECT.read_text(encoding="utf-8").partition("dependencies = [")[2].partition("]")[0], re.M
    )
    assert [package for package in needed if not any(line.startswith(f"{package}==") for line in locked)] == [], (
        "make clients-lock"
    )


def libraries() -> dict[str, Library]:
    return {library.distribution: library for library in LIBRARIES}


def test_the_collector_knows_what_it_was_tested_with() -> None:
    tested = {(run.library, version_of(run)) for run in runs().values()}
    for name, version in tested:
        assert choose(libraries()[name], version, {}, frozenset(), {}).tested, f"{name} {version}: Library.tested"
    claims = {(one.distribution, release) for one in LIBRARIES for release in one.tested}
    shown = {
        claim for claim in claims for name, version in tested if claim[0] == name and f"{version}.".startswith(f"{claim[1]}.")
    }
    assert claims - shown == set(), "claimed and not run"


def doctor() -> list[dict[str, str]]:
    """What it says in a service's environment, without the server's packages."""
    command = [str(python("previous").parent / "tallystick"), "doctor", "--json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "TALLYSTICK_", "ANTHROPIC_"))}
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False, cwd=HERE)
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_the_doctor_of_a_service_says_what_is_metered() -> None:
    told = doctor()
    clients = [one for one in told if one["what"].startswith(("openai", "anthropic", "llama"))]
    assert {one["what"]: (one["state"], one["found"]) for one in clients} == {
        "openai 2.54.0": ("ok", "metered by opentelemetry-instrumentation-genai-openai: the preferred one that is installed"),
        "anthropic 1.17.0": ("ok", "metered by native: the library emits its own spans"),
        "llama-index-core 0.14.25": (
            "ok",
            "metered by the client libraries under it: its calls go through client libraries, which are metered one by one",
        ),
    }
    assert any("tallystick[server]" in one["advice"] for one in told)


@pytest.mark.parametrize(
    ("choice", "state", "found", "advice"),
    [
        (
            Choice("groq", "1.0", None, "no instrumentation is installed: pip install x"),
            "warn",
            "its calls aren't metered",
            "pip install x",
        ),
        (
            Choice("openai", "4.0", "x", "why", (), False),
            "warn",
            "metered by x: why; this version isn't among the tested",
            "clients.md",
        ),
        (Choice("groq", "1.0", "x", "why"), "ok", "metered by x: why; not among the tested libraries", ""),
        (Choice("openai", "3.0", "x", "why", (), True), "ok", "metered by x: why", ""),
    ],
)
def test_the_doctor_says_what_to_do(choice: Choice, state: str, found: str, advice: str) -> None:
    check = metered(choice)
    assert (check.state, check.what) == (state, f"{choice.library} {choice.version}")
    assert check.found.startswith(found)
    assert advice in check.advice
