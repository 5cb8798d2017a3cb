"""docs/api.md says what is so."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from otlp import request, span
from server import Server

from tallystick.api_docs import with_routes
from tallystick.ingest.keys import Role

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    described: dict[str, Any] = server.http.get("/openapi.json").json()
    return described


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    made = server.key("api-docs")
    who = {"tallystick.customer": "acme", "deployment.environment.name": "prod"}
    server.post_all([request(span("api-docs", attributes=who))], made)
    return made


def test_the_table_of_routes_is_current(document: dict[str, Any]) -> None:
    assert with_routes(PAGE, document) == PAGE, "run `make docs`"


def test_questions_are_answered(server: Server, key: str) -> None:
    asked = re.findall(r"GET (/v1/\S+\?[^\s`]+)", PAGE) + [
        shlex.split(line)[-1].removeprefix("$TALLYSTICK_URL") for line in re.findall(r"^curl .+$", PAGE, re.MULTILINE)
    ]
    assert len(asked) == 3
    for question in asked:
        assert server.http.get(question, headers={"authorization": f"Bearer {key}"}).status_code == 200, question


def test_the_program_runs(server: Server, key: str) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"url": server.url, "key": key}
    exec(program, names)
    assert names["dearest"].customer == "acme"


def test_the_error_is_what_is_answered(server: Server, key: str) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    answer = server.http.get("/v1/spend?by=custmer", headers={"authorization": f"Bearer {key}"})
    assert answer.json() == json.loads(shown)


def test_every_role_is_described() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes|no) \| ", PAGE, re.MULTILINE))
    assert {name: mark == "yes" for name, mark in told.items()} == {str(role): role.sends for role in Role}


def test_every_operation_says_what_it_is(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    assert document["info"]["version"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert set(operation["tags"]) <= tags, (method, path)
            for status, response in operation["responses"].items():
                assert response["description"], (method, path)
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (method, path, status)
