-- Messages that no broker takes now, in the order in which they were taken; and those that no broker takes at all, until the next start.
-- value: compressed by lz4, with a checksum of its content. headers: a JSON array of [name, text].
CREATE TABLE IF NOT EXISTS waiting (number INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused (number INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, headers TEXT NOT NULL, value BLOB NOT NULL);
