"""API keys: shown once, kept as hashes, shared by processes."""

import multiprocessing
import stat
from pathlib import Path

import pytest

from tallystick.ingest.keys import BadTenant, KeyStore


def test_a_key_finds_its_tenant_until_it_is_revoked(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path)
    key = keys.create("acme")
    found = keys.find(key)
    assert found is not None
    assert (found.tenant, found.operator, found.revoked_at) == ("acme", False, None)
    assert keys.revoke(found.id)
    assert keys.find(key) is None
    assert not keys.revoke(found.id), "a key is revoked once"
    assert [info.revoked_at is not None for info in keys.all()] == [True]


def test_nothing_on_disk_opens_the_door(tmp_path: Path) -> None:
    key = KeyStore(tmp_path).create("acme", operator=True)
    kept = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert key not in kept
    assert key.rsplit("_", 1)[1] not in kept
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", ["", "ts_", "ts_00000000_x", "Bearer"])
def test_other_words_find_nobody(tmp_path: Path, wrong: str) -> None:
    keys = KeyStore(tmp_path)
    assert keys.find(wrong) is None, "not even without keys"
    key = keys.create("acme")
    assert keys.find(wrong) is None
    assert keys.find(key[:-1]) is None
    assert keys.find(key.upper()) is None


@pytest.mark.parametrize("tenant", ["", " ", "a b", "../x", "-x", "a" * 65, "ä", "x\n", "a'b"])
def test_a_tenant_is_a_plain_name(tmp_path: Path, tenant: str) -> None:
    with pytest.raises(BadTenant):
        KeyStore(tmp_path).create(tenant)


def test_changes_of_another_store_are_noticed(tmp_path: Path) -> None:
    running, command = KeyStore(tmp_path), KeyStore(tmp_path)
    first = command.create("acme")
    assert running.find(first)
    second = command.create("globex")
    found = running.find(second)
    assert found is not None
    assert found.tenant == "globex"
    command.revoke(found.id)
    assert running.find(second) is None
    assert running.find(first)


def _create(data: str, tenant: str) -> None:
    for _ in range(20):
        KeyStore(Path(data)).create(tenant)


def test_processes_that_make_keys_at_once_lose_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=_create, args=(str(tmp_path), f"tenant-{number}")) for number in range(3)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(60)
        assert maker.exitcode == 0
    kept = KeyStore(tmp_path).all()
    assert len({info.id for info in kept}) == 60
    assert {info.tenant for info in kept} == {"tenant-0", "tenant-1", "tenant-2"}
