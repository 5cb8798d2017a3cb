"""Budgets and alerts: what is spent is compared with what was meant, and somebody hears of it once.

config        what to watch, and whom to tell             decide, rules    what is to be said now: pure
spend         what the ledger holds of all budgets        compose, text    how it is said
tick          one evaluation, from the first to the last  ledger, outbox   that it is said once, and arrives
scheduler     when                                        channels         where
"""
