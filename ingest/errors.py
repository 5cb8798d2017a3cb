"""What can go wrong with the ledger's store. The name says what the caller does next."""


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
