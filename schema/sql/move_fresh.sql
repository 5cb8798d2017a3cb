-- Of the piece in `moving`, what doesn't stand yet. Rows that are alike are told apart by their number.
CREATE TEMPORARY TABLE fresh ENGINE = Memory AS
SELECT {{named}}
FROM
(
    SELECT *, {{row}} AS _row, row_number() OVER (PARTITION BY _row) AS _copy
    FROM moving
) AS m
LEFT JOIN standing AS s ON m._row = s._row
WHERE {{newer}}
