"""The server's whole work through Python rows: what benchmarks/ingest.py compares the server with.

    python benchmarks/python_rows.py DATA       `tallystick up --data DATA --port 0 --grpc-port 0` with this writer
    python benchmarks/python_rows.py --check    recordings of tests/spans and spans of the benchmark, by this writer and the server's

The same process (HTTP, group commit, ledger, fsync, merges), the same tables of dialects and prices, the same judgement on doubles; but
spans are walked in Python, and rows go in with clickhouse-connect's `insert`. It is meant to be fast for what it is: a payload is parsed
once (upb), dialects are dicts compiled for each instrumentation, JSON and failures are looked at only where there are any, costs are sums
of integers with prices cached by model, one query asks for the doubles of a batch, a batch goes in as one part, nothing is garbage-collected.

Left out, which favours Python: the checks for floods of attributes and of new models, what a writer knows of processes when it starts,
answers and parameters that are broken JSON, a model that only the losing span of two names, and whatever --check shows to differ.
`response_key` is crc32, as Python has no xxHash32.
"""

import argparse
import gc
import json
import re
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

from clickhouse_connect.driver.exceptions import ClickHouseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from traffic import payload

from tallystick.attribution.prices import PriceBook
from tallystick.ingest import payload as checks
from tallystick.ingest import receiver
from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.migrate import migrate
from tallystick.ingest.same_call import Identity, Rival, judge
from tallystick.ingest.store import open_store
from tallystick.ingest.writer import Item, Outcome, Writer, Written
from tallystick.schema.dialects import COUNTS, LAYERS, attributes, dialects, usage_names
from tallystick.schema.models import Seen
from tallystick.schema.names import SCOPE_KEYS, TAG_PREFIX
from tallystick.settings import Settings

LEDGER = (
    "entry", "calls", "tenant", "customer", "feature", "agent", "team", "user", "session", "service", "environment", "tags", "provider",
    "request_model", "response_model", "operation", "service_tier", "streamed", "status", "error_type", "cache_hit", "input_tokens",
    "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens",
    "audio_output_tokens", "image_input_tokens", "usage_source", "started_at", "duration_ns", "ttft_ns", "ttft_kind", "price_id",
    "cost_usd", "reported_cost_usd", "trace_id", "span_id", "parent_span_id", "response_id", "response_key", "process", "scope", "layer",
    "is_log", "reason",
)  # fmt: skip
AT = SimpleNamespace(**{name: place for place, name in enumerate(LEDGER)})
AMOUNTS = [AT.calls, *range(AT.input_tokens, AT.usage_source), AT.cost_usd, AT.reported_cost_usd]
WHO = slice(AT.customer, AT.session + 1)

# What attributes fill, in the order in which `_call` unpacks it; then the counts.
HELD = (
    "span_kind", "operation_name", "provider", "request_model", "invocation_parameters", "response_model", "answer", "response_id",
    "service_tier", "parameters", "streamed", "finish", "log_messages", "error_type", "error_level", "usage_source", "cache_hit", "log_kind",
    "log_duration", "usage_text", "said_ttft_s", "said_ttft_ms", "first_token_kind", "ttft_at", "reported_cost", "tenant", "customer", "metadata", "feature",
    "agent", "team", "user", "session", *COUNTS,
)  # fmt: skip
TEXT, LIST, JSON, COUNT, FLAG, NUMBER = range(6)
JSONS = {"invocation_parameters", "answer", "parameters", "usage_text", "metadata"}
NOTHING = [None if any(a.column == column and a.numeric for a in attributes()) else "" for column in HELD]
LAST = [len(attributes())] * len(HELD)

