-- A statement without its comments, on one line; nothing of it runs.
SELECT formatQuerySingleLine({query:String}) AS text
