-- The claim whose turn it is: the first that stands. Read by one thread, the rows of a Memory table come in the order in which they were appended.
SELECT claim
FROM (SELECT claim, what, rowNumberInAllBlocks() AS place FROM turns SETTINGS max_threads = 1)
GROUP BY claim
HAVING countIf(what NOT IN ('claimed', 'alive')) = 0
ORDER BY min(place)
LIMIT 1
