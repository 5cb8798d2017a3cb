-- How many calls of a feature there are whose tokens are known, and how many whose are not. Answers from a cache of the application, and calls
-- that nothing was generated for, reached no engine and are neither.
SELECT
    countIf(/*known*/) AS counted,
    countIf(NOT /*known*/) AS unknown
FROM charges
WHERE entry = 'call' AND /*conditions*/ AND /*standing*/
