"""docs/focus.md says what is so."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import focus_ledger as data
import pytest

from tallystick.attribution.focus.columns import VERSIONS, columns
from tallystick.attribution.focus.question import SETTINGS, Question, stream
from tallystick.attribution.moments import nanoseconds
from tallystick.focus_docs import with_columns

if TYPE_CHECKING:
    from tallystick.ingest.store import Store

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "focus.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
TENANT = "focus-docs"


def test_the_table_of_columns_is_up_to_date() -> None:
    assert with_columns(PAGE) == PAGE, "run `make docs`"
    for version in VERSIONS:
        for column in columns(version):
            (line,) = re.findall(rf"^\| {column.name} \|.*$", PAGE, re.MULTILINE)
            assert version in line
            assert column.type in line


def test_versions_differ_as_the_specification_says() -> None:
    old, new = ({column.name for column in columns(version)} for version in ("1.2", "1.4"))
    assert old - new == {"ProviderName", "PublisherName"}
    assert new - old == {
        "AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName", "AllocatedTags", "HostProviderName", "ServiceProviderName",
    }  # fmt: skip


@pytest.fixture(scope="module")
def answers(chdb_store: "Store", tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What the page's queries answer about a file with every kind of entry. ClickHouse reads files as `file('…')`."""
    path = tmp_path_factory.mktemp("focus") / "october.parquet"
    client = chdb_store.client()
    data.enter_prices(client)
    data.enter(client, TENANT, data.EVERY_KIND)
    day = data.OCTOBER_3.replace(hour=0, minute=0)
    with chdb_store.reader(TENANT, SETTINGS) as reader:
        question = Question("1.2", nanoseconds(day), nanoseconds(day.replace(day=4)))
        path.write_bytes(b"".join(stream(reader, question, "parquet")))
    data.forget(client, TENANT)
    script = "import chdb, sys\nfor query in sys.argv[1:]: print(chdb.query(query, 'JSON').bytes().decode().replace('\\n', ' '))"
    queries = [query.replace("'focus/*.parquet'", f"file('{path}')") for query in QUERIES]
    done = subprocess.run([sys.executable, "-c", script, *queries], capture_output=True, text=True, check=True)
    return [json.loads(line)["data"] for line in done.stdout.splitlines()]


def test_its_queries_answer(answers: list[list[dict[str, Any]]]) -> None:
    by_meter, saved, corrections = answers
    assert {row["SkuMeter"] for row in by_meter} >= {"Input Tokens", "Output Tokens", "Image Input Tokens"}
    assert {row["x_Model"] for row in saved} >= {"gpt-test", "gpt-5"}
    assert {row["x_Entry"] for row in corrections} == {"void", "reprice", "trueup", "allocation"}


def test_the_validators_result_is_what_the_page_says_of_it() -> None:
    result = (DOCS / "focus-validation.txt").read_text(encoding="utf-8")
    assert re.findall(r"^FAIL (\S+)", result, re.MULTILINE) == ["InvoiceId-C-005-C"]
    assert re.search(r"^PASS InvoiceId-C-003-C", result, re.MULTILINE)
    checked = set(re.findall(r"^PASS (\w+)-C-001-M", result, re.MULTILINE))
    assert checked >= {column.name for column in columns("1.2") if column.level == "mandatory"}
