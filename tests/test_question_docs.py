"""docs/questions.md and docs/outcomes.md say what is so."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from server import CLEAN

from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.ingest.outcomes import MOST, ReportedOutcome, read_outcomes
from tallystick.ingest.store import Store

DOCS = Path(__file__).parent.parent / "docs"
OUTCOMES = (DOCS / "outcomes.md").read_text(encoding="utf-8")


def test_questions_are_as_they_are_told_and_answer_as_shown(tmp_path: Path) -> None:
    page = tmp_path / "questions.md"
    subprocess.run([sys.executable, "-m", "tallystick.question_docs", str(page)], check=True, env=CLEAN, timeout=300)
    assert (DOCS / "questions.md").read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run `make docs`"


def test_every_field_of_an_outcome_is_told() -> None:
    table = OUTCOMES.partition("| field |")[2].partition("\n\n")[0]
    told = re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:]))
    assert sorted(told) == sorted(ReportedOutcome.model_fields)
    assert f"{MOST:,}" in OUTCOMES


def test_the_report_that_is_shown_is_one() -> None:
    (command,) = re.findall(r"```\n(curl .*?)```", OUTCOMES, re.DOTALL)
    words = shlex.split(command)
    body = words[words.index("-d") + 1]
    assert read_outcomes(body.encode()).rejected == []
    assert len(json.loads(body)) == 2


@pytest.mark.parametrize("query", re.findall(r"```sql\n(.*?)```", OUTCOMES, re.DOTALL))
def test_queries_that_are_shown_run(chdb_store: Store, query: str) -> None:
    with chdb_store.reader("nobody", READER_SETTINGS) as reader:
        assert run(reader, query, None).rows == []
