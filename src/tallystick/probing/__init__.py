"""Probes put together with the ledger, the price book and the traces. Guide: docs/probes.md."""
