-- What stands of a piece already: of rows that are entries how often each is there, of rows that replace each other which is the last.
CREATE TEMPORARY TABLE standing ENGINE = Memory AS
SELECT {{row}} AS _row, {{measure}} AS _standing
FROM {{source}}
WHERE {{condition}}
GROUP BY _row
