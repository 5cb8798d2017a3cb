"""anthropic, the current major and the one before it, which emit spans themselves."""

import pytest
from clients.page import disagreements
from server import Server


@pytest.mark.parametrize("name", ["anthropic-2", "anthropic-1", "anthropic-2-beside"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    assert not disagreements(name, server)
