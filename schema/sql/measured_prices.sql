-- All measured prices, in the order in which a later one replaces an earlier one.
SELECT provider, model, valid_from, entered_at, run, input, cache_read, output, definition, entered_by
FROM measured_prices
ORDER BY valid_from, entered_at, provider, model, run
