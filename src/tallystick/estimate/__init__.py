"""What traffic that doesn't exist yet would cost. Guide: docs/estimate.md."""
