-- How many entries a tenant has and when they were made. What is deleted for its age changes both as well as what is added.
SELECT concat(toString(count()), ' ', toString(sum(toUnixTimestamp64Milli(entered_at))), ' ', toString(max(entered_at)))
FROM ledger
WHERE tenant = {tenant:String}