BEGIN_NS, DAY_NS, WEEK_NS, WITHIN_NS = 1577836800 * 10**9, 86_400 * 10**9, 604_800 * 10**9, 120 * 10**9
MODEL_KINDS = {"LLM", "EMBEDDING", "RERANKER", "generation", "embedding", "llm", "llm_request"}
CALLS = {"chat", "text_completion", "completion", "generate_content", "embeddings", "embedding", "rerank", "responses", "messages"}  # fmt: skip
VERCEL_CALLS = (".doGenerate", ".doStream", ".doEmbed", ".doRerank")
NO_CALLS = {"invoke_agent", "create_agent", "execute_tool", "invoke_workflow", "agent_step", "retrieval", "handoff", "guardrail"}
OPERATIONS = {
    "embeddings": "embeddings", "embedding": "embeddings", "EMBEDDING": "embeddings", "doEmbed": "embeddings", "text_completion": "text_completion",
    "completion": "text_completion", "generate_content": "generate_content", "rerank": "rerank", "RERANKER": "rerank",
}  # fmt: skip
SOURCES = {"provider", "estimated", "partial", "missing", "none"}
TOKEN_KINDS = {"content", "reasoning", "tool_call"}
TOKEN_EVENTS = {"First Token Stream Event", "gen_ai.content.completion.chunk"}
NAMED = re.compile(r"^(chat|text_completion|embeddings|generate_content) (\S+)$")
CANCELLED = re.compile(r"cancel|GeneratorExit|abandoned|KeyboardInterrupt", re.IGNORECASE)
UNANSWERED = re.compile(r"time.?out|timed out|connection|disconnect|reset by peer", re.IGNORECASE)
ERROR_TYPE = re.compile(r"[A-Za-z0-9_.:/-]{1,120}")
FINISH_REASON = re.compile(r'"finish_reason": ?"\w')
ANSWER_ID = re.compile(r'"id": ?"((?:chatcmpl-|cmpl-|resp_|msg_|gen-)[A-Za-z0-9_-]+)"')
USAGE = re.compile(r"[\"'](\w+)[\"']: ?(\d+)")
AUDIO = re.compile(r"((?:prompt|(input)|completion|(output))_tokens?_details[\"']: ?\{[^{}]*?[\"'])audio")
CACHE_USAGE = re.compile("cache_(creation|read)_input_tokens")


class Parsed(bytes):
    """A payload that keeps what it was parsed to."""

    request: ExportTraceServiceRequest


def decode(body, content_type, encoding, limits, check):
    """As the receiver's, but the parsed request isn't thrown away."""
    data = checks.decompress(body, encoding, limits)
    parsed = Parsed(data)
    try:
        parsed.request = ExportTraceServiceRequest.FromString(data)
        spans = sum(len(scope.spans) for resource in parsed.request.resource_spans for scope in resource.scope_spans)
    except DecodeError:
        spans = limits.spans + 1
    if content_type != checks.PROTOBUF or spans > limits.spans:
        return checks.decode(data, content_type, "", limits, check)
    return checks.Payload(parsed, spans)


class Source:
    """An instrumentation: its dialect, and which column (a place in `HELD`) its attributes fill, in which order, and as what."""

    def __init__(self, scope: str) -> None:
        self.dialect = next(d for d in dialects() if d.scope == f"={scope}" or scope.startswith(d.scope))
        self.scope, self.layer = scope[:128], LAYERS[self.dialect.layer]
        self.ttft_kind = "content" if self.dialect.layer == "native" else "chunk"
        self.slots = {}
        for order, a in enumerate(attributes()):
            bare, _, name = a.attribute.rpartition(":")
            if bare in ("", self.dialect.bare):
                texts = JSON if a.column in JSONS else LIST if a.column == "finish" else TEXT
                kind = {"text": texts, "count": COUNT, "flag": FLAG}.get(a.unit, NUMBER)
                self.slots[name] = (HELD.index(a.column), order, kind)


class Resource:
    """What a resource says, for all of its spans."""

    def __init__(self, attributes) -> None:
        held = defaultdict(str, {a.key: a.value.string_value for a in attributes})
        self.who = [held[key] for key in SCOPE_KEYS]
        self.tenant, self.service = held["tallystick.tenant"], held["service.name"][:256]
        self.environment = (held["deployment.environment.name"] or held["deployment.environment"])[:256]
        self.process = (held["service.instance.id"] or held["host.name"] or held["service.name"])[:256]
        self.tags = {key[len(TAG_PREFIX) :][:128]: text[:256] for key, text in held.items() if key.startswith(TAG_PREFIX)}


