-- One arm of the question that a tick asks: what was spent in one stretch of time, by the dimensions of the budgets that look at it.
-- With whole days and no other dimension than customer, feature, agent, team and tenant the ledger's projection `spend` answers.
SELECT
    /*arm*/ AS arm,
    /*step*/ AS step,
    CAST([/*values*/], 'Array(String)') AS value,
    /*figures*/
FROM ledger
WHERE /*conditions*/
/*groups*/
