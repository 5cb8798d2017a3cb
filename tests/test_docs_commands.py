"""What the documentation tells people to type works as it is written.

Commands run in an empty directory, as a reader's shell would run them: against the server that README's own `tallystick up` starts, with
README's budgets and a local Slack, and the calls that README's own Python makes of a local provider. Two kinds are looked at instead of run:
`make` is asked what it would do, because `make test` is what runs this, and `pip` would need the network. SQL recipes, YAML and what needs brokers
and servers have tests of their own (test_user_sql_docs, test_budget_docs, test_alert_docs, test_scale).
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from server import CLEAN, free_port

from tallystick.cli import cli
from tallystick.client import Client
from tallystick.testing import ProviderServer, SlackServer

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{name}.md" for name in ("alerts", "budgets", "charges", "collector", "ingest", "prices", "settings", "sql")),
]


def text(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, *languages: str) -> list[str]:
    """Fenced blocks of one of these languages; '' is none named."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text(document), re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def commands(document: str) -> list[str]:
    """Lines after a prompt, and in a block without a language those that begin with a program that is known here."""
    prompted = [line for block in blocks(document, "console") for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in prompted), "only commands, each after a prompt"
    plain = "".join(blocks(document, "")).replace("\\\n", " ").splitlines()
    known = [line for line in plain if line.split(" ")[0] in ("tallystick", "make", "pip", "curl")]
    return [line.removeprefix("$ ") for line in prompted] + known


COMMANDS = [command for document in DOCUMENTS for command in commands(document)]
INLINE = sorted({found for document in DOCUMENTS for found in re.findall(r"`((?:tallystick|make|pip) [^`]+)`", text(document))})


def starting(program: str, commands: list[str] = COMMANDS) -> list[str]:
    return [command for command in commands if command.split(" ")[0] == program]


UP = [command for command in starting("tallystick") if command.split()[1] == "up"]
ASKED = [command for command in starting("tallystick") if command not in UP] + starting("curl")


def test_everything_that_is_told_is_run_or_looked_at() -> None:
    languages = {language for document in DOCUMENTS for language in re.findall(r"^```(\w+)$", text(document), re.MULTILINE)}
    assert languages == {"console", "python", "yaml", "json", "jinja", "sql", "sh"}, "tests/test_caches.py runs the SQL"
    assert len(UP) == 1
    assert {command.split()[1] for command in ASKED} >= {"costs", "sql", "prices", "budgets", "alerts", "keys", "doctor"}
    assert len(starting("curl")) == 2
    assert len(starting("make")) == 5
    assert sorted(COMMANDS) == sorted([*UP, *ASKED, *starting("make"), *starting("pip")])
    assert len(blocks("README.md", "python")) == 1


# --- run ---


