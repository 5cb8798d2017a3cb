-- What clients are told of the engine, and its errors by name.
SELECT
    version() AS version,
    revision() AS revision,
    timezone() AS timezone,
    (SELECT groupArray((errorCodeToName(number), number)) FROM numbers(1200) WHERE errorCodeToName(number) != '') AS errors
