"""API keys: shown once, kept as a hash, changed by several processes."""

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from otlp import request, span
from server import Server

from tallystick.ingest.keys import BadTenant, KeyStore, Role


def test_a_key_finds_its_tenant(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    acme, ops = keys.create("acme"), keys.create("ops", Role.OPERATOR)
    assert acme != ops
    found = keys.find(acme)
    assert found is not None
    assert (found.tenant, found.operator, found.revoked_at) == ("acme", False, None)
    assert abs((datetime.now(UTC) - found.created_at).total_seconds()) < 60
    assert acme.startswith(f"ts_{found.id}_")
    operator = keys.find(ops)
    assert operator is not None
    assert operator.operator
    assert [key.tenant for key in keys.all()] == ["acme", "ops"]


@pytest.mark.parametrize("wrong", ["", "ts_", "ts_00000000_x", "acme", "\0", "ключ", "x" * 100_000])
def test_nobodys_key(tmp_path: Path, wrong: str) -> None:
    keys = KeyStore(tmp_path)
    assert keys.find(wrong) is None
    key = keys.create("acme")
    assert keys.find(wrong) is None
    assert keys.find(key[:-1]) is None
    assert keys.find(key + "x") is None


def test_the_directory_doesnt_tell_the_key(tmp_path: Path) -> None:
    key = KeyStore(tmp_path).create("acme")
    secret = key.split("_", 2)[2]
    for path in tmp_path.iterdir():
        assert secret not in path.read_text()
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0


def test_revoked(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    key, other = keys.create("acme"), keys.create("acme")
    found = keys.find(key)
    assert found is not None
    assert keys.revoke(found.id)
    assert keys.find(key) is None
    assert keys.find(other) is not None
    assert not keys.revoke(found.id)
    assert not keys.revoke("nobody")
    assert [info.revoked_at is None for info in keys.all()] == [False, True]


@pytest.mark.parametrize("name", ["a", "Acme-Corp_2.eu", "0", "x" * 64])
def test_names_of_tenants(tmp_path: Path, name: str) -> None:
    found = (keys := KeyStore(tmp_path)).find(keys.create(name))
    assert found is not None
    assert found.tenant == name


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", ".", "..", "a/b", "a\n", "a'", "tenant:x", "é", "x" * 65])
def test_bad_names_of_tenants(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadTenant):
        KeyStore(tmp_path).create(name)
    assert KeyStore(tmp_path).all() == []


def test_roles(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    for role in Role:
        found = keys.find(keys.create("acme", role))
        assert found is not None
        assert found.role is role
        assert found.operator == (role is Role.OPERATOR)
    assert [role for role in Role if role.sends] == [Role.MEMBER, Role.WRITER, Role.OPERATOR]
    assert [role for role in Role if role.asks] == [Role.MEMBER, Role.READER, Role.OPERATOR]


def test_keys_made_before_there_were_roles_keep_what_they_could(tmp_path: Path) -> None:
    member, ops = "ts_0000000a_one", "ts_0000000b_two"
    rows = [
        {
            "hash": hashlib.sha256(key.encode()).hexdigest(),
            "id": key[3:11],
            "tenant": "acme",
            "operator": key == ops,
            "created_at": "2026-05-01T10:00:00+00:00",
            "revoked_at": None,
        }
        for key in (member, ops)
    ]
    (tmp_path / "keys.json").write_text(json.dumps(rows))
    keys = KeyStore(tmp_path)
    new = keys.create("acme", Role.READER)
    assert [key.role for key in keys.all()] == [Role.MEMBER, Role.OPERATOR, Role.READER]
    assert keys.revoke("0000000a")
    assert keys.find(member) is None
    assert [(found.role, found.tenant) for key in (ops, new) if (found := keys.find(key))] == [
        (Role.OPERATOR, "acme"),
        (Role.READER, "acme"),
    ]


def test_an_older_version_takes_no_key_with_a_role_for_one_without(tmp_path: Path) -> None:
    KeyStore(tmp_path).create("acme", Role.READER)
    assert "operator" not in json.loads((tmp_path / "keys.json").read_text())[0]


def test_another_process_is_noticed_at_once(tmp_path: Path) -> None:
    here, there = KeyStore(tmp_path), KeyStore(tmp_path)
    assert here.find("ts_nobody") is None
    for _ in range(20):
        key = there.create("acme")
        found = here.find(key)
        assert found is not None
        there.revoke(found.id)
        assert here.find(key) is None


def test_processes_that_create_at_once_lose_none(tmp_path: Path) -> None:
    code = f"from pathlib import Path\nfrom tallystick.ingest.keys import KeyStore\nfor _ in range(20): print(KeyStore(Path({str(tmp_path)!r})).create('t'))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    made = [key for process in running for key in process.communicate()[0].split()]
    keys = KeyStore(tmp_path)
    assert len(set(made)) == 60
    assert all(keys.find(key) for key in made)
    assert len(json.loads((tmp_path / "keys.json").read_text())) == 60


def test_a_running_server_takes_new_keys_and_drops_revoked_ones(server: Server) -> None:
    key = server.key("keys-live")
    assert server.post(request(span("keys-live")), key).status_code == 200
    assert [row["tenant"] for row in server.sql("SELECT tenant FROM charges", key)] == ["keys-live"]
    keys = KeyStore(server.data)
    found = keys.find(key)
    assert found is not None
    keys.revoke(found.id)
    assert server.post(request(span("keys-dead")), key).status_code == 401


def test_a_tenant_sees_its_own_rows_only(server: Server) -> None:
    acme, globex, ops = server.key("keys-acme"), server.key("keys-globex"), server.key("keys-ops", operator=True)
    server.post_all([request(span("of-acme"))], acme)
    server.post_all([request(span("of-globex")), request(span("of-globex-2"))], globex)
    count = "SELECT tenant, count() AS n FROM charges WHERE startsWith(tenant, 'keys-') AND tenant != 'keys-live' GROUP BY tenant ORDER BY tenant"
    assert server.sql(count, acme) == [{"tenant": "keys-acme", "n": 1}]
    assert server.sql(count, globex) == [{"tenant": "keys-globex", "n": 2}]
    assert [row["tenant"] for row in server.sql(count, ops)] == ["keys-acme", "keys-globex"]


def test_the_same_span_of_two_tenants_is_two(server: Server) -> None:
    for tenant in ("keys-one", "keys-two"):
        key = server.key(tenant)
        server.post_all([request(span("of-both"))], key)
        assert server.sql("SELECT sum(calls) AS calls FROM charges", key) == [{"calls": 1}]
