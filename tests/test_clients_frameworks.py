"""LangChain, OpenAI Agents and pydantic-ai over openai 3: a framework's span and its client's are one call."""

import pytest
from clients.page import disagreements
from server import Server


@pytest.mark.parametrize("name", ["langchain", "langchain-underneath", "openai-agents", "pydantic-ai"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    assert not disagreements(name, server)
