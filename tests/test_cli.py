"""The command line as such: help, exit codes, errors, output, times."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tallystick.attribution.spend import DIMENSIONS, UnknownDimension, spend
from tallystick.cli import COMMANDS, cli, output
from tallystick.cli.failure import in_words
from tallystick.cli.output import Field, count, emit, money, percent, tokens
from tallystick.cli.when import end_of_day, moment
from tallystick.client import Refused, Unreachable
from tallystick.ingest.errors import DataDirectoryInUse, StoreUnavailable
from tallystick.settings import BadSetting

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = 1_795_000_000 * SECOND + 123


def tallystick(*args: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it, in a clean environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "OTEL_"))}
    command = [sys.executable, "-m", "tallystick.cli", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, input="", env=clean | (env or {}), cwd=cwd, check=False
    )


def every_command() -> list[list[str]]:
    paths: list[list[str]] = [[]]
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            paths.append([name])
            if isinstance(command, click.Group):
                paths += [[name, sub] for sub in command.list_commands(context)]
    return paths


# --- help and exit codes ---


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: list[str]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert re.search(r"^  tallystick " + " ".join(path), result.output, re.MULTILINE), "no example in the help"
    options = result.output.partition("Options:")[2]
    for option in re.findall(r"^  (?:-\w, )?(--[a-z-]+)", options, re.MULTILINE):
        assert re.search(re.escape(option) + r"[^\n]*?(  +|\n\s+)\S", options), f"{option} has no help"


def test_names_that_others_rely_on() -> None:
    assert {
        "up",
        "demo",
        "replay",
        "costs",
        "ask",
        "sql",
        "prices",
        "whatif",
        "allocate",
        "budgets",
        "alerts",
        "keys",
        "doctor",
    } <= {*COMMANDS}
    found = {" ".join(path) for path in every_command()}
    assert found >= {"prices list", "prices show", "prices missing", "prices check", "keys create", "keys list", "keys revoke"}
    for command, options in {
        "up": ("--data", "--host", "--port", "--grpc-port", "--config"),
        "demo": ("--data", "--keep"),
        "replay": ("--url", "--speed", "--shift-to-now"),
        "costs": ("--by", "--since", "--until", "--json", "--csv", "--limit", "--url", "--data"),
        "sql": ("--json", "--csv", "--url", "--data"),
        "doctor": ("--json",),
    }.items():
        shown = CliRunner().invoke(cli, [command, "--help"]).output
        assert [option for option in options if option not in shown] == []


def test_version() -> None:
    result = tallystick("--version")
    assert (result.returncode, result.stdout) == (0, "tallystick 0.1.0\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("bills",), "No such command 'bills'"),
        (("costs", "--by", "costumer"), "no dimension 'costumer': did you mean customer?"),
        (("costs", "--by", "xyzzy"), "there are customer, feature"),
        (("costs", "--by", "tag:"), "no dimension 'tag:'"),
        (("costs", "--by", ","), "nothing to group by"),
        (("costs", "--since", "last tuesday"), "'last tuesday' is no time: write 30d, 24h"),
        (("costs", "--since", "2026-01-02", "--until", "2026-01-02"), "--since isn't before --until"),
        (("costs", "--where", "customer"), "'customer' isn't NAME=VALUE"),
        (("costs", "--where", "custumer=acme"), "did you mean customer?"),
        (("costs", "--limit", "-1"), "--limit"),
        (("costs", "--json", "--csv"), "exclude each other"),
        (("costs", "--url", "localhost:4318"), "neither http:// nor https://"),
        (("sql", " "), "the query is empty"),
        (("sql", "-"), "the query is empty"),
        (("sql",), "Missing argument 'QUERY'"),
        (("sql", "SELECT 1", "-p", "=1"), "'=1' isn't NAME=VALUE"),
        (("replay", "/no/such/file"), "does not exist"),
        (("replay", "--speed", "0"), "neither max nor a number above 0"),
        (("replay", "--speed", "nan"), "neither max nor a number above 0"),
        (("replay", "--speed", "fast"), "neither max nor a number above 0"),
        (("keys", "create"), "Missing option '--tenant'"),
        (("keys", "create", "--tenant", "a b"), "'a b' is no tenant's name"),
        (("prices", "check", "/no/such/file"), "does not exist"),
        (("up", "--config", "/no/such/file"), "is no file"),
        (("up", "--port", "x"), "is not a valid integer"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(args: tuple[str, ...], said: str) -> None:
    result = tallystick(*args)
    assert (result.returncode, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_a_variable_that_makes_no_sense_is_wrong_usage() -> None:
    result = tallystick("costs", env={"TALLYSTICK_PORT": "http"})
    assert result.returncode == 2
    assert "TALLYSTICK_PORT is no whole number: 'http'" in result.stderr


@pytest.mark.parametrize("command", [("costs",), ("sql", "SELECT 1"), ("prices", "missing")])
def test_without_a_ledger_commands_fail_in_two_lines(command: tuple[str, ...], tmp_path: Path) -> None:
    result = tallystick(*command, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: no ledger: tallystick-data doesn't exist and no server is named\n"
        "  start one with `tallystick up`, try `tallystick demo`, or name one with --data or --url\n"
    )
    assert list(tmp_path.iterdir()) == [], "asking must not make a directory"


@pytest.mark.parametrize("command", [("costs",), ("sql", "SELECT 1"), ("doctor",)])
def test_an_unreachable_server_is_said_to_be_so(command: tuple[str, ...]) -> None:
    # Port 9 (discard) isn't listened on.
    result = tallystick(*command, env={"TALLYSTICK_URL": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:1"})
    assert result.returncode == 1
    assert "http://127.0.0.1:9" in result.stdout + result.stderr
    assert "tallystick up" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


# --- light, and useful without the server's packages ---

WITHOUT_SERVER = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("chdb", "fastapi", "httpx", "rich", "genai_prices", "pydantic", "yaml"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from tallystick.cli import main
main()
"""


