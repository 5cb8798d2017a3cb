-- A run and how it stands, if the turn is still ours ({{ours}}). {{…}} is filled by attribution/runs.py.
INSERT INTO corrections (id, state, kind, key, at, author, reason, book, detail, entries, cost_usd, undoes)
SELECT
    {{id}}, {{state}}, {{kind}}, {{key}}, toDateTime64({{at}}, 3, 'UTC'), {{author}}, {{reason}}, {{book}}, {{detail}}, {{entries}},
    toDecimal128('{{cost}}', 12), {{undoes}}
WHERE {{ours}}
