-- How many statements that enter something into the ledger are running, whoever's, also on behalf of other servers.
SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND position(query, 'ledger') > 0