class Shell(NamedTuple):
    """A reader's: the directory it is in, its environment, and where the server listens."""

    directory: Path
    environ: dict[str, str]
    url: str

    def bash(self, command: str) -> subprocess.CompletedProcess[str]:
        # Where the text names the usual address, the server's is meant.
        command = re.sub(r"(http://)?(localhost|127\.0\.0\.1):4318", self.url, command)
        return subprocess.run(
            ["bash", "-c", command], cwd=self.directory, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )

    def python(self, program: str) -> None:
        environ = self.environ | {"TALLYSTICK_URL": self.url}
        warnings = "ignore::DeprecationWarning"
        done = subprocess.run(
            [sys.executable, "-W", warnings, "-c", program],
            cwd=self.directory, env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stderr

    def sql(self, query: str) -> list[tuple[object, ...]]:
        with Client(self.url) as client:
            return client.sql(query).rows


@pytest.fixture(scope="module")
def slack() -> Iterator[SlackServer]:
    with SlackServer() as running:
        yield running


@pytest.fixture(scope="module")
def shell(slack: SlackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """README's server with README's budgets, on free ports, and README's call in its ledger."""
    directory = tmp_path_factory.mktemp("reader")
    port = free_port()
    environ = CLEAN | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{CLEAN['PATH']}",
        "TALLYSTICK_PORT": str(port),
        "TALLYSTICK_GRPC_PORT": str(free_port()),
        "CURL_HOME": str(directory),
        "TALLYSTICK_CONFIG": "budgets.yaml",
        "SLACK_WEBHOOK_URL": slack.webhook_url,
        "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS": "1",
    }
    (directory / "budgets.yaml").write_text(blocks("README.md", "yaml")[0])
    (directory / "invoice.csv").write_text("day,provider,model,input_tokens,cost_usd\n2026-10-01,openai,gpt-5-mini,1000,0.25\n")
    (directory / ".curlrc").write_text('fail\nsilent\nshow-error\nnoproxy = "*"\n')
    with (directory / "log").open("w") as log:
        up = subprocess.Popen(
            ["bash", "-c", "exec " + UP[0].partition("&")[0]],
            cwd=directory,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert up.stdout is not None
        assert up.stdout.readline() == f"ready http://127.0.0.1:{port}\n", (directory / "log").read_text()
        shell = Shell(directory, environ, f"http://127.0.0.1:{port}")
        meter(shell)
        yield shell
    finally:
        up.kill()
        up.communicate()


def meter(shell: Shell) -> None:
    """README's Python, with a client and messages to run it with. The process ends as a service's does: what waits is sent."""
    with ProviderServer() as provider:
        given = (
            "import openai\n"
            f"client = openai.OpenAI(base_url={provider.openai_url!r}, api_key='k', max_retries=0)\n"
            "messages = [{'role': 'user', 'content': 'hello'}]\n"
        )
        (block,) = blocks("README.md", "python")
        shell.python(given + block)
        assert len(provider.calls) == 1
    deadline = time.monotonic() + 30
    while not shell.sql("SELECT 1 FROM charges") and time.monotonic() < deadline:
        time.sleep(0.05)


def test_readme_meters_a_call(shell: Shell) -> None:
    query = "SELECT customer, feature, agent, startsWith(response_model, 'gpt-5-mini'), cost_usd > 0 FROM charges WHERE startsWith(service, 'unknown_service')"
    assert shell.sql(query) == [("acme", "search", "planner", 1, 1)]


SHOWN = {
    "tallystick costs": r"acme +search +1 ",
    'tallystick sql "SELECT customer': r"acme +0\.0\d+ +1 ",
    'tallystick sql "SELECT feature': r"search +0\.0\d+ ",
    'tallystick sql "SELECT sum(calls)': r'"sum\(calls\)": 1',
    'tallystick sql "SELECT * FROM charges': r"^$",
    "tallystick reprice": r"^$",
    "tallystick whatif": r"gpt-5-mini\S* +1 +1,250 +0\.0004",
    "tallystick reconcile invoice.csv": r"gpt-5-mini",
    "tallystick statement": r"^$",
    "tallystick focus export": r"written",
    "tallystick prices missing": r"^$",
    "tallystick keys create": r"^ts_\S{40,}$",
    "tallystick doctor": r"accepts spans",
    "tallystick budgets validate": r"^budgets.yaml: fine; channels: 1, budgets: 2, rules: 0$",
    "tallystick budgets list": r"^ acme .* 100.00 USD",
    "tallystick budgets set": r"^globex is kept; the next evaluation judges by it$",
    "tallystick budgets show": r"^ globex .* 80.00 USD",
    "tallystick budgets history": r" revision 1 ",
    "tallystick budgets delete": r"^globex is deleted",
    "tallystick alerts evaluate": r"^\d+ judged in",
    "tallystick alerts test": r"^team: sent$",
    "tallystick alerts silence ": r"^silence 1: acme until",
    "tallystick alerts silences": r"acme +all .* load test",
    "tallystick alerts list": r"^$",
    "tallystick alerts status": r"^\d budgets, 0 rules, every 10 s; last evaluated",
    "curl localhost:4318/v1/sql": r'"rows":\[\["0\.\d+"\]\]',
    "curl 'localhost:4318/?query=": r"^0\.\d+$",
}
"""What comes of each, by how it begins: a pattern somewhere in its standard output. They run in the order of the documents."""


@pytest.mark.parametrize("command", ASKED)
def test_commands_do_what_is_told(shell: Shell, command: str) -> None:
    if not shutil.which(command.split(maxsplit=1)[0], path=shell.environ["PATH"]):
        assert command.startswith("curl "), command
        pytest.skip("curl isn't installed")
    done = shell.bash(command)
    assert done.returncode == 0, done.stdout + done.stderr
    (pattern,) = [pattern for beginning, pattern in SHOWN.items() if command.startswith(beginning)]
    assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout + done.stderr


CLIENT = """
from types import SimpleNamespace
from opentelemetry import trace

def create(*_):
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "docs"}
    with trace.get_tracer("docs").start_as_current_span("chat docs", attributes=attributes):
        pass

client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
"""
"""Takes the `...` that stands for arguments, and tells of the call as an instrumentation would."""


def test_the_collectors_python(shell: Shell) -> None:
    scopes, *more = blocks("docs/collector.md", "python")
    (at_the_end,) = [block for block in more if "flush(timeout_s=5)" in block]
    assert "async def summarise(text): ..." in scopes
    scopes = scopes.replace("async def summarise(text): ...", "async def summarise(text): create(text)")
    summaries = "import asyncio\nasyncio.run(summarise('x'))\n"
    proof = "assert tallystick.flush(timeout_s=5) is True\nassert tallystick.status().spans.exported == 2\n"
    shell.python(CLIENT + scopes + summaries + at_the_end + proof)
    query = "SELECT customer, feature, agent, tags['env'] FROM charges WHERE request_model = 'docs' ORDER BY feature"
    assert shell.sql(query) == [("acme", "search", "planner", "prod"), ("", "summaries", "", "")]


# --- looked at ---


@pytest.mark.skipif(not shutil.which("make"), reason="make isn't installed")
@pytest.mark.parametrize("command", sorted(set(starting("make") + starting("make", INLINE))))
def test_make_would_do_it(command: str) -> None:
    target = shlex.split(command, comments=True)[1:]
    done = subprocess.run(["make", "--dry-run", "-C", str(ROOT), *target], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for step in {"demo": ["tallystick demo"], "test": ["ruff check", "mypy", "pyright", "pytest"]}.get(target[0], []):
        assert step in done.stdout
    shown = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"^  make {target[0]} ", shown, re.MULTILINE)


@pytest.mark.parametrize("command", sorted(set(starting("pip") + starting("pip", INLINE))))
def test_pip_would_find_it(command: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    program, action, wanted = shlex.split(command, comments=True)
    name, _, extras = wanted.removesuffix("]").partition("[")
    assert (program, action, name) == ("pip", "install", project["name"])
    assert {extra for extra in extras.split(",") if extra} <= project["optional-dependencies"].keys()


@pytest.mark.parametrize("command", starting("tallystick", INLINE))
def test_commands_in_the_text_exist_with_their_flags(command: str) -> None:
    found: click.Command = cli
    for word in shlex.split(command)[1:]:
        if word.startswith("-"):
            assert any(word in parameter.opts for parameter in found.params), f"{word} of {command}"
        elif isinstance(found, click.Group):
            inner = found.get_command(click.Context(found), word)
            assert inner is not None, f"{word} of {command}"
            found = inner
    assert not isinstance(found, click.Group) or command.rsplit(maxsplit=1)[-1] == found.name, command