class PythonRows:
    """As ingest.writer.Writer. voiding: nothing corrects the ledger here."""

    def __init__(self, store, book: PriceBook, voiding: object = None) -> None:
        self.client = client = store.client()
        self.book = book
        self.sources, self.prices, self.new_prices = {}, {}, []
        self.scopes = defaultdict(set)
        client.command(
            "SET min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0, max_insert_block_size = 10000000"
        )
        client.command("CREATE DATABASE IF NOT EXISTS work")
        client.command("CREATE OR REPLACE TABLE work.keys (trace_id FixedString(16), response_key UInt32) ENGINE = Memory")
        self.into_ledger = client.create_insert_context("ledger", LEDGER)
        self.into_keys = client.create_insert_context("keys", database="work", column_oriented=True)
        self.into_prices = client.create_insert_context("prices")

    def price_by(self, book: PriceBook) -> None:
        if book.id != self.book.id:
            self.prices.clear()
        self.book = book

    def write(self, items) -> Written:
        try:
            return self._write(items)
        except ClickHouseError as error:
            raise StoreUnavailable(str(error)[:200]) from error

    def _write(self, items) -> Written:
        outcomes, rows = [], []
        for item in items:
            before, rejected = len(rows), Counter()
            self._walk(item, rows, rejected)
            outcomes.append(Outcome(len(rows) - before, dict(rejected)))
        calls = len(rows)
        if not calls:
            return Written(outcomes, 0, 0, 0)
        if self.new_prices:
            self.client.insert(data=self.new_prices, context=self.into_prices)
            self.new_prices = []
        rows, voids = self._once(rows)
        if rows or voids:
            self.client.insert(data=[*rows, *voids], context=self.into_ledger)
        return Written(outcomes, len(rows), len(voids), calls - len(rows))

    def _walk(self, item, rows, rejected) -> None:
        request = getattr(item.data, "request", None) or ExportTraceServiceRequest.FromString(item.data)
        latest = item.received_ns + DAY_NS
        for resource_spans in request.resource_spans:
            resource = Resource(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                scope = scope_spans.scope.name
                source = self.sources.get(scope) or self.sources.setdefault(scope, Source(scope))
                for span in scope_spans.spans:
                    row = self._call(span, source, resource, item, latest)
                    if type(row) is str:
                        rejected[row] += 1
                    elif row:
                        rows.append(row)

    def _call(self, span, source, resource, item, latest):
        """The row of a span; None if it is no call, or what is wrong with it."""
        slots, held, orders, tags, has_json = source.slots, NOTHING[:], LAST[:], resource.tags, False
        for attribute in span.attributes:
            key = attribute.key
            slot = slots.get(key)
            if slot is None:
                if key.startswith(TAG_PREFIX):
                    tags = {**tags, key[len(TAG_PREFIX) :][:128]: attribute.value.string_value[:256]}
                continue
            column, order, kind = slot
            value = attribute.value
            if kind <= JSON:
                text = value.string_value
                if kind != TEXT:
                    has_json = has_json or kind == JSON
                    text = text or (kind == LIST and any(v.string_value for v in value.array_value.values))
                if not text:
                    continue
                value = text
            elif kind == COUNT:
                value = value.int_value or number(value, kind)
            elif kind == FLAG:
                value = value.bool_value or number(value, kind)
            else:
                value = value.double_value or number(value, kind)
            if order < orders[column]:
                held[column], orders[column] = value, order
        (
            span_kind, operation_name, provider, request_model, parameters_text, response_model, answer_text, response_id, service_tier,
            more_parameters, streamed, finish, log_messages, error_type, error_level, told_source, cache_hit, log_kind, log_duration, usage_text,
            ttft_s, ttft_ms, first_token_kind, ttft_at, reported_cost, tenant, customer, metadata_text, feature, agent, team, user, session, *counts,
        ) = held  # fmt: skip
        dialect = source.dialect
        counted = counts[0] is not None or counts[1] is not None
        asked = answer = more = EMPTY
        input_from_text = False
        if has_json:
            asked, answer, more = read(parameters_text), read(answer_text), read(metadata_text)
            usage_text = usage_text or answer["usage_metadata"] or answer["usage"]
            service_tier = service_tier or answer["service_tier"] or read(more_parameters)["service_tier"]
            if not response_id and (found := ANSWER_ID.search(answer_text)):
                response_id = found[1]
            if usage_text:
                input_from_text = counts[0] is None
                counts = count(usage_text, counts)
        named = None
        if dialect.scope and not (request_model and (operation_name or span_kind)):
            named = NAMED.match(span.name)
            if named and not (operation_name or span_kind):
                operation_name = named[1]
        if span_kind not in MODEL_KINDS:
            if span_kind in ("", "unknown"):
                told = (counted or usage_text) and (provider or request_model or response_model or span.name == "llm_request")
                is_call = operation_name in CALLS or (told and operation_name not in NO_CALLS)
            else:
                is_call = span_kind.startswith("ai.") and span_kind.endswith(VERCEL_CALLS)
            if not is_call:
                return None

        trace_id, span_id, parent_id = span.trace_id, span.span_id, span.parent_span_id
        start, end, code = span.start_time_unix_nano, span.end_time_unix_nano, span.status.code
        if len(trace_id) != 16 or trace_id == b"\0" * 16:
            return "trace id is not 16 bytes or is zero"
        if len(span_id) != 8 or span_id == b"\0" * 8:
            return "span id is not 8 bytes or is zero"
        if start < BEGIN_NS:
            return "starts before 2020"
        if start > latest:
            return "starts more than a day in the future"
        if end < start:
            return "ends before it starts"
        if end - start > WEEK_NS:
            return "lasts longer than a week"
        for n in counts:
            if n is not None and not 0 <= n <= 1_000_000_000:
                return "negative token count" if n < 0 else "absurd token count (over 1e9)"
        total, output, cache_read, cache_write, write_5m, write_1h, reasoning, audio_input, audio_output, image_input = counts
        if len(parent_id) != 8:
            parent_id = parent_id[:8].ljust(8, b"\0")

        operation = OPERATIONS.get(operation_name) or OPERATIONS.get(span_kind.rpartition(".")[2], "chat")
        token_ns, exception, trouble_type, trouble = 0, None, "", ""
        for event in span.events:
            if event.name == "exception":
                exception = exception or event
            elif event.name in TOKEN_EVENTS:
                token_ns = token_ns or event.time_unix_nano
        failed = exception is not None or code == 2 or error_type != "" or error_level == "ERROR"
        if failed:
            thrown = {a.key: a.value.string_value[:120] for a in exception.attributes} if exception else EMPTY
            if dialect.dialect != "langfuse":
                trouble_type = error_type if error_type not in ("", "_OTHER") else thrown.get("exception.type", "")
            trouble = thrown.get("exception.message") or (span.status.message[:120] if code == 2 else "") or error_type
            trouble = trouble if trouble_type in ("", "Exception", "error") else trouble_type

        if streamed is not None:
            streamed = streamed != 0
        elif asked["stream"]:
            streamed = asked["stream"] == "true"
        elif log_kind == "log" or token_ns or ttft_at or span_kind.endswith(".doStream"):
            streamed = True
        begin, is_log, ttft_ns, ttft_kind = start, False, None, ""
        if streamed:
            if ttft_s is not None and 0 <= ttft_s <= 604_800:
                first_ns = int(ttft_s * 1e9)
            elif ttft_ms is not None and 0 <= ttft_ms <= 604_800_000:
                first_ns = int(ttft_ms * 1e6)
            else:
                first_ns = (instant_ns(ttft_at) if ttft_at else token_ns) - start
            if 1 <= first_ns <= WEEK_NS:
                ttft_ns, ttft_kind = first_ns, first_token_kind if first_token_kind in TOKEN_KINDS else source.ttft_kind
        if log_kind == "log" and log_duration is not None and 0 <= log_duration <= 604_800:
            begin, is_log = end - int(log_duration * 1e9), True

        if cache_write is None and (write_5m is not None or write_1h is not None):
            cache_write = (write_5m or 0) + (write_1h or 0)
        excluding = dialect.input_excludes_cache
        excludes_cache = (
            (excluding and (excluding == "any" or excluding in provider.lower()))
            or (input_from_text and "prompt_tokens" not in usage_text and CACHE_USAGE.search(usage_text))
            or (total is not None and total < (cache_read or 0) + (cache_write or 0))
        )
        cut_short = (
            streamed and not failed and not finish and dialect.finish != "unsaid"
            and (dialect.finish != "ok" or code != 1) and (dialect.finish != "langfuse" or not usage_text)
            and not FINISH_REASON.search(log_messages)
        )  # fmt: skip
        guessed = dialect.estimates == "streams" and streamed and cache_read is None and cache_write is None
        if dialect.absent == "zero" and total is not None:
            cache_read, cache_write, reasoning = cache_read or 0, cache_write or 0, reasoning or 0
        if dialect.zero == "unknown" and not total and not output:
            total = output = None
        elif operation == "embeddings" and total is not None:
            output = output or 0
        elif cut_short and output is not None and output <= 1:
            output = None
        gave_up = failed and CANCELLED.search(trouble) is not None
        if failed and not gave_up and not UNANSWERED.search(trouble):
            usage_source = "none"
            total = cache_read = write_5m = write_1h = output = reasoning = 0
        else:
            if total is None and output is None:
                usage_source = "missing"
            elif failed or cut_short or output is None:
                usage_source = "partial"
            else:
                usage_source = "estimated" if guessed else "provider"
            if total is not None and not excludes_cache:
                total -= (cache_read or 0) + (cache_write or 0)
            if cache_write is None:
                write_5m = write_1h = None
            else:
                write_1h = write_1h or 0
                write_5m = cache_write - write_1h
        if told_source in SOURCES:
            usage_source = told_source
        if reported_cost is not None:
            believed = 0 <= reported_cost <= 1e6 and (reported_cost or dialect.zero != "unknown")
            reported_cost = Decimal(round(reported_cost * 1e12)).scaleb(-12) if believed else None

        provider = (provider.partition(".")[0] if span_kind.startswith("ai.") else provider).lower()[:128]
        request_model = request_model or asked["model"] or response_model or answer["model"] or (named[2] if named else "")
        request_model, response_model = request_model[:256], (response_model or answer["model"])[:256]
        service_tier, response_id = service_tier.lower()[:64], response_id[:256]
        price_id, cost = self._cost(
            (provider, request_model, response_model, service_tier), begin, usage_source, total, cache_read, write_5m, write_1h, output,
            reasoning, audio_input, audio_output, image_input,
        )  # fmt: skip
        who = resource.who
        return (
            "call", 1, (tenant or resource.tenant or item.tenant) if item.operator else item.tenant,
            (customer or more["customer_id"] or more["customer"] or who[0])[:256], (feature or more["feature"] or who[1])[:256],
            (agent or who[2])[:256], (team or more["team"] or who[3])[:256], (user or more["user_id"] or who[4])[:256],
            (session or more["session_id"] or who[5])[:256], resource.service, resource.environment, tags, provider, request_model,
            response_model, operation, service_tier, streamed, "cancelled" if gave_up or cut_short else "error" if failed else "ok",
            trouble_type if trouble_type and ERROR_TYPE.fullmatch(trouble_type) else "", cache_hit[:64], total, cache_read, write_5m, write_1h,
            output, reasoning, audio_input, audio_output, image_input, usage_source, begin, end - begin, ttft_ns, ttft_kind, price_id, cost,
            reported_cost, trace_id, span_id, parent_id, response_id, zlib.crc32(response_id.encode()) if response_id else 0,
            resource.process, source.scope, source.layer, is_log, "",
        )  # fmt: skip

    def _cost(
        self, model, begin, usage_source, total, cache_read, write_5m, write_1h, output, reasoning, audio_in, audio_out, image_in
    ):
        """As schema/sql/cost.sql; rates are integers of 1e-24 USD."""
        history = self.prices.get(model)
        if history is None:
            history = self.prices[model] = self._history(model)
        unknown = total is None and output is None
        total, cache_read, write_5m, write_1h, output = total or 0, cache_read or 0, write_5m or 0, write_1h or 0, output or 0
        price_id, rates = "", None
        for valid_from, above, day_starts, price_ids, all_rates in history:
            if valid_from <= begin:
                if price_ids:
                    tier = 0
                    if above:
                        size = total + cache_read + write_5m + write_1h
                        tier = sum(bound < size for bound in above)
                    if day_starts:
                        tier += sum(bound <= begin // 10**9 % 86_400 for bound in day_starts) * (len(above) + 1)
                    price_id, rates = price_ids[tier], all_rates[tier]
                break
        if usage_source == "none":
            return price_id, ZERO
        if rates is None or unknown:
            return price_id, None
        usd = rates[9] + cache_read * rates[1] + write_5m * rates[2] + write_1h * rates[3]
        if reasoning or audio_in or audio_out or image_in:
            reasoning, audio_in, audio_out, image_in = reasoning or 0, audio_in or 0, audio_out or 0, image_in or 0
            usd += max(total - audio_in - image_in, 0) * rates[0] + max(output - reasoning - audio_out, 0) * rates[4]
            usd += min(reasoning, output) * rates[5] + min(audio_in, total) * rates[6]
            usd += min(audio_out, max(output - reasoning, 0)) * rates[7] + min(image_in, max(total - audio_in, 0)) * rates[8]
        else:
            usd += total * rates[0] + output * rates[4]
        usd = (usd + 5 * 10**11) // 10**12
        return price_id, Decimal(usd).scaleb(-12) if usd < 10**18 else None

    def _history(self, model):
        """A model's prices, the newest first."""
        rows = self.book.rows([Seen(*model)])
        self.new_prices += rows
        return [
            (
                int(row.valid_from.timestamp()) * 10**9, row.above, row.day_starts, row.price_ids,
                [[int(rate.scaleb(24)) for rate in row.rates[at * 10 : at * 10 + 10]] for at in range(len(row.price_ids))],
            )
            for row in reversed(rows)
        ]  # fmt: skip

    def _once(self, rows):
        """Rows to enter, each call once, and rows that take back what stands already."""
        for *process, scope, is_log in {(r[AT.tenant], r[AT.process], r[AT.scope], r[AT.is_log]) for r in rows}:
            self.scopes[tuple(process)].add((scope, is_log))
        mixed = [process for process in {(r[AT.tenant], r[AT.process]) for r in rows} if len(self.scopes[process]) > 1]
        near = self._near(rows, mixed)
        keys = [r[AT.response_key] for r in rows if r[AT.response_key]]
        traces = {r[AT.trace_id] for r in rows}
        if near:  # keys of answers are short: two answers may share one
            answers = {r[AT.response_id] for r in rows}
            near = [
                r
                for r in near
                if r[AT.trace_id] in traces or r[AT.response_id] in answers or (r[AT.tenant], r[AT.process]) in mixed
            ]
        if not near and not mixed and len(traces) == len(rows) and len(set(keys)) == len(keys):
            return rows, []
        standing = {identity(r): r for r in near if r[AT.entry] == "call"}
        new = {}
        for row in rows:
            if identity(row) not in standing:
                new.setdefault(identity(row), row)
        for row in near:
            if row[AT.entry] == "void":
                standing.pop(identity(row), None)
        verdict = judge(rival(row, stored) for row, stored in suspects(standing.values(), new.values()))
        entered = [
            row if heir is None else (*row[: WHO.start], *heir.who, *row[WHO.stop :])
            for name, row in new.items() if name not in verdict.lost for heir in [verdict.heirs.get(name)]
        ]  # fmt: skip
        return entered, [void(standing[name]) for name, stored in verdict.lost.items() if stored]

    def _near(self, rows, mixed):
        """Rows of the ledger of the same traces, answers or doubly metered processes, near in time."""
        times = [r[AT.started_at] for r in rows]
        self.client.command("TRUNCATE TABLE work.keys")
        self.client.insert(data=[[r[AT.trace_id] for r in rows], [r[AT.response_key] for r in rows]], context=self.into_keys)
        return self.client.query(
            f"""SELECT {", ".join(LEDGER)} FROM ledger PREWHERE tenant IN {{tenants:Array(String)}}
                AND started_at BETWEEN fromUnixTimestamp64Nano({{since:Int64}}) AND fromUnixTimestamp64Nano({{until:Int64}})
                AND (trace_id IN (SELECT trace_id FROM work.keys) OR response_key IN (SELECT response_key FROM work.keys WHERE response_key != 0)
                    OR (tenant, process) IN {{mixed:Array(Tuple(String, String))}})""",
            {
                "tenants": list({r[AT.tenant] for r in rows}), "mixed": mixed,
                "since": min(times) - WITHIN_NS, "until": max(times) + WITHIN_NS,
            },
            column_formats={"started_at": "int"},
        ).result_rows  # fmt: skip


EMPTY = defaultdict(str)
ZERO = Decimal(0)


def number(value, kind):
    """A number that isn't a plain integer; None where there is none."""
    match value.WhichOneof("value"):
        case "int_value":
            return value.int_value
        case "bool_value":
            return int(value.bool_value)
        case "double_value":
            held = value.double_value
        case "string_value":
            text = value.string_value.lower()
            try:
                held = float({"true": "1", "false": "0"}.get(text, text))
            except ValueError:
                return None
        case _:
            return None
    return int(held) if held.is_integer() else None if kind == COUNT else held


def read(text):
    """The values of a JSON object as texts; '' for those that aren't there."""
    try:
        held = json.loads(text) if text else None
    except ValueError:
        held = None
    texts = held.items() if isinstance(held, dict) else ()
    return defaultdict(str, {k: v if isinstance(v, str) else json.dumps(v) for k, v in texts if v is not None})


def count(usage_text, said):
    """Token counts that stand in a usage object where no attribute says them."""
    found = USAGE.findall(AUDIO.sub(lambda m: f"{m[1]}{'input' if m[1][0] in 'pi' else 'output'}_audio", usage_text))
    return [
        known if known is not None else next((int(value) for name, value in found if name in names), None)
        for known, names in zip(said, usage_names(), strict=True)
    ]


def instant_ns(text):
    return int(datetime.fromisoformat(text.strip('"')).timestamp() * 1e6) * 1000


def identity(row):
    return Identity(row[AT.tenant], row[AT.trace_id], row[AT.span_id])


def suspects(standing, new):
    """Of all these rows, with whether they are stored, those of which two might tell of one call; as schema/sql/suspects.sql."""
    rows = [(row, True) for row in standing] + [(row, False) for row in new]
    keys, spans, parents = Counter(), set(), set()
    traces, models = defaultdict(set), defaultdict(set)
    for row, _ in rows:
        keys[row[AT.response_key]] += row[AT.response_key] != 0
        spans.add(row[AT.span_id])
        parents.add(row[AT.parent_span_id])
        traces[row[AT.trace_id]].add((row[AT.scope], row[AT.service]))
        models[row[AT.process], model(row)].add((row[AT.scope], row[AT.is_log], row[AT.response_id] == ""))
    mixed = {
        group for group, told in models.items()
        if any(log for _, log, _ in told) or (len({scope for scope, *_ in told}) > 1 and any(unnamed for *_, unnamed in told))
    }  # fmt: skip
    return [
        (row, stored) for row, stored in rows
        if keys[row[AT.response_key]] > 1 or row[AT.parent_span_id] in spans or row[AT.span_id] in parents
        or len(traces[row[AT.trace_id]]) > 1 or (row[AT.process], model(row)) in mixed
    ]  # fmt: skip


def model(row):
    return row[AT.request_model].rpartition("/")[2].lower()


def rival(row, stored):
    uncached, read_, write_5m, write_1h, output, reasoning = row[AT.input_tokens : AT.reasoning_tokens + 1]
    return Rival(
        stored, identity(row), row[AT.parent_span_id], row[AT.response_id], row[AT.process], row[AT.service], row[AT.scope], row[AT.layer],
        bool(row[AT.is_log]), row[AT.started_at], row[AT.started_at] + row[AT.duration_ns], model(row),
        None if uncached is None else uncached + (read_ or 0) + (write_5m or 0) + (write_1h or 0), output, row[AT.usage_source],
        (read_ is not None) + (write_5m is not None) + (reasoning is not None) + 4 * bool(write_1h), tuple(row[WHO]),
        (row[AT.provider], row[AT.request_model], row[AT.response_model], row[AT.service_tier]),
    )  # fmt: skip


def void(row):
    """The entry that takes back a stored call."""
    taken = ["void", *row[1:-1], "another span tells of this call"]
    for place in AMOUNTS:
        taken[place] = None if taken[place] is None else -taken[place]
    return taken


def alone(request):
    """A request for each of its spans, the last first: a call is entered before a better span tells of it."""
    places = [
        (r, s, n)
        for r, rs in enumerate(request.resource_spans)
        for s, ss in enumerate(rs.scope_spans)
        for n in range(len(ss.spans))
    ]
    for r, s, n in reversed(places):
        outer, inner = request.resource_spans[r], request.resource_spans[r].scope_spans[s]
        one = ExportTraceServiceRequest()
        resource_spans = one.resource_spans.add(resource=outer.resource)
        resource_spans.scope_spans.add(scope=inner.scope, spans=[inner.spans[n]])
        yield one.SerializeToString()


def check() -> None:
    """Enter recordings and the benchmark's spans by both writers, and say by dialect how many rows are equal, and what isn't."""
    limits = checks.Limits()
    files = sorted((Path(__file__).parents[1] / "tests" / "spans").glob("*/*.json"))
    bodies = [json.dumps(json.loads(file.read_text(encoding="utf-8")).get("otlp")).encode() for file in files]
    whole = [checks.decode(body, checks.JSON, "", limits, checks.check_frame).data for body in bodies if b"resourceSpans" in body]
    payloads = [one for data in whole for one in alone(ExportTraceServiceRequest.FromString(data))]
    payloads += [*whole[::10], payload(2000, 0, time.time_ns())]  # by now nothing but the last is new
    names = [name for name in LEDGER if name != "response_key"]
    ledgers = []
    with tempfile.TemporaryDirectory() as data:
        for kind in (Writer, PythonRows):
            with open_store(Path(data) / kind.__name__) as store:
                migrate(store, 0)
                writer = kind(store, PriceBook())
                for body in payloads:
                    writer.write([Item(body, 1, "default", time.time_ns())])
                question = f"SELECT {', '.join(names)} FROM ledger"
                rows = store.client().query(question, column_formats={"started_at": "int"}).named_results()
                ledgers.append({(row["entry"], row["trace_id"], row["span_id"]): row for row in rows})
                assert len(ledgers[-1]) == len(store.client().query("SELECT 1 FROM ledger").result_rows), "entered twice"
    server, python = ledgers
    equal, rows, differ = Counter(), Counter(), defaultdict(Counter)
    for key in server.keys() | python.keys():
        one, other = server.get(key, {}), python.get(key, {})
        dialect = Source((one or other)["scope"]).dialect.dialect
        rows[dialect] += 1
        equal[dialect] += one == other
        differ[dialect].update(name for name in names if one.get(name) != other.get(name))
    print(f"{sum(entry == 'void' for entry, *_ in server)} entries of {len(server)} take others back")
    for dialect in rows:
        print(f"{dialect}: {equal[dialect]} of {rows[dialect]} rows equal in all columns", dict(differ[dialect]) or "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path, nargs="?")
    options.add_argument("--check", action="store_true")
    given = options.parse_args()
    if given.check:
        check()
        return
    if given.data is None:
        options.error("DATA or --check")
    server = import_module("tallystick.server.run")
    server.Writer, receiver.decode = PythonRows, decode
    gc.disable()
    server.run(Settings.load(data=given.data, port=0, grpc_port=0))


if __name__ == "__main__":
    main()
