"""Engine benchmarks. Nothing here yet: the ledger comes first."""
