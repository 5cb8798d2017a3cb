from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    health: str = "/health"


def profile(kind: str) -> Profile:
    return Profile()
