"""Budgets and alerts. Nothing here yet: the ledger comes first."""
