-- How a run that was found entering ended, if the turn is still ours ({{ours}}): made, or dropped, with the entries that are still to be taken
-- away. {{…}} is filled by attribution/corrections.py.
INSERT INTO corrections
SELECT * REPLACE ({{state}} AS state, {{entries}} AS entries)
FROM corrections FINAL
WHERE id = {{id}} AND {{ours}}
