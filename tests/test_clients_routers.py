"""LiteLLM and LlamaIndex over openai 2: a framework's span and its client's are one call."""

import pytest
from clients.page import disagreements
from server import Server


@pytest.mark.parametrize("name", ["litellm", "litellm-underneath", "llama-index", "llama-index-beside"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    assert not disagreements(name, server)
