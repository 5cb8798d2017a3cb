-- How many statements that enter something into the ledger are running, whoever's, also on behalf of other servers. What a run of corrections reads into
-- a table of its own (attribution/runs.py) may take minutes, and enters nothing.
SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND position(query, 'ledger') > 0 AND position(query, 'INSERT INTO correction_') = 0
