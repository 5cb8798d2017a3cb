"""Every way in which an engine fails, and what the record of the request says: the outcome, in words, with what was seen until then."""

import asyncio
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from odd_engine import DONE, Answer, Do, OddEngine, Script, chunk, event, refuse, stream, usage_chunk

from tallystick.probes.client.request import Request, open_session, send
from tallystick.probes.config import Timeouts
from tallystick.probes.records import GENERATED, Ask, Outcome, Record
from tallystick.probes.runs import EngineFacts

SECRET = "sk-do-not-tell"
PROMPT = "what nobody else may read"
BODY = b'{"model": "odd", "stream": true, "prompt": "' + PROMPT.encode() + b'"}'
SOON = Timeouts(first_token=1, between_tokens=0.3)
IN_TIME = Timeouts()
WELL = [chunk("", role="assistant"), chunk("a "), chunk("b ")]


async def sent(facts: EngineFacts, timeouts: Timeouts, body: bytes = BODY) -> Record:
    async with open_session() as session:
        return await send(session, facts, Ask(0, None, body, None, 5), time.perf_counter_ns(), timeouts=timeouts, key=SECRET)


def ask(script: Script, timeouts: Timeouts = IN_TIME) -> Record:
    with OddEngine(script) as engine:
        return asyncio.run(sent(engine.facts(), timeouts))


def tokens(record: Record) -> int:
    return sum(event.kind in GENERATED for event in record.events)


FAULTS: dict[str, tuple[Answer, Outcome, int | None, str, int]] = {
    # status, what is said, tokens that came before
    "429": (refuse(429, "slow down", Retry_After="2"), Outcome.REFUSED, 429, "status 429, Retry-After: 2: slow down", 0),
    "500": (refuse(500, "CUDA out of memory"), Outcome.REFUSED, 500, "status 500: CUDA out of memory", 0),
    "503 in HTML": (Answer([b"<h1>Busy</h1>"], 503, "text/html"), Outcome.REFUSED, 503, "status 503", 0),
    "an error that repeats the key": (refuse(401, f"wrong key {SECRET}"), Outcome.REFUSED, 401, "status 401: wrong key …", 0),
    "an error that never ends": (Answer([b"x" * 70_000, 30.0], 500), Outcome.REFUSED, 500, "status 500", 0),
    "an error that hangs": (Answer([b"{", Do.HANG], 500), Outcome.REFUSED, 500, "status 500", 0),
    "an error within the stream": (
        Answer([*WELL, event({"error": {"message": "KV cache is full", "code": 500}}), DONE]),
        Outcome.REFUSED, 200, "within the stream: KV cache is full", 2,
    ),
    "a redirection": (
        Answer([], 307, headers={"Location": "http://127.0.0.1:9/"}),
        Outcome.GARBAGE, 307, "answered with status 307, a redirection, which isn't followed", 0,
    ),
    "206": (Answer(WELL, 206), Outcome.GARBAGE, 206, "answered with status 206", 0),
    "hangs before headers": (Answer(before=[Do.HANG]), Outcome.TIMED_OUT, None, "no first token within 1 s", 0),
    "hangs before the first token": (Answer([WELL[0], Do.HANG]), Outcome.TIMED_OUT, 200, "no first token within 1 s", 0),
    "pings, and no first token": (Answer([b": ping\n\n", 0.05] * 400), Outcome.TIMED_OUT, 200, "no first token within 1 s", 0),
    "hangs between tokens": (Answer([*WELL, Do.HANG]), Outcome.TIMED_OUT, 200, "no further token within 0.3 s", 2),
    "dies before headers": (Answer(before=[Do.RESET]), Outcome.CUT_OFF, None, "the connection broke before an answer began: ", 0),
    "closes before headers": (Answer(before=[Do.CLOSE]), Outcome.CUT_OFF, None, "the connection broke before an answer began: ", 0),
    "dies in the stream": (Answer([*WELL, 0.1, Do.RESET]), Outcome.CUT_OFF, 200, "the connection broke within the answer: ", 2),
    "closes in the stream": (Answer([*WELL, Do.CLOSE]), Outcome.CUT_OFF, 200, "the connection broke within the answer: ", 2),
    "closes after the finish": (
        Answer([*WELL, chunk(finish="stop"), Do.CLOSE]), Outcome.CUT_OFF, 200, "the connection broke within the answer: ", 2,
    ),
    "closes after [DONE]": (Answer([*stream(2).steps, Do.CLOSE]), Outcome.OK, 200, "", 2),
    "ends without saying so": (Answer(WELL), Outcome.CUT_OFF, 200, "the stream ended before it said so", 2),
    "a [DONE] that isn't whole": (Answer([*WELL, b"data: [DONE]\n"]), Outcome.CUT_OFF, 200, "the stream ended before it said so", 2),
    "an empty stream": (Answer([]), Outcome.CUT_OFF, 200, "the stream ended before it said so", 0),
    "JSON, no stream": (
        Answer([b'{"choices": [{"message": {"content": "Hello"}}]}'], content_type="application/json"),
        Outcome.GARBAGE, 200, "answered with application/json, in which no chunk of a completion was", 0,
    ),
    "HTML": (
        Answer([b"<html>\r\n<body>", b"Welcome\n\n"], content_type="text/html"),
        Outcome.GARBAGE, 200, "answered with text/html, in which no chunk of a completion was", 0,
    ),
    "a stream of something else": (
        Answer([event({"response": "a"}), event({"response": "b"})]),
        Outcome.GARBAGE, 200, "answered with text/event-stream, in which no chunk of a completion was", 0,
    ),
    "invalid JSON": (Answer([*WELL, b'data: {"choices": [{\n\n', Do.HANG]), Outcome.GARBAGE, 200, "event 4 of the stream isn't JSON", 2),
    "no JSON object": (Answer([*WELL, event([1])]), Outcome.GARBAGE, 200, "event 4 of the stream is no JSON object", 2),
    "bytes": (Answer([b"data: \xff\xfe\x00\n\n"]), Outcome.GARBAGE, 200, "event 1 of the stream isn't JSON", 0),
    "an event without end": (
        Answer([*WELL, b"data: ", *[b"x" * 65_536] * 17]), Outcome.GARBAGE, 200, "an event of more than 1,048,576 bytes", 2,
    ),
    "no HTTP": (Answer([b"SSH-2.0-OpenSSH_9.6\r\n"], raw=True), Outcome.GARBAGE, None, "what came isn't HTTP", 0),
    "nothing generated": (stream(tokens=0), Outcome.EMPTY, 200, "ended well, and brought nothing", 0),
    "empty chunks": (
        Answer([chunk("", role="assistant"), chunk(""), chunk(""), chunk(finish="stop"), DONE]),
        Outcome.EMPTY, 200, "ended well, and brought nothing", 0,
    ),
    "[DONE] and nothing else": (Answer([DONE]), Outcome.EMPTY, 200, "ended well, and brought nothing", 0),
    "no usage": (stream(usage=False), Outcome.OK, 200, "", 5),
    "usage that counts wrongly": (stream(completion=500), Outcome.OK, 200, "", 5),
    "never [DONE]": (stream(done=False), Outcome.OK, 200, "", 5),
}  # fmt: skip


