"""As whom the server remembers who changed or silenced something."""

import getpass


def me() -> str:
    """The name of this shell's user, or '' where it has none."""
    try:
        return getpass.getuser()[:100]
    except (KeyError, OSError, ImportError):
        return ""
