-- The names that a connection's database has.
SELECT currentDatabase() AS database, (SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase()) AS tables
