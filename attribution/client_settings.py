"""Settings that clients of ClickHouse send along: what is kept to, what changes nothing here, and what is refused."""

import re
from collections.abc import Mapping
from typing import Any, Final

from tallystick.attribution.user_sql import BadQuery

_NUMBER: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]*)?")
_CHOICE: Final = re.compile(r"[A-Za-z0-9_.]{1,32}")

LOWERED: Final = ("max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes")
"""A client may have less of these than everybody."""

KEPT: Final = frozenset(
    (
        "date_time_input_format", "date_time_output_format", "extremes", "join_use_nulls", "limit", "offset",
        "output_format_arrow_compression_method", "output_format_arrow_low_cardinality_as_dictionary", "output_format_arrow_string_as_string",
        "output_format_binary_write_json_as_string", "output_format_decimal_trailing_zeros", "output_format_json_named_tuples_as_objects",
        "output_format_json_quote_64bit_floats", "output_format_json_quote_64bit_integers", "output_format_json_quote_decimals",
        "output_format_json_quote_denormals", "output_format_native_write_json_as_string", "output_format_parquet_compression_method",
        "output_format_parquet_string_as_string", "output_format_pretty_color", "output_format_pretty_max_rows",
        "output_format_pretty_row_numbers", "result_overflow_mode",
    )
)  # fmt: skip
"""How an answer looks or where it ends: nothing that would reach past the cage."""

IDLE: Final = frozenset(
    (
        "add_http_cors_header", "allow_experimental_analyzer", "async_insert", "cancel_http_readonly_queries_on_client_close",
        "cast_string_to_dynamic_use_inference", "connect_timeout", "enable_http_compression", "http_headers_progress_interval_ms",
        "http_receive_timeout", "http_send_timeout", "http_write_exception_in_output_format", "http_zlib_compression_level",
        "input_format_binary_read_json_as_string", "log_queries", "max_block_size", "max_threads", "max_insert_block_size", "max_query_size",
        "network_compression_method", "readonly", "receive_timeout", "send_progress_in_http_headers", "send_timeout",
        "use_query_cache", "wait_for_async_insert",
    )
)  # fmt: skip
"""What clients send of their own accord, and what has no meaning here."""


def kept(sent: Mapping[str, str], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a connection, name → SQL literal: `limits`, and what a client sent as far as it may change it. Raises BadQuery."""
    settings = dict(limits)
    for name, value in sent.items():
        if name in LOWERED:
            settings[name] = min(_number(name, value) or limits[name], limits[name])
        elif name in KEPT:
            settings[name] = f"'{_matched(_CHOICE, name, value)}'"
        elif name not in IDLE:
            raise BadQuery("readonly", f"Cannot modify '{name}' setting in readonly mode.", "docs/sql.md lists what can be set.")
    return settings


def _number(name: str, value: str) -> int:
    return int(float(_matched(_NUMBER, name, value)))


def _matched(form: re.Pattern[str], name: str, value: str) -> str:
    if not form.fullmatch(value):
        raise BadQuery("cannot_parse_text", f"{value[:32]!r} is no value of the setting {name}.")
    return value


def listed(limits: Mapping[str, Any]) -> dict[str, str]:
    """What `system.settings` shows: clients ask there whether a setting may be sent, and leave out what isn't listed."""
    return {name: str(limits[name]) for name in LOWERED} | {"date_time_input_format": "basic"}
