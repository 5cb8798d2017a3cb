"""The ledger as files of the FinOps Open Cost and Usage Specification (FOCUS). What stands where: docs/focus.md."""
