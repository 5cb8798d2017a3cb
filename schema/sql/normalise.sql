-- Decoded OTLP to one row for each span that is, or claims to be, a model call. Text in double braces is generated from schema/dialects.
-- ClickHouse analyses this statement anew for every batch, at a cost that grows with its size. So each step refers only to columns of
-- the step before it (an alias used twice where it is defined is analysed twice), and what later steps don't look at is carried in arrays.
-- Within AND and OR nothing is compared with a constant by `=` or `!=`, but by IN or NOT: for each such comparison the engine's
-- LogicalExpressionOptimizer hashes all of the statement below it, a quarter of the analysis in all. (Comparisons with '' are none by then.)
-- For each attribute, conditions are joined by bitAnd and bitOr: to find out where AND and OR needn't look takes longer than to look everywhere.
WITH
resources AS
(
    SELECT
        tuple(envelope.number, envelope.operator, envelope.received_unix_nano, envelope.tenant) AS request,
        arrayJoin(envelope.request.resource_spans) AS resource_spans
    FROM (SELECT arrayJoin(envelopes) AS envelope FROM {{source}})
),
scopes AS
(
    SELECT
        request,
        -- service, environment (two names), process (three), then what stands on the resource as on a span
        arrayMap(v -> {{v.text}}, arrayMap(n -> resource_spans.resource.attributes.value[indexOf(resource_spans.resource.attributes.key, n)],
            ['service.name', 'deployment.environment.name', 'deployment.environment', 'service.instance.id', 'host.name', 'service.name',
             'tallystick.tenant', 'tallystick.customer', 'tallystick.feature', 'tallystick.agent', 'tallystick.team', 'tallystick.user',
             'tallystick.session'])) AS resource,
        arrayFilter(a -> startsWith(a.1, 'tallystick.tag.'), resource_spans.resource.attributes) AS resource_tags,
        arrayJoin(resource_spans.scope_spans) AS scope_spans
    FROM resources
),
recognised AS
(
    SELECT
        request, resource, resource_tags, scope_spans,
        {{dialects}}[arrayFirstIndex(p -> startsWith(concat(scope_spans.scope.name, '\n'), p), {{prefixes}})] AS dialect
    FROM scopes
),
spans AS
(
    SELECT request, resource, resource_tags, dialect, left(scope_spans.scope.name, 128) AS scope, arrayJoin(scope_spans.spans) AS span
    FROM recognised
),
attributes AS
(
    SELECT
        *,
        arrayMap(n -> {{rank}}, if(dialect.1 = '', span.attributes.key,
            arrayMap(k -> if(position(k, '.') = 0, concat(dialect.1, ':', k), k), span.attributes.key))) AS wanted,
        arrayFirstIndex(n -> n IN ('First Token Stream Event', 'gen_ai.content.completion.chunk'), span.events.name) AS token_event,
        indexOf(span.events.name, 'exception') AS exception_event
    FROM spans
),
texts AS
(
    SELECT
        *,
        arrayMap((r, v) -> substring(v, if(bitAnd(r > 0, startsWith(v, '\n')), {{v.start}}, length(v) + 1)), wanted, span.attributes.value) AS texts,
        arrayFilter((v, r) -> r >= {{first_number}}, span.attributes.value, wanted) AS number_values,
        arrayCumSum(r -> r >= {{first_number}}, wanted) AS number_places
    FROM attributes
),
-- Rank of an attribute in the upper half, its place in the lower (of a number: among the numbers): the preferred one of each column comes
-- first. A text that is empty says nothing.
ranked AS
(
    SELECT
        * EXCEPT (wanted, number_values, number_places),
        arraySort(arrayMap(
            (r, t, v, i, n) -> if(bitAnd(r > 0, bitOr(r >= {{first_number}}, bitOr(t != '', startsWith(v, '*')))),
                bitOr(bitShiftLeft(toUInt64(r), 32), if(r < {{first_number}}, i, n)), 0),
            wanted, texts, span.attributes.value, arrayEnumerate(wanted), number_places)) AS ranks,
        -- The first byte of a value is its tag: integer, double, boolean.
        arrayMap((v, w) -> multiIf(
            bitAnd(w, 255) = 0x18, {{v.integer}},
            bitAnd(w, 255) = 0x21, reinterpretAsFloat64(substring(v, 2, 8)),
            bitAnd(w, 255) = 0x10, toFloat64(w = 0x0110),
            toFloat64OrNull(transform(lower({{v.text}}), ['true', 'false'], ['1', '0']))),
            number_values, arrayMap(v -> reinterpretAsUInt64(v), number_values)) AS numbers
    FROM texts
),
placed AS
(
    SELECT
        * EXCEPT (ranks),
        arrayMap(n -> accurateCastOrNull(n, 'Int64'), numbers) AS integers,
        arrayMap(r -> toUInt8(bitShiftRight(r, 37)), ranks) AS columns,
        arrayMap(r -> toUInt32(bitAnd(r, 0xFFFFFFFF)), ranks) AS places
    FROM ranked
),
looked_up AS
(
    SELECT
        request, resource, dialect, texts, numbers, columns, places,
        (span.trace_id, span.span_id, span.parent_span_id, scope) AS origin,
        span.name AS span_name,
        span.start_time_unix_nano AS start_ns,
        span.end_time_unix_nano AS end_ns,
        span.status.code AS status_code,
        if(arrayExists(k -> startsWith(k, 'tallystick.tag.'), span.attributes.key),
           arrayConcat(resource_tags, arrayFilter(a -> startsWith(a.1, 'tallystick.tag.'), span.attributes)), resource_tags) AS tags,
        {{text.span_kind}} AS span_kind,
        -- A call that failed early may have nothing but the name that the conventions ask for: operation and model.
        if(dialect.11 AND {{text.operation_name}} = '' AND {{text.span_kind}} = '', extract(span.name, '^(chat|text_completion|embeddings|generate_content) \\S+$'), {{text.operation_name}}) AS operation_name,
        {{text.provider}} AS provider,
        {{text.answer}} AS answer,
        {{text.usage_text}} AS usage_text,
        {{text.error_type}} AS error_type,
        {{text.log_kind}} AS log_kind,
        [{{counts}}] AS counts,
        if(token_event = 0, 0, span.events.time_unix_nano[token_event]) AS token_event_ns,
        if(exception_event = 0, [], arrayMap(v -> left({{v.text}}, 120), arrayMap(n -> span.events.attributes.value[exception_event][indexOf(span.events.attributes.key[exception_event], n)],
            ['exception.type', 'exception.message']))) AS exception,
        exception_event > 0 OR span.status.code IN (2) AS has_trouble,
        if(span.status.code = 2, left(span.status.message, 120), '') AS status_message,
        -- A list is there and more than one empty text.
        {{text.finish}} != '' OR length({{finish_list}}) > 6 AS finished
    FROM placed
    {{only_kept}}
),
-- What stands inside JSON texts: the request's parameters, the provider's answer, free metadata.
read AS
(
    SELECT
        * EXCEPT (answer, usage_text, has_trouble),
        has_trouble OR error_type != '' OR {{text.error_level}} IN ('ERROR') AS failed,
        if({{text.invocation_parameters}} = '', [], arrayMap(k -> replaceOne(trim(BOTH '"' FROM JSONExtractRaw({{text.invocation_parameters}}, k)), 'null', ''), ['model', 'stream'])) AS asked,
        if(answer = '', [], arrayMap(k -> replaceOne(trim(BOTH '"' FROM JSONExtractRaw(answer, k)), 'null', ''), ['model', 'service_tier'])) AS answered,
        if(answer = '', '', extract(answer, '"id": ?"((?:chatcmpl-|cmpl-|resp_|msg_|gen-)[A-Za-z0-9_-]+)"')) AS answer_id,
        if({{text.metadata}} = '', [], arrayMap(k -> replaceOne(trim(BOTH '"' FROM JSONExtractRaw({{text.metadata}}, k)), 'null', ''), ['customer_id', 'customer', 'feature', 'team', 'user_id', 'session_id'])) AS meta,
        if(answer = '', usage_text, firstNonDefault(usage_text, JSONExtractRaw(answer, 'usage_metadata'), JSONExtractRaw(answer, 'usage'))) AS usage_text
    FROM looked_up
),
counted AS
(
    SELECT
        * EXCEPT (counts),
        isNull(counts[1]) AND usage_text != '' AS input_from_text,
        -- Audio is counted under one name in both directions.
        if(usage_text = '', counts, arrayMap((c, n) -> coalesce(c, n), counts,
            arrayMap((names, pairs) -> toInt64OrNull(arrayFirst(p -> has(names, p[1]), pairs)[2]), [{{usage_names}}],
                arrayWithConstant(10, extractAllGroupsVertical(
                    replaceRegexpOne(replaceRegexpOne(usage_text,
                        '((?:prompt|input)_tokens?_details["\']: ?\\{[^{}]*?["\'])audio', '\\1input_audio'),
                        '((?:completion|output)_tokens?_details["\']: ?\\{[^{}]*?["\'])audio', '\\1output_audio'),
                    '["\'](\\w+)["\']: ?(\\d+)'))))) AS said
    FROM read
    WHERE multiIf(
        span_kind IN ('LLM', 'EMBEDDING', 'RERANKER', 'generation', 'embedding', 'llm', 'llm_request'), 1,
        startsWith(span_kind, 'ai.'), match(span_kind, '\\.do(Generate|Stream|Embed|Rerank)$'),
        span_kind NOT IN ('', 'unknown'), 0,
        operation_name IN ('chat', 'text_completion', 'completion', 'generate_content', 'embeddings', 'embedding', 'rerank', 'responses', 'messages'), 1,
        operation_name IN ('invoke_agent', 'create_agent', 'execute_tool', 'invoke_workflow', 'agent_step', 'retrieval', 'handoff', 'guardrail'), 0,
        (isNotNull(counts[1]) OR isNotNull(counts[2]) OR usage_text != '')
            AND (provider != '' OR {{text.request_model}} != '' OR {{text.response_model}} != '' OR span_name IN ('llm_request')))
),
judged AS
(
    SELECT
        * EXCEPT (exception, status_message, operation_name, answer_id),
        -- An answer of the application's cache has the id of the call that it was made for.
        if({{text.cache_hit}} != '', '', left(firstNonDefault({{text.response_id}}, answer_id), 256)) AS response_id,
        coalesce(said[4], said[5] + said[6], said[5], said[6]) AS write_count,
        multiIf(
            span_kind IN ('EMBEDDING', 'embedding') OR operation_name IN ('embeddings', 'embedding') OR endsWith(span_kind, '.doEmbed'), 'embeddings',
            operation_name IN ('text_completion', 'completion'), 'text_completion',
            operation_name = 'generate_content', 'generate_content',
            operation_name IN ('rerank', 'reranking') OR span_kind IN ('RERANKER'), 'rerank',
            'chat') AS operation,
        -- The kind of failure, from its type; from its message only where the type says nothing.
        multiIf(dialect.10, '', error_type NOT IN ('', '_OTHER'), error_type, exception[1]) AS trouble_type,
        firstNonDefault(exception[2], status_message, error_type) AS trouble_text,
        if(log_kind IN ('log') AND {{number.log_duration}} BETWEEN 0 AND 604800, toUInt64({{number.log_duration}} * 1e9), NULL) AS log_ns,
        multiIf(
            {{number.said_ttft_s}} BETWEEN 0 AND 604800, toInt64({{number.said_ttft_s}} * 1e9),
            {{number.said_ttft_ms}} BETWEEN 0 AND 604800000, toInt64({{number.said_ttft_ms}} * 1e6),
            {{text.ttft_at}} != '', coalesce(toUnixTimestamp64Nano(parseDateTime64BestEffortOrNull(trim(BOTH '"' FROM {{text.ttft_at}}), 9, 'UTC')) - toInt64(start_ns), 0),
            toInt64(token_event_ns) - toInt64(start_ns)) AS first_token_ns,
        multiIf(isNotNull({{number.streamed}}), {{number.streamed}} != 0, asked[2] != '', asked[2] = 'true',
                log_kind IN ('log') OR token_event_ns > 0 OR {{text.ttft_at}} != '' OR endsWith(span_kind, '.doStream'), 1, NULL) AS streamed
    FROM counted
),
classed AS
(
    SELECT
        *,
        if(trouble_type IN ('', 'Exception', 'error'), trouble_text, trouble_type) AS trouble,
        dialect.6 AND NOT coalesce(said[1], 0) AND NOT coalesce(said[2], 0) AS zeros,
        dialect.7 AND isNotNull(said[1]) AS complete,
        coalesce(
            dialect.4
            OR (dialect.5 != '' AND positionCaseInsensitive(provider, dialect.5) > 0)
            OR (input_from_text AND match(usage_text, 'cache_(creation|read)_input_tokens') AND NOT position(usage_text, 'prompt_tokens'))
            OR said[1] < coalesce(said[3], 0) + coalesce(write_count, 0), 0) AS excludes_cache,
        coalesce(streamed, 0) AND NOT failed AND NOT finished AND {{text.usage_source}} NOT IN ('provider', 'estimated') AND NOT match({{text.log_messages}}, '"finish_reason": ?"\\w')
            AND multiIf(dialect.9 = 'unsaid', 0, dialect.9 = 'ok', status_code != 1, dialect.9 = 'langfuse', usage_text = '', 1) AS cut_short
    FROM judged
),
settled AS
(
    SELECT
        *,
        failed AND match(trouble, '(?i)cancel|GeneratorExit|abandoned|KeyboardInterrupt') AS gave_up,
        -- What the application's cache answered cost nothing, whatever usage the answer had when it was made. Of a failure: not where the
        -- collector saw some of the answer before it.
        {{text.cache_hit}} != '' OR failed AND {{text.usage_source}} NOT IN ('provider', 'estimated', 'partial')
            AND NOT match(trouble, '(?i)cancel|GeneratorExit|abandoned|KeyboardInterrupt|time.?out|timed out|connection|disconnect|reset by peer') AS unbilled,
        if(complete, coalesce(said[3], 0), said[3]) AS cache_read,
        if(complete, coalesce(write_count, 0), write_count) AS cache_write,
        if(zeros, NULL, said[1]) AS input_count,
        -- A stream that was cut short carries a placeholder of one output token, which nobody counted.
        multiIf(zeros, NULL, operation IN ('embeddings') AND isNotNull(said[1]), coalesce(said[2], 0), cut_short AND said[2] <= 1 AND {{text.usage_source}} = '', NULL, said[2]) AS output_known,
        if(isNull(log_ns) OR log_ns > end_ns, start_ns, end_ns - log_ns) AS begin_ns,
        -- Texts that nothing is made of may be what they like.
        NOT isValidUTF8(span_name) OR arrayExists(t -> NOT isValidUTF8(t), texts)
            OR arrayExists(t -> NOT isValidUTF8(t), arrayConcat(tags.1, arrayMap(v -> {{v.text}}, tags.2))) AS garbled
    FROM classed
)
SELECT
    request.1 AS number,
    multiIf(
        length(origin.1) NOT IN (16) OR origin.1 IN (repeat('\0', 16)), 'trace id is not 16 bytes or is zero',
        length(origin.2) NOT IN (8) OR origin.2 IN (repeat('\0', 8)), 'span id is not 8 bytes or is zero',
        start_ns < 1577836800000000000, 'starts before 2020',
        start_ns > request.3 + 86400000000000, 'starts more than a day in the future',
        end_ns < start_ns, 'ends before it starts',
        end_ns - start_ns > 604800000000000, 'lasts longer than a week',
        arrayExists(n -> n < 0, said), 'negative token count',
        arrayExists(n -> n > 1000000000, said), 'absurd token count (over 1e9)',
        garbled, 'a text is not UTF-8',
        '') AS problem,
    firstNonDefault(if(request.2, firstNonDefault({{text.tenant}}, resource[7]), ''), request.4) AS tenant,
    fromUnixTimestamp64Nano(toInt64(begin_ns), 'UTC') AS started_at,
    toUInt64(end_ns - begin_ns) AS duration_ns,
    if(streamed AND first_token_ns BETWEEN 1 AND 604800000000000, toUInt64(first_token_ns), NULL) AS ttft_ns,
    if(streamed AND first_token_ns BETWEEN 1 AND 604800000000000, if({{text.first_token_kind}} IN ('content', 'reasoning', 'tool_call'), {{text.first_token_kind}}, dialect.3), '') AS ttft_kind,
    toFixedString(left(origin.1, 16), 16) AS trace_id,
    toFixedString(left(origin.2, 8), 8) AS span_id,
    toFixedString(left(origin.3, 8), 8) AS parent_span_id,
    response_id,
    if(response_id = '', 0, xxHash32(response_id)) AS response_key,
    left(firstNonDefault(resource[4], resource[5], resource[6]), 256) AS process,
    origin.4 AS scope,
    dialect.2 AS layer,
    isNotNull(log_ns) AS is_log,
    left(firstNonDefault({{text.customer}}, meta[1], meta[2], resource[8]), 256) AS customer,
    left(firstNonDefault({{text.feature}}, meta[3], resource[9]), 256) AS feature,
    left(firstNonDefault({{text.agent}}, resource[10]), 256) AS agent,
    left(firstNonDefault({{text.team}}, meta[4], resource[11]), 256) AS team,
    left(firstNonDefault({{text.user}}, meta[5], resource[12]), 256) AS user,
    left(firstNonDefault({{text.session}}, meta[6], resource[13]), 256) AS session,
    left(resource[1], 256) AS service,
    left(firstNonDefault(resource[2], resource[3]), 256) AS environment,
    mapFromArrays(arrayMap(a -> substring(a.1, 16, 128), tags), arrayMap(v -> left({{v.text}}, 256), tags.2)) AS tags,
    left(lower(if(startsWith(span_kind, 'ai.'), splitByChar('.', provider)[1], provider)), 128) AS provider,
    left(if({{text.request_model}} != '', {{text.request_model}}, firstNonDefault(asked[1], {{text.response_model}}, answered[1],
        if(dialect.11, extract(span_name, '^(?:chat|text_completion|embeddings|generate_content) (\\S+)$'), ''))), 256) AS request_model,
    left(firstNonDefault({{text.response_model}}, answered[1]), 256) AS response_model,
    operation,
    left(lower(firstNonDefault({{text.service_tier}}, answered[2], JSONExtractString({{text.parameters}}, 'service_tier'))), 64) AS service_tier,
    streamed,
    multiIf(gave_up OR (cut_short AND NOT failed), 'cancelled', failed, 'error', 'ok') AS status,
    if(match(trouble_type, '^[A-Za-z0-9_.:/-]{1,120}$'), trouble_type, '') AS error_type,
    left({{text.cache_hit}}, 64) AS cache_hit,
    if(unbilled, 0, if(excludes_cache, input_count, input_count - coalesce(cache_read, 0) - coalesce(cache_write, 0))) AS input_tokens,
    if(unbilled, 0, cache_read) AS cache_read_tokens,
    -- A write whose lifetime isn't told is a five-minute one: every provider's default.
    if(unbilled, 0, cache_write - coalesce(said[6], 0)) AS cache_write_5m_tokens,
    if(unbilled, 0, if(isNull(cache_write), NULL, coalesce(said[6], 0))) AS cache_write_1h_tokens,
    if(unbilled, 0, output_known) AS output_tokens,
    if(unbilled, 0, if(complete, coalesce(said[7], 0), said[7])) AS reasoning_tokens,
    said[8] AS audio_input_tokens,
    said[9] AS audio_output_tokens,
    said[10] AS image_input_tokens,
    multiIf(
        {{text.cache_hit}} = '' AND {{text.usage_source}} IN ('provider', 'estimated', 'partial', 'missing', 'none'), {{text.usage_source}},
        unbilled, 'none',
        isNull(input_count) AND isNull(output_known), 'missing',
        failed OR cut_short OR isNull(output_known), 'partial',
        dialect.8 AND streamed AND isNull(said[3]) AND isNull(write_count), 'estimated',
        'provider') AS usage_source,
    -- Zero is unknown where the source says so; a cost that nobody can have paid is no evidence.
    if({{number.reported_cost}} BETWEEN 0 AND 1e6 AND NOT (dialect.6 AND {{number.reported_cost}} IN (0)),
       reinterpret(toInt64(round(assumeNotNull({{number.reported_cost}}) * 1e12)), 'Decimal(18, 12)'), NULL) AS reported_cost_usd
FROM settled
