-- Where a partition is cut: the key of every {{rows}}th row in the order in which the rows lie, each part of it as a literal.
SELECT {{literals}}
FROM
(
    SELECT DISTINCT {{key}}
    FROM (SELECT {{named}}, row_number() OVER (ORDER BY {{key}}) AS _number FROM {{source}} WHERE {{condition}})
    WHERE _number % {{rows}} = 0
)
ORDER BY {{key}}
