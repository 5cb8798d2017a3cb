"""openai, the current major and the one before it: every scenario, bare and metered, against a real server."""

import pytest
from clients.matrix import result, runs
from clients.page import PAGE, section
from server import Server


@pytest.mark.parametrize("name", ["openai-3", "openai-2"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    found = result(runs()[name], server)
    assert not found.unexpected()
    assert section(found) in PAGE.read_text(encoding="utf-8"), "the page says something else: make clients"