HANGING = {"an error that never ends", "an error that hangs"}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str) -> None:
    answer, outcome, status, words, came = FAULTS[fault]
    record = ask(answer, SOON if outcome is Outcome.TIMED_OUT or fault in HANGING else IN_TIME)
    assert (record.outcome, record.status, tokens(record)) == (outcome, status, came), record
    assert record.error.startswith(words)
    assert record.error == words or words.endswith(": ")
    assert record.sent_ns < record.ended_ns
    assert SECRET not in str(record)


def test_usage_is_kept_as_told() -> None:
    told = ask(stream(completion=500)).usage
    assert told is not None
    assert told.completion_tokens == 500
    assert ask(stream(usage=False)).usage is None


def test_not_ended_in_time() -> None:
    record = ask(Answer([chunk("a "), 0.05] * 400), Timeouts(first_token=1, between_tokens=5, whole=2))
    assert (record.outcome, record.error) == (Outcome.TIMED_OUT, "not ended within 2 s")
    assert tokens(record) > 0


def test_a_hang_between_tokens_is_not_held_to_the_limit_of_the_first() -> None:
    record = ask(Answer([*WELL, Do.HANG]), Timeouts(first_token=60, between_tokens=0.3))
    assert (record.outcome, record.error) == (Outcome.TIMED_OUT, "no further token within 0.3 s")
    assert record.ended_ns - record.sent_ns < 30_000_000_000


def test_tokens_that_come_slowly_but_in_time() -> None:
    """Each moves the limit between tokens, and none is held to the one of the first."""
    record = ask(stream(tokens=4, gap=0.5), Timeouts(first_token=1.2, between_tokens=1.2))
    assert (record.outcome, tokens(record)) == (Outcome.OK, 4)


def test_an_engine_that_reads_slowly() -> None:
    with OddEngine(unread_s=30) as engine:
        body = b'{"prompt": "' + b"x" * 20_000_000 + b'"}'
        record = asyncio.run(sent(engine.facts(), SOON, body))
    assert (record.outcome, record.error) == (Outcome.TIMED_OUT, "no first token within 1 s")


