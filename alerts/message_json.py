"""A message as JSON, as it waits in the outbox: every digit, microsecond and character comes back."""

from pydantic import TypeAdapter

from tallystick.alerts.model import Message

_MESSAGE = TypeAdapter(Message)


def to_json(message: Message) -> str:
    return _MESSAGE.dump_json(message).decode()


def from_json(text: str) -> Message:
    """Raises ValueError where it isn't a message. Fields of a newer version are left out."""
    return _MESSAGE.validate_json(text)
