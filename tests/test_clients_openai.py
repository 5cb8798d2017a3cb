"""openai, the current major and the one before it: every scenario, bare and metered, against a real server."""

import pytest
from clients.page import disagreements
from server import Server


@pytest.mark.parametrize("name", ["openai-3", "openai-2", "openai-3-beside"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    assert not disagreements(name, server)
