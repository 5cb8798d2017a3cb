-- A table's partitions, as literals, and their rows.
SELECT formatRowNoNewline('Values', {{partition}}) AS literal, count()
FROM {{source}}
WHERE {{condition}}
GROUP BY literal
ORDER BY literal
