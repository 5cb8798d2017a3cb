-- What tokens of own engines cost, as probes measured it: appended to only. USD for a million tokens. Of a provider's model that price holds whose valid_from is
-- the latest, of one valid_from the last that was entered. definition: how it came about, in words; run: the probe's.
CREATE TABLE IF NOT EXISTS measured_prices
(
    provider LowCardinality(String),
    model String,
    valid_from DateTime64(9, 'UTC'),
    entered_at DateTime64(6, 'UTC'),
    run String,
    input Decimal(38, 18),
    cache_read Decimal(38, 18),
    output Decimal(38, 18),
    definition String,
    entered_by String
)
ENGINE = MergeTree
ORDER BY (provider, model, valid_from, entered_at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
