"""A file of keys that makes no sense lets nobody in and shuts nobody out, and everything that reads it says so."""

import json
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from otlp import request, span
from server import CLEAN, COMMAND, Server

from tallystick.ingest.errors import KeysDamaged
from tallystick.ingest.keys import KeyStore


def set_field(name: str, value: Any) -> Callable[[str], str]:
    def changed(text: str) -> str:
        rows = json.loads(text)
        rows[1][name] = value
        return json.dumps(rows)

    return changed


def without(name: str) -> Callable[[str], str]:
    return lambda text: json.dumps([{key: value for key, value in row.items() if key != name} for row in json.loads(text)])


def as_it_was(operator: Any) -> Callable[[str], str]:
    def changed(text: str) -> str:
        rows = json.loads(without("role")(text))
        return json.dumps([{**row, "operator": operator} for row in rows])

    return changed


DAMAGE: list[tuple[Callable[[str], str], str]] = [
    (lambda text: "", "it is empty"),
    (lambda text: " \n", "it is empty"),
    (lambda text: text[:-1], "it isn't JSON; was its end cut off?"),
    (lambda text: text[: len(text) // 2], "it isn't JSON; was its end cut off?"),
    (lambda text: "\0" * len(text), "it isn't JSON; was its end cut off?"),
    (lambda text: text + text, "it isn't JSON; was its end cut off?"),
    (lambda text: "[" * 100_000, "it isn't JSON; was its end cut off?"),
    (lambda text: text.replace('"acme"', '"\udcff"'), "it isn't JSON; was its end cut off?"),
    (lambda text: "null", "it holds no list of keys"),
    (lambda text: json.dumps({"keys": json.loads(text)}), "it holds no list of keys"),
    (lambda text: "[7]", "in key 1 of 1, it is no object"),
    (set_field("hash", None), "in key 2 of 2, `hash` isn't 64 characters"),
    (set_field("hash", "secret"), "in key 2 of 2, `hash` isn't 64 characters"),
    (set_field("id", 7), "in key 2 of 2, `id` is no text"),
    (set_field("tenant", ["acme"]), "in key 2 of 2, `tenant` is no tenant's name"),
    (set_field("tenant", ""), "in key 2 of 2, `tenant` is no tenant's name"),
    (set_field("role", "admin"), "in key 2 of 2, `role` is none of member, writer, reader, operator"),
    (set_field("role", None), "in key 2 of 2, `role` is none of member, writer, reader, operator"),
    (set_field("role", ["operator"]), "in key 2 of 2, `role` is none of member, writer, reader, operator"),
    (set_field("created_at", "2026-01-01"), "in key 2 of 2, `created_at` is no time with a zone"),
    (set_field("created_at", 0), "in key 2 of 2, `created_at` is no time with a zone"),
    # Taken as a time, this would revoke the key; taken as none, put it in force again.
    (set_field("revoked_at", False), "in key 2 of 2, `revoked_at` is neither null nor a time with a zone"),
    (without("role"), "in key 1 of 2, `role` is none of member, writer, reader, operator"),
    # As keys were before there were roles. Taken as truth, this would let a tenant see everybody's calls.
    (as_it_was("false"), "in key 1 of 2, `operator` is neither true nor false"),
    (as_it_was(1), "in key 1 of 2, `operator` is neither true nor false"),
    (without("tenant"), "in key 1 of 2, `tenant` is no tenant's name"),
]


def damage(data: Path, how: Callable[[str], str]) -> Path:
    """The file in place of the old one, as an editor or a restored backup leaves it."""
    file = data / "keys.json"
    new = data / "new"
    new.write_text(how(file.read_text(errors="surrogateescape")), errors="surrogateescape")
    new.replace(file)
    return file


@pytest.mark.parametrize(("how", "said"), DAMAGE)
def test_what_is_wrong_is_said_and_nothing_is_written(tmp_path: Path, how: Callable[[str], str], said: str) -> None:
    keys = KeyStore(tmp_path)
    keys.create("acme")
    keys.create("globex")
    file = damage(tmp_path, how)
    before = file.read_bytes()
    for use in (keys.load, keys.all, lambda: keys.create("third"), lambda: keys.revoke("nobody")):
        with pytest.raises(KeysDamaged) as told:
            use()
        assert str(told.value) == f"{file} is damaged: {said}"
    assert file.read_bytes() == before


@pytest.mark.parametrize(("how", "said"), DAMAGE)
def test_while_it_is_damaged_the_keys_known_before_hold(
    tmp_path: Path, how: Callable[[str], str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyStore(tmp_path)
    good, revoked = keys.create("acme"), keys.create("acme")
    found = keys.find(revoked)
    assert found is not None
    keys.revoke(found.id)
    assert keys.find(revoked) is None
    whole = (tmp_path / "keys.json").read_text()
    damage(tmp_path, how)
    for _ in range(3):
        assert keys.find(good) is not None
        assert keys.find(revoked) is None
        assert keys.find("ts_nobody") is None
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    assert said in caplog.text
    assert good.split("_", 2)[2] not in caplog.text
    damage(tmp_path, lambda _: whole)
    third = keys.create("acme")
    assert keys.find(third) is not None, "once it is mended, changes are noticed again"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_part_of_the_file_is_taken_for_the_whole(tmp_path: Path, data: st.DataObject) -> None:
    keys = KeyStore(tmp_path)
    if not keys.all():
        keys.create("acme")
        keys.create("globex")
        (tmp_path / "whole").write_bytes((tmp_path / "keys.json").read_bytes())
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "keys.json").write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    try:
        with pytest.raises(KeysDamaged):
            keys.load()
    finally:
        (tmp_path / "keys.json").write_bytes(whole)


def test_a_deleted_file_revokes_all_keys_and_that_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyStore(tmp_path)
    key = keys.create("acme")
    assert keys.find(key) is not None
    (tmp_path / "keys.json").unlink()
    assert [keys.find(key), keys.find(key)] == [None, None]
    assert caplog.messages == [f"{tmp_path / 'keys.json'} is gone: no key is in force any more"]


def test_a_file_that_cant_be_read_changes_nothing_either(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyStore(tmp_path)
    key = keys.create("acme")
    assert keys.find(key) is not None
    # Nobody can read a directory as a file, root included.
    (tmp_path / "keys.json").rename(tmp_path / "away")
    (tmp_path / "keys.json").mkdir()
    assert keys.find(key) is not None
    assert "Is a directory" in caplog.text
    with pytest.raises(IsADirectoryError):
        keys.load()


# --- who says so ---


def tallystick(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=120, env=CLEAN, check=False)


def test_the_server_refuses_to_start_and_commands_say_why(tmp_path: Path) -> None:
    data = tmp_path / "data"
    KeyStore(data).create("acme")
    file = damage(data, lambda text: text[:-20])
    here = ("--data", str(data))
    for command in (
        ("up", *here, "--port", "0", "--grpc-port", "0"),
        ("keys", "list", *here),
        ("keys", "create", "--tenant", "acme", *here),
    ):
        result = tallystick(*command)
        assert (result.returncode, result.stdout) == (1, ""), result.stderr
        assert (
            f"error: {file} is damaged: it isn't JSON; was its end cut off?\n  restore it from a backup; or delete it"
            in result.stderr
        )
        assert "Traceback" not in result.stderr
    doctor = tallystick("doctor", *here, "--json")
    assert doctor.returncode == 1
    (check,) = [check for check in json.loads(doctor.stdout) if check["what"] == "keys"]
    assert (check["state"], check["found"]) == ("fail", f"{file} is damaged: it isn't JSON; was its end cut off?")
    assert "restore it" in check["advice"]
    os.truncate(file, 0)
    assert f"{file} is damaged: it is empty" in tallystick("keys", "list", *here).stderr
    file.unlink()
    assert tallystick("keys", "list", *here).returncode == 0


def test_a_running_server_keeps_its_doors_as_they_were(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        key = server.key("acme")
        assert server.post(request(span("before")), key).status_code == 200
        damage(server.data, set_field_of_first("role", "yes"))
        assert server.post(request(span("after")), key).status_code == 200
        assert server.post(request(span("nobody")), "ts_nobody").status_code == 401
        assert server.sql("SELECT sum(calls) AS n FROM charges", key) == [{"n": 2}]
        assert server.log().count("is damaged: in key 1 of 1, `role` is none of member, writer, reader, operator") == 1
        doctor = tallystick("doctor", "--data", str(server.data), "--json")
        assert [check["state"] for check in json.loads(doctor.stdout) if check["what"] == "keys"] == ["fail"]


def set_field_of_first(name: str, value: Any) -> Callable[[str], str]:
    return lambda text: json.dumps([{**row, name: value} for row in json.loads(text)])


def test_what_is_well_is_said_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = KeyStore(tmp_path)
    keys.load()
    keys.create("acme")
    revoked = keys.find(keys.create("globex"))
    assert revoked is not None
    keys.revoke(revoked.id)
    doctor = tallystick("doctor", "--data", str(tmp_path), "--json")
    assert [check["found"] for check in json.loads(doctor.stdout) if check["what"] == "keys"] == ["1 in force"]
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