def test_unknown_fields() -> None:
    with OddEngine(fields=["model", "stream"]) as engine:
        record = asyncio.run(sent(engine.facts(), IN_TIME))
    assert (record.outcome, record.status) == (Outcome.REFUSED, 422)
    assert record.error == "status 422: body.prompt: Extra inputs are not permitted", "and not what was sent"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:9", "no connection to 127.0.0.1:9: Connection refused"),
        ("http://localhost:9", "no connection to localhost:9: "),
        ("http://127.0.0.1:99999", "the URL can't be used"),
    ],
)
def test_nobody_there(url: str, words: str) -> None:
    facts = EngineFacts("openai", url, "odd", "", "/v1/chat/completions", (), False, True, None, None)
    record = asyncio.run(sent(facts, IN_TIME))
    assert (record.outcome, record.status, record.headers_ns, record.events) == (Outcome.UNREACHABLE, None, None, ())
    assert record.error.startswith(words)


@pytest.mark.parametrize("certified", [False, True])
def test_https(certified: bool, tmp_path: Path) -> None:
    """Of a server that speaks none, and of one whose certificate nobody vouches for."""
    context = None
    if certified:
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        made = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=me", *made],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

    async def served() -> tuple[Record, int]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            facts = EngineFacts("openai", f"https://127.0.0.1:{port}", "odd", "", "/v1/x", (), False, True, None, None)
            return await sent(facts, Timeouts()), port

    record, port = asyncio.run(served())
    assert record.outcome is Outcome.UNREACHABLE
    if certified:
        assert record.error == "the certificate of 127.0.0.1 isn't valid"
    else:
        assert record.error.startswith(f"no connection to 127.0.0.1:{port}: ")


def test_nothing_is_tried_again() -> None:
    """Also not on a connection that was used before, which the engine closed meanwhile."""
    with OddEngine([stream(), Answer(before=[Do.CLOSE]), stream()]) as engine:

        async def three() -> list[Outcome]:
            async with open_session() as session:
                origin_ns = time.perf_counter_ns()
                return [
                    (
                        await send(session, engine.facts(), Ask(n, None, BODY, None, 5), origin_ns, timeouts=IN_TIME, key=None)
                    ).outcome
                    for n in range(3)
                ]

        assert asyncio.run(three()) == [Outcome.OK, Outcome.CUT_OFF, Outcome.OK]
    assert len(engine.seen) == 3


def test_called_off_in_the_midst_before_and_after() -> None:
    async def three(facts: EngineFacts) -> list[Record]:
        async with open_session() as session:
            requests = [
                Request(facts, Ask(n, None, BODY, None, 5), time.perf_counter_ns(), timeouts=Timeouts(), key=None, scheduled_ns=n)
                for n in range(3)
            ]
            requests[1].call_off()
            under_way = [asyncio.create_task(request.send(session)) for request in requests]
            while not under_way[2].done():
                await asyncio.sleep(0.01)
            requests[2].call_off()
            while tokens_of(requests[0]) < 2:
                await asyncio.sleep(0.01)
            requests[0].call_off()
            return await asyncio.gather(*under_way)

    def tokens_of(request: Request) -> int:
        return sum(event.kind in GENERATED for event in request._answer.events)

    with OddEngine(lambda seen: Answer([*WELL, Do.HANG]) if seen.number == 0 else stream()) as engine:
        midst, before, after = asyncio.run(three(engine.facts()))
    assert (midst.outcome, midst.error, tokens(midst), midst.scheduled_ns) == (Outcome.CANCELLED, "ended by the probe", 2, 0)
    assert (before.outcome, before.status, tokens(before)) == (Outcome.CANCELLED, None, 0)
    assert after.outcome is Outcome.OK
    assert len(engine.seen) == 2, "what was called off before it began isn't sent"


def test_the_cancellation_of_its_task_leaves_the_client() -> None:
    async def cancelled(facts: EngineFacts) -> bool:
        task = asyncio.create_task(sent(facts, Timeouts()))
        while not engine.seen:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,))
        return task.cancelled()

    with OddEngine(Answer([*WELL, Do.HANG])) as engine:
        assert asyncio.run(cancelled(engine.facts()))


def test_a_usage_after_which_the_connection_breaks() -> None:
    record = ask(Answer([*WELL, chunk(finish="stop"), usage_chunk(), Do.CLOSE]))
    assert record.outcome is Outcome.CUT_OFF
    assert record.usage is not None
