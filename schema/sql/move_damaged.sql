-- Parts of tables that the engine set aside at its start because it couldn't read them.
SELECT table, name, reason FROM system.detached_parts WHERE database = currentDatabase() AND startsWith(reason, 'broken')
