"""What can go wrong with the ledger's store. The name says what the caller does next."""


class StoreError(Exception):
    """Nothing was acknowledged that isn't stored. hint: what to do; '' where there is nothing to say."""

    hint: str = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        if hint:
            self.hint = hint


class DataDirectoryInUse(StoreError):
    """Another process holds the data directory: talk to it, or name another directory."""

    hint = "a command or server works in it: wait for it, or name the server with --url"


class StoreUnavailable(StoreError):
    """The store can't take anything now (disk full, unreadable, away, closing): try again later."""


class StoreMisconfigured(StoreError):
    """The store won't take anything until somebody does what `hint` says."""


class PoisonBatch(StoreError):
    """The engine can't read what was posted, though its form was checked: find the payload and reject it."""


class NewerData(StoreError):
    """The data was written by a newer version: upgrade."""


class KeysDamaged(StoreError):
    """The file of keys makes no sense, and guessing would let in or shut out somebody."""

    hint = "restore it from a backup; or delete it, which revokes all keys, and make new ones: tallystick keys create"
