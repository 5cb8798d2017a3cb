-- Rows and bytes of the ledger's tables on this host. {{database}} holds them.
SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts WHERE active AND database = '{{database}}' GROUP BY table
