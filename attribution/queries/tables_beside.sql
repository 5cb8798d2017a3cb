-- Tables of runs under way, or of runs that a killed process left. {{…}} is filled by attribution/runs.py.
SELECT name
FROM system.tables
WHERE database = currentDatabase() AND startsWith(name, {{beside}}) AND {{condition}}
