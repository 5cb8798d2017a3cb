"""google-genai, boto3 for Bedrock, mistralai and cohere: every scenario, bare and metered, against a real server."""

import pytest
from clients.page import disagreements
from server import Server


@pytest.mark.parametrize("name", ["google-genai", "bedrock", "mistral", "cohere"])
def test_what_the_ledger_says_of_it(name: str, server: Server) -> None:
    assert not disagreements(name, server)
