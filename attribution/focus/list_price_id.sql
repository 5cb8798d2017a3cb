-- The public list's price that held when call `s` started, where the user's file set another; as schema/sql/cost.sql finds one.
if(
    empty(list.price_ids) OR NOT match(s.price_id, '^[^,]*file@'),
    s.price_id,
    list.price_ids[
        arrayCount(start -> start <= toUnixTimestamp64Second(s.started_at) % 86400, list.day_starts) * (length(list.above) + 1)
        + arrayCount(
            size -> size < abs(ifNull(s.input_tokens, 0) + ifNull(s.cache_read_tokens, 0)
                + ifNull(s.cache_write_5m_tokens, 0) + ifNull(s.cache_write_1h_tokens, 0)),
            list.above)
        + 1
    ]
)
