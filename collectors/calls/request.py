"""One model call as its client library is about to send it, and those who are asked before it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

UsageSource = Literal["provider", "estimated", "partial", "missing", "none"]
"""Told by the provider, counted here, of an answer that was cut short, unknown, or of a call that was refused."""


@dataclass(slots=True)
class Request:
    """One call, once, however often the library sends it again."""

    library: str
    """Distribution: `openai`, `anthropic`, `google-genai`, `boto3`, …"""
    operation: str
    """`chat`, `responses`, `embeddings`, `text_completion`, `messages`, `generate_content`, `converse`, …"""
    model: str
    body: dict[str, Any]
    """The JSON body, or the keyword arguments. A gate that replaces `model` must set `body["model"]` too."""
    streamed: bool
    host: str
    """Of the base URL, empty where unknown."""
    scope: Mapping[str, str]
    """`scope.attribution()` of the call: attribute name → value."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets, as in the ledger; None is unknown."""

    input_tokens: int | None
    """Neither read from the provider's cache nor written to it."""
    cache_read_tokens: int | None
    cache_write_5m_tokens: int | None
    """With those whose lifetime isn't told."""
    cache_write_1h_tokens: int | None
    output_tokens: int | None
    """With reasoning."""
    reasoning_tokens: int | None
    source: UsageSource


NOTHING: Final = Usage(0, 0, 0, 0, 0, 0, "none")
"""Of a call that the provider, or a gate, refused."""


class Ticket(Protocol):
    """What a gate gives to a call that it lets pass."""

    def settle(self, usage: Usage | None, error: BaseException | None) -> None:
        """Called once, at the end of the call or of its stream, also where that is dropped unread. None is unknown."""


class Gate(Protocol):
    """Asked before a call is sent."""

    def admit(self, request: Request) -> Ticket | None:
        """Raises a `Refusal` to stop the call. Any other exception is reported, and the call goes on."""


class Refusal(Exception):
    """Base of what a gate raises: it reaches the application in place of an answer."""


class Answered(Refusal):
    """Raised by a gate that has an answer itself: `result` is returned to the application (awaited first, if it can be)."""

    def __init__(self, result: Any) -> None:
        super().__init__("answered without a call")
        self.result = result


def http_status(error: BaseException | None) -> int | None:
    """What the provider answered, where an exception of a client library tells it: as `status_code`, google-genai as `code`, botocore in
    its `response`.
    """
    response = getattr(error, "response", None)
    told = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    for status in (getattr(error, "status_code", None), getattr(error, "code", None), told):
        if isinstance(status, int) and 100 <= status <= 599 and isinstance(error, Exception):
            return status
    return None


gates: Final[list[Gate]] = []
"""Asked in order for every call of every observed client."""
