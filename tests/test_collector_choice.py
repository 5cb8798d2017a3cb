"""Which instrumentation of a client library is turned on."""

import re
from pathlib import Path

import pytest

from tallystick.collectors.instrumentations import NATIVE, UNDERNEATH, choose, installed_instrumentations
from tallystick.collectors.libraries import LIBRARIES, Library
from tallystick.collectors.settings import VARIABLES

OFFICIAL, OPENINFERENCE, OPENLLMETRY = (
    "opentelemetry-instrumentation-genai-openai",
    "openinference-instrumentation-openai",
    "opentelemetry-instrumentation-openai",
)
ANTHROPIC = "opentelemetry-instrumentation-genai-anthropic"


def library(name: str) -> Library:
    return next(one for one in LIBRARIES if one.distribution == name)


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ([], None),
        ([OPENLLMETRY], OPENLLMETRY),
        ([OPENLLMETRY, OPENINFERENCE], OPENINFERENCE),
        ([OPENLLMETRY, OPENINFERENCE, OFFICIAL], OFFICIAL),
    ],
)
def test_one_of_each_library_in_order_of_preference(installed: list[str], chosen: str | None) -> None:
    found = choose(library("openai"), "3.0", dict.fromkeys(installed, "openai"), frozenset(), {})
    assert found.instrumentation == chosen
    assert found.reason
    assert set(found.alternatives) == set(installed) - {chosen}


@pytest.mark.parametrize("left_off", ["openai", "*"])
def test_left_off(left_off: str) -> None:
    found = choose(library("openai"), "3.0", {OFFICIAL: "openai"}, frozenset({left_off}), {})
    assert found.instrumentation is None
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" in found.reason


def test_not_installed() -> None:
    assert choose(library("openai"), None, {OFFICIAL: "openai"}, frozenset(), {}).instrumentation is None


@pytest.mark.parametrize(
    ("version", "environ", "chosen"),
    [
        ("2.11.0", {}, NATIVE),
        ("1.14.0", {}, NATIVE),
        ("1.13.9", {}, ANTHROPIC),
        ("1.9", {}, ANTHROPIC),
        ("0.51.0", {}, ANTHROPIC),
        ("10.0", {}, NATIVE),
        ("2.11.0", {"ANTHROPIC_OPEN_TELEMETRY": "False"}, ANTHROPIC),
        ("2.11.0", {"ANTHROPIC_OPEN_TELEMETRY": "true"}, NATIVE),
        ("unknown", {}, ANTHROPIC),
    ],
)
def test_anthropics_own_spans_where_it_has_them(version: str, environ: dict[str, str], chosen: str) -> None:
    found = choose(library("anthropic"), version, {ANTHROPIC: "anthropic"}, frozenset(), environ)
    assert found.instrumentation == chosen


LANGCHAIN = "opentelemetry-instrumentation-genai-langchain"


@pytest.mark.parametrize(
    ("name", "installed", "left_off", "chosen"),
    [
        ("langchain-core", {LANGCHAIN: "langchain"}, frozenset(), LANGCHAIN),
        ("langchain-core", {LANGCHAIN: "langchain"}, frozenset({"langchain"}), UNDERNEATH),
        ("langchain-core", {}, frozenset(), UNDERNEATH),
        ("llama-index-core", {"openinference-instrumentation-llama-index": "llama_index"}, frozenset(), UNDERNEATH),
        ("litellm", {}, frozenset(), None),
    ],
)
def test_frameworks_are_metered_by_the_clients_under_them(
    name: str, installed: dict[str, str], left_off: frozenset[str], chosen: str | None
) -> None:
    assert choose(library(name), "1.0", installed, left_off, {}).instrumentation == chosen


@pytest.mark.parametrize(
    ("name", "version", "tested"),
    [
        ("openai", "3.52.0", True),
        ("openai", "30.1", False),
        ("openai", "3", True),
        ("llama-index-core", "0.14.2", True),
        ("llama-index-core", "0.1.4", False),
        ("groq", "1.0", None),
        ("openai", None, False),
    ],
)
def test_versions_that_the_page_of_clients_has(name: str, version: str | None, tested: bool | None) -> None:
    assert choose(library(name), version, {}, frozenset(), {}).tested is tested


def test_of_this_environment() -> None:
    found = {choice.library: choice for choice in installed_instrumentations({}, frozenset())}
    assert found.keys() == {one.distribution for one in LIBRARIES}
    assert (found["openai"].instrumentation, found["anthropic"].instrumentation) == (OFFICIAL, NATIVE)


def test_no_instrumentation_is_listed_for_two_libraries() -> None:
    listed = [name for one in LIBRARIES for name in one.instrumentations]
    assert len(listed) == len(set(listed))
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in listed)


def test_the_documentation_has_the_table_of_settings() -> None:
    page = (Path(__file__).parent.parent / "docs" / "collector.md").read_text()
    for variable in VARIABLES:
        assert f"| `{variable.name}` | {f'`{variable.default}`' if variable.default else '–'} | {variable.meaning} |" in page