@pytest.mark.parametrize(
    "args", [("costs", "--url", "http://127.0.0.1:9"), ("replay",), ("prices", "list"), ("demo",)], ids=lambda args: args[0]
)
def test_without_the_servers_packages_their_names_and_the_remedy_are_said(args: tuple[str, ...], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_SERVER, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"TALLYSTICK_STRICT": ""},
    )
    assert result.returncode == 1
    assert "pip install 'tallystick[server]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_and_version_load_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tallystick.cli import cli\n"
        "cli(['costs', '--help'], standalone_mode=False); cli(['--help'], standalone_mode=False)\n"
        "heavy = {'httpx', 'rich', 'chdb', 'clickhouse_connect', 'genai_prices', 'pydantic', 'fastapi', 'opentelemetry.sdk'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == "[]\n"


def test_a_reader_that_goes_away_is_no_failure() -> None:
    command = f"'{sys.executable}' -m tallystick.cli prices list --json | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_what_isnt_foreseen_is_one_line_and_a_traceback_only_on_request() -> None:
    code = (
        "import sys, tallystick.cli.up as up\nfrom tallystick.cli import main\n"
        "up.up.callback = lambda **_: 1 / 0\nsys.argv[1:] = ['up']\nmain()"
    )
    for strict, traceback in (("", False), ("1", True)):
        env = os.environ | {"TALLYSTICK_STRICT": strict}
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False, env=env)
        assert result.returncode == 1
        assert ("Traceback" in result.stderr) is traceback
        assert "ZeroDivisionError: division by zero" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "said", "hint"),
    [
        (DataDirectoryInUse("another process holds /d"), 1, "another process holds /d", "name the server with --url"),
        (StoreUnavailable("/d can't be used: Read-only file system"), 1, "/d can't be used: Read-only file system", ""),
        (Unreachable("no server answers at http://x"), 1, "no server answers at http://x", "tallystick up"),
        (Refused(401, "unauthorized", "unknown key"), 1, "the server refuses: unknown key", "TALLYSTICK_KEY"),
        (Refused(400, "bad_query", "no such column", "DESCRIBE charges"), 1, "no such column", "DESCRIBE charges"),
        (OSError(98, "can't listen on 127.0.0.1:4318: Address already in use"), 1, "can't listen on 127.0.0.1:4318", ""),
        (PermissionError(13, "Permission denied", "/etc/x"), 1, "Permission denied: /etc/x", ""),
        (BadSetting("TALLYSTICK_PORT is negative: '-1'"), 2, "TALLYSTICK_PORT is negative: '-1'", ""),
        (ModuleNotFoundError("No module named 'httpx'", name="httpx"), 1, "httpx is missing", "pip install 'tallystick[server]'"),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), 1, "No module named 'mine'", "please report it"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_error_is_put_in_words(error: Exception, code: int, said: str, hint: str) -> None:
    shown = in_words(error)
    assert shown.exit_code == code
    assert said in shown.message
    assert hint in getattr(shown, "hint", "")


# --- times ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("15m", NOW - 900 * SECOND),
        ("24h", NOW - 24 * HOUR),
        ("30d", (NOW - 30 * 24 * HOUR) // (24 * HOUR) * (24 * HOUR)),
        ("2w", (NOW - 14 * 24 * HOUR) // (24 * HOUR) * (24 * HOUR)),
        ("999999w", 0),
        ("2026-11-01", 1_793_491_200 * SECOND),
        ("2026-11-01T12:30:00", 1_793_536_200 * SECOND),
        ("2026-11-01T12:30:00+01:00", 1_793_532_600 * SECOND),
        ("2026-11-01 12:30:00.000001Z", 1_793_536_200 * SECOND + 1000),
    ],
)
def test_moments(text: str, expected: int) -> None:
    assert moment(text, NOW) == expected


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    found, said = 0, repr(text)
    try:
        found = moment(text, NOW)
    except ValueError as error:
        said = str(error)
    assert 0 <= found < 2**63
    assert repr(text) in said


