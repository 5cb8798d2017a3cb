-- Calls of two tenants in the same hours, so that they share parts and granules. All that belongs to globex says so.
INSERT INTO ledger
(
    entry, calls, tenant, customer, feature, agent, team, user, session, service, environment, tags, provider, request_model,
    response_model, operation, service_tier, streamed, status, error_type, input_tokens, cache_read_tokens, output_tokens,
    reasoning_tokens, usage_source, started_at, duration_ns, ttft_ns, ttft_kind, price_id, cost_usd, reported_cost_usd, trace_id,
    span_id, response_id
)
WITH if(number % 2 = 0, 'acme', 'globex') AS owner, intDiv(number, 2) AS n
SELECT
    if(n = 119, 'void', 'call'),
    if(n = 119, -1, 1),
    owner,
    if(owner = 'acme', ['initech', 'umbrella', 'hooli'][n % 3 + 1], 'globex-customer'),
    if(owner = 'acme', ['chat', 'search'][n % 2 + 1], 'globex-feature'),
    if(owner = 'acme', ['planner', 'writer'][n % 2 + 1], 'globex-agent'),
    if(owner = 'acme', 'core', 'globex-team'),
    concat(if(owner = 'acme', 'u', 'globex-u'), toString(n % 10)),
    concat(if(owner = 'acme', 's', 'globex-s'), toString(n % 20)),
    'api',
    'prod',
    map('plan', if(owner = 'acme', ['free', 'paid'][n % 2 + 1], 'globex-plan'), 'note', if(owner = 'acme', '{"seats": 5}', 'globex')),
    ['openai', 'anthropic'][n % 2 + 1],
    ['gpt-5', 'claude-opus-4-5'][n % 2 + 1],
    ['gpt-5-2025-08-07', 'claude-opus-4-5'][n % 2 + 1],
    'chat',
    '',
    n % 2,
    if(n % 12 = 11, 'error', 'ok'),
    if(n % 12 = 11, 'rate_limit', ''),
    1000 + n,
    if(n % 2 = 0, 500, NULL),
    100 + n,
    if(n % 2 = 0, 10, NULL),
    if(n % 12 = 11, 'none', 'provider'),
    toDateTime64('2026-10-01 00:00:00.000000001', 9, 'UTC') + toIntervalHour(n * 6),
    2000000000 + n * 1000000,
    if(n % 2 = 1, 200000000 + n * 1000000, NULL),
    if(n % 2 = 1, 'content', ''),
    if(n % 6 = 5, '', 'p1'),
    if(n % 6 = 5, NULL, if(owner = 'acme', toDecimal64('0.001000000001', 12), toDecimal64('7', 12))),
    NULL,
    toFixedString(unhex(leftPad(hex(number), 32, '0')), 16),
    toFixedString(unhex(leftPad(hex(number), 16, '0')), 8),
    concat('resp_', if(owner = 'acme', '', 'globex_'), toString(n))
FROM numbers(240)
