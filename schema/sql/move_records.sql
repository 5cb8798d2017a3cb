-- Ledgers that were moved here, the latest first.
SELECT source, began_at, at, toString(state), rows, entries, calls, cost_usd, hash FROM moves FINAL ORDER BY began_at DESC