@given(st.integers(0, 2**62))
def test_the_end_of_the_hour_is_ahead_by_at_most_an_hour(now: int) -> None:
    assert now < end_of_day(now) <= now + 24 * HOUR
    assert end_of_day(now) % (24 * HOUR) == 0


# --- output ---


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (None, "unpriced"),
        (Decimal(0), "0.00"),
        (Decimal("1234567.891"), "1,234,567.89"),
        (Decimal("-3.5"), "-3.50"),
        (Decimal("0.1234"), "0.1234"),
        (Decimal("0.00000025"), "0.00000025"),
    ],
)
def test_money(amount: Decimal | None, shown: str) -> None:
    assert money(amount) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, "–"),
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.0k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (-42_480_677, "-42.5M"),
        (114_729_102, "115M"),
        (999_500_000, "1.00G"),
        (12_345_678_901_234, "12,346G"),
    ],
)
def test_tokens(number: int | None, shown: str) -> None:
    assert tokens(number) == shown


@pytest.mark.parametrize("width", [20, 60, 90, 200])
def test_a_narrow_terminal_never_cuts_a_number(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(output, "console", lambda: Console(file=screen, width=width, force_terminal=False))
    row = {"name": "a-rather-long-name-of-a-customer", "cost": Decimal("123456789.25"), "calls": 9876543210}
    emit("table", [row], [*FIELDS, Field("calls", "calls", count, right=True)], {"calls": 111_222_333_444})
    shown = screen.getvalue()
    for figure in ("123,456,789.25", "9,876,543,210", "111,222,333,444"):
        assert figure in shown
    assert "a-rather-long" in shown


def test_a_percentage_is_100_only_when_it_is_all() -> None:
    assert [percent(part) for part in (None, 0, 0.5, 0.97806, 0.99999, 1)] == [
        "–",
        "0.0 %",
        "50.0 %",
        "97.8 %",
        "99.9 %",
        "100.0 %",
    ]


ROWS = [
    {"name": 'a "b"\n,c', "cost": Decimal("0.000000000001"), "tags": {"x": Decimal(1)}, "nothing": None, "ratio": float("nan")},
    {"name": "\x1b[2J\x1b]0;owned\x07", "cost": Decimal("1E+3"), "tags": {}, "nothing": None, "ratio": 0.5},
]
FIELDS = [Field("name", "name", str), Field("cost", "cost", money, right=True)]


def test_json_is_one_array_with_exact_money(capsys: pytest.CaptureFixture[str]) -> None:
    emit("json", ROWS, FIELDS)
    emit("json", [], FIELDS)
    first, _, last = capsys.readouterr().out.rpartition("[]")
    assert last == "\n"
    rows = json.loads(first)
    assert rows[0] == {"name": 'a "b"\n,c', "cost": "0.000000000001", "tags": {"x": "1"}, "nothing": None, "ratio": None}
    assert rows[1]["cost"] == "1000"


def test_csv_comes_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    emit("csv", ROWS, FIELDS)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == {"name": 'a "b"\n,c', "cost": "0.000000000001", "tags": '{"x": "1"}', "nothing": "", "ratio": ""}
    emit("csv", [], FIELDS)
    assert capsys.readouterr().out == "name,cost\n"


def test_no_name_reaches_the_terminal_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    emit("table", [*ROWS, {"name": "[bold]x[/bold] [link=http://evil]y", "cost": None}], FIELDS, {"cost": Decimal(7)})
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\\x1b[2J" in shown
    assert "[bold]x[/bold] [link=http://evil]y" in shown
    assert "unpriced" in shown
    assert "7.00" in shown


# --- the question ---


def test_only_known_dimensions_reach_the_sql() -> None:
    for name in ("customer; DROP TABLE ledger", "cost_usd", "customer--", "", "1"):
        with pytest.raises(UnknownDimension):
            spend([name], 0, HOUR)
        with pytest.raises(UnknownDimension):
            spend([], 0, HOUR, where={name: "x"})


def test_values_are_bound_and_never_written_into_the_sql() -> None:
    query = spend(["tag:it's`x", "customer"], 0, 1, where={"customer": "'; DROP", "tag:plan": "p'"}, limit=5)
    assert "DROP" not in query.text
    assert "p'" not in query.text
    assert query.params == {
        "limit": 5,
        "offset": 0,
        "by_0": "it's`x",
        "since": 0,
        "until": 1,
        "where_0": "'; DROP",
        "where_tag_1": "plan",
        "where_1": "p'",
    }


def test_whole_hours_are_asked_in_hours() -> None:
    # The ledger's projection is kept by hour: a question in other terms can't be answered from it.
    assert "toDate(started_at) >= " in spend([], 0, 48 * HOUR).text
    assert "toDate" not in spend([], 0, 5 * HOUR).text
    assert set(DIMENSIONS) >= {"customer", "feature", "agent", "team", "user", "session", "model", "day", "tenant"}
