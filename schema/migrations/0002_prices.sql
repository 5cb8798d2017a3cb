-- What calls of a model cost, by how spans name it, from valid_from until the next row of the same names. Rows are written at first
-- sight, the whole history of a price at once, and belong to one version of the price book (`book`): only the present book's are
-- used, older ones explain the price ids that stand in the ledger. A row without price ids ends a price.
--
-- A row holds a price for each span of the day (until day_starts[1], from day_starts[1], …; seconds after midnight UTC) and, within
-- it, each tier of input size (up to above[1] tokens, more than above[1], …). For each, in this order, there is one price id and ten
-- rates: input, cache read, cache write 5 min, cache write 1 h, output, reasoning, audio input, audio output and image input in USD
-- a token, and USD a call.
CREATE TABLE IF NOT EXISTS prices
(
    book LowCardinality(String),
    provider LowCardinality(String),
    request_model LowCardinality(String),
    response_model LowCardinality(String),
    service_tier LowCardinality(String),
    valid_from DateTime64(9, 'UTC'),
    price_ids Array(String),
    rates Array(Decimal(38, 24)),
    above Array(UInt64),
    day_starts Array(UInt32),
    price_key LowCardinality(String),
    source LowCardinality(String),
    url LowCardinality(String),
    note String
)
ENGINE = ReplacingMergeTree
ORDER BY (book, provider, request_model, response_model, service_tier, valid_from)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
