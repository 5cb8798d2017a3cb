"""Invoices of providers: read, compared with the ledger, explained, trued up. How: docs/reconciliation.md."""
