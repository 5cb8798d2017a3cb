"""What can go wrong with the ledger's store. The name says what the caller does next."""

from typing import Final


class StoreError(Exception):
    """Nothing was acknowledged that isn't stored."""


class DataDirectoryInUse(StoreError):
    """Another process holds the data directory: talk to it, or name another directory."""


class StoreUnavailable(StoreError):
    """The store can't take anything now (disk full, unreadable, closing): try again later."""


class PoisonBatch(StoreError):
    """The engine can't read what was posted, though its form was checked: find the payload and reject it."""


class NewerData(StoreError):
    """The data directory was written by a newer version: upgrade."""


class KeysDamaged(StoreError):
    """The file of keys makes no sense, and guessing would let in or shut out somebody. `hint` says what to do."""

    hint: Final = "restore it from a backup; or delete it, which revokes all keys, and make new ones: tallystick keys create"
