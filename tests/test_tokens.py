"""Tokens: known answers of providers' documentation, any text at all, and what a machine without encodings gives."""

import base64
import os
import struct
import subprocess
import sys
import textwrap
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import vocabularies
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tallystick.collectors.tokens import Count, count_messages, count_request, count_text, encoders, estimate_text
from tallystick.collectors.tokens.families import DEFAULT, family
from tallystick.collectors.tokens.images import image_size, image_tokens

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((Path(__file__).parent / "texts").glob("*.txt"))}

ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Surrogates that stand alone included."""


@pytest.fixture(autouse=True, scope="module")
def local_encodings() -> Iterator[None]:
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(vocabularies.directory())
    encoders._loaded.clear()
    yield
    os.environ.pop("TIKTOKEN_CACHE_DIR")
    if before is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = before
    encoders._loaded.clear()


# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken: each figure there was told by the API, too.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    },
    {"role": "system", "name": "example_assistant", "content": "Let's talk later when we're less busy about how to do better."},
    {"role": "user", "content": "This late pivot means we don't have time to boil the ocean for the client deliverable."},
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
PARAMETERS = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        "unit": {"type": "string", "description": "The unit of temperature to return", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location"],
}
FUNCTION = {"name": "get_current_weather", "description": "Get the current weather in a given location", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("gpt-3.5-turbo", 129), ("gpt-4-0613", 129), ("gpt-4", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)],
)
def test_messages_as_openai_counts_them(model: str, tokens: int) -> None:
    found = count_messages(model, JARGON)
    assert found == Count(tokens, "tokenizer", family(model).encoding, "")


@pytest.mark.parametrize(("model", "tokens"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)])
def test_tools_as_openai_counts_them(model: str, tokens: int) -> None:
    assert count_messages(model, WEATHER, tools=[TOOL]) == Count(tokens, "tokenizer", family(model).encoding, "")
    # The Responses API has the same tool without the envelope.
    assert count_messages(model, WEATHER, tools=[{"type": "function", **FUNCTION}]).tokens == tokens


@pytest.mark.parametrize(
    ("system", "text", "tools", "told"),
    [
        # https://platform.claude.com/docs/en/build-with-claude/token-counting
        ("You are a scientist", "Hello, Claude", None, 14),
        (
            None,
            "What's the weather like in San Francisco?",
            [
                {
                    "name": "get_weather",
                    "description": "Get the current weather in a given location",
                    "input_schema": {
                        "type": "object",
                        "properties": {
                            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"}
                        },
                        "required": ["location"],
                    },
                }
            ],
            403,
        ),
    ],
)
def test_claude_is_an_estimate_near_the_examples_of_its_documentation(
    system: str | None, text: str, tools: list[Any] | None, told: int
) -> None:
    found = count_messages("claude-opus-4-8", [{"role": "user", "content": text}], tools, system)
    assert found.source == "estimate"
    assert "claude" in found.note
    assert told <= found.tokens <= told * 1.25


@pytest.mark.parametrize(
    ("model", "encoding", "own"),
    [
        ("gpt-5", "o200k_base", True),
        ("gpt-5.1-mini", "o200k_base", True),
        ("gpt-4.1-nano-2025-04-14", "o200k_base", True),
        ("gpt-4o-2024-08-06", "o200k_base", True),
        ("chatgpt-4o-latest", "o200k_base", True),
        ("o3-mini", "o200k_base", True),
        ("ft:gpt-4o-mini-2024-07-18:acme::abc123", "o200k_base", True),
        ("ft:gpt-3.5-turbo-0125:acme:suffix:id", "cl100k_base", True),
        ("openai/gpt-4o", "o200k_base", True),
        ("openrouter/openai/gpt-4", "cl100k_base", True),
        ("azure/gpt-35-turbo", "cl100k_base", True),
        ("prod-gpt-4o-eu", "o200k_base", True),
        ("my_gpt4o", "o200k_base", True),
        ("GPT-4o", "o200k_base", True),
        ("gpt-4-32k", "cl100k_base", True),
        ("text-embedding-3-large", "cl100k_base", True),
        ("openai.gpt-oss-120b-1:0", "o200k_harmony", True),
        ("text-davinci-003", "p50k_base", True),
        ("claude-opus-4-5-20251101", "o200k_base", False),
        ("us.anthropic.claude-opus-4-7-v1:0", "o200k_base", False),
        ("models/gemini-2.5-pro", "o200k_base", False),
        ("meta-llama/Llama-3.3-70B-Instruct", "cl100k_base", False),
        ("mistralai/Mistral-7B-Instruct-v0.3", "o200k_base", False),
        # Not known to any table: neither a gpt-4 nor an o1.
        ("gpt-4.9", DEFAULT, False),
        ("gpt-400", DEFAULT, False),
        ("o10", DEFAULT, False),
        ("", DEFAULT, False),
    ],
)
def test_the_encoding_of_a_model(model: str, encoding: str, own: bool) -> None:
    found = family(model)
    assert (found.encoding, found.factor is None) == (encoding, own)
    assert own or found.note


def test_the_table_agrees_with_tiktokens_own() -> None:
    from tiktoken.model import MODEL_PREFIX_TO_ENCODING, MODEL_TO_ENCODING

    for name, encoding in MODEL_TO_ENCODING.items():
        assert family(name).encoding == encoding, name
    for prefix, encoding in MODEL_PREFIX_TO_ENCODING.items():
        assert family(f"{prefix}-2031-01-01").encoding == encoding, prefix


def test_newer_claudes_count_more() -> None:
    older, newer = family("claude-opus-4-6").factor, family("claude-opus-4-7").factor
    assert older is not None
    assert newer is not None
    assert newer == pytest.approx(older * 1.3)


@settings(deadline=None)
@given(ANY_TEXT, st.sampled_from(["gpt-4o", "gpt-4", "claude-sonnet-4-5", "unheard-of"]))
def test_any_text_has_a_count(text: str, model: str) -> None:
    assert count_text(model, text).tokens >= bool(text)
    estimate = estimate_text(text)
    assert bool(text) <= estimate <= 8 * len(text)


@settings(deadline=None)
@given(ANY_TEXT, ANY_TEXT)
def test_parts_are_together_no_more_than_alone_but_for_the_seam(one: str, other: str) -> None:
    together, apart = (
        count_text("gpt-4o", one + other).tokens,
        count_text("gpt-4o", one).tokens + count_text("gpt-4o", other).tokens,
    )
    # Where the texts meet, two surrogates may become one character, and a word be cut in another place.
    assert together <= apart + 8
    assert len(one + other) == 0 or together >= 1


def test_what_looks_like_a_special_token_is_text() -> None:
    assert count_text("gpt-4o", "<|endoftext|>").tokens > 1
    assert count_text("gpt-oss-20b", "<|start|>").tokens > 1


@pytest.mark.parametrize("text", [" " * 1_000_000, "a" * 300_000, "\n" * 300_000, "word " * 60_000, "\ud800" * 100_000])
def test_long_texts_are_counted_in_pieces(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """tiktoken itself panics on a million spaces, which no `except Exception` catches."""
    assert 0 < count_text("gpt-4o", text).tokens <= 8 * len(text)
    assert estimate_text(text) > 0
    assert capfd.readouterr().err == ""


def test_pieces_of_a_long_text_add_up_to_the_whole() -> None:
    import tiktoken

    text = "\n".join(TEXTS.values()) * 60
    assert len(text) > 3 * encoders.LONGEST
    for name in ("o200k_base", "cl100k_base"):
        whole = len(tiktoken.get_encoding(name).encode_ordinary(text))
        counted = encoders.encoder(name)
        assert not isinstance(counted, str)
        assert counted(text) == whole


@pytest.mark.parametrize("kind", TEXTS)
def test_the_estimate_is_as_near_as_documented(kind: str) -> None:
    """docs/tokens.md has the figures for more and longer texts: `python benchmarks/token_estimates.py`."""
    truth = count_text("gpt-4o", TEXTS[kind])
    assert truth.source == "tokenizer"
    assert estimate_text(TEXTS[kind]) == pytest.approx(truth.tokens, rel=0.15)
    # A long text is looked at in windows.
    assert estimate_text(TEXTS[kind] * 400) == pytest.approx(400 * truth.tokens, rel=0.18)


# Images


def png(width: int, height: int) -> str:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    ).decode()


JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xc4\x00\x04\x00\x00\xff\xc0\x00\x11\x08"
    + struct.pack(">HH", 600, 800)
)
GIF = b"GIF89a" + struct.pack("<HH", 320, 200)
WEBP = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (1023).to_bytes(3, "little") + (511).to_bytes(3, "little")
WEBP_LOSSY = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480)
WEBP_LOSSLESS = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + ((299 << 14) | 399).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (JPEG, (800, 600)),
        (GIF, (320, 200)),
        (WEBP, (1024, 512)),
        (WEBP_LOSSY, (640, 480)),
        (WEBP_LOSSLESS, (400, 300)),
        (b"BM", None),
    ],
)
def test_the_size_of_an_image_is_read_from_its_head(head: bytes, size: tuple[int, int] | None) -> None:
    encoded = base64.b64encode(head).decode()
    assert image_size(encoded) == size
    assert image_size(f"data:image/x;base64,{encoded}") == size


@settings(deadline=None)
@given(st.binary(max_size=64), st.sampled_from([b"", b"\x89PNG", b"GIF8", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff\xc0"]))
def test_any_bytes_may_be_called_an_image(rest: bytes, start: bytes) -> None:
    image_size(base64.b64encode(start + rest).decode())
    image_size(rest.decode("latin-1"))


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        # The examples of https://platform.openai.com/docs/guides/images-vision
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4.1-mini", (1024, 1024), "auto", 1659),  # 1,024 patches × 1.62
        ("gpt-4.1-mini", (1800, 2400), "auto", 2353),  # scaled down to 1,452
        ("gpt-5", (512, 512), "auto", 210),
        # The table of https://platform.claude.com/docs/en/build-with-claude/vision
        ("claude-sonnet-4-5", (1000, 1000), "auto", 1296),
        ("claude-sonnet-4-5", (4000, 4000), "auto", 1568),
        ("claude-opus-4-7", (4000, 4000), "auto", 4784),
        ("gemini-2.5-flash", (384, 384), "auto", 258),
        ("gemini-2.5-flash", (960, 540), "auto", 6 * 258),
        # Nothing is published, or was when this was written.
        ("gpt-5.9", (100, 100), "auto", None),
        ("llama-4", (100, 100), "auto", None),
        ("gpt-4o", (0, 100), "auto", None),
    ],
)
def test_images_by_the_published_formulas(model: str, size: tuple[int, int], detail: str, tokens: int | None) -> None:
    assert image_tokens(model, *size, detail) == tokens


@settings(deadline=None)
@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from(["gpt-4o", "gpt-5-mini", "claude-opus-5", "claude-3", "gemini-3"]),
)
def test_any_size_has_a_bounded_count(width: int, height: int, model: str) -> None:
    found = image_tokens(model, width, height)
    assert found is not None
    assert found >= 1
    if not model.startswith("gemini"):
        assert found <= 5_000


# Forms of requests


def shown(url: str, detail: str = "auto") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": detail}}


def test_an_image_in_a_message() -> None:
    text = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}]}]
    bare = count_messages("gpt-4o", text)
    data = f"data:image/png;base64,{png(1024, 1024)}"
    with_image = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, shown(data)]}]
    assert count_messages("gpt-4o", with_image) == Count(bare.tokens + 765, "tokenizer", "o200k_base", "")
    far = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, shown("https://pictures.example/1.png")]}]
    assert count_messages("gpt-4o", far).tokens == bare.tokens + 765
    assert "1024" in count_messages("gpt-4o", far).note
    unheard = count_messages("llama-3", with_image)
    assert "without 1 of unknown size: image" in unheard.note


SAME: list[Any] = [
    # One text in every provider's form.
    [{"role": "user", "content": "How deep is the sea?"}],
    [{"role": "user", "content": [{"type": "text", "text": "How deep is the sea?"}]}],
    [{"role": "user", "content": [{"type": "input_text", "text": "How deep is the sea?"}]}],
    [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "How deep is the sea?"}]}],
    [{"role": "user", "parts": [{"text": "How deep is the sea?"}]}],
    [{"role": "user", "content": [{"text": "How deep is the sea?"}]}],
    ["How deep is the sea?"],
    "How deep is the sea?",
]


@pytest.mark.parametrize("messages", SAME, ids=repr)
def test_one_text_counts_alike_in_every_form(messages: object) -> None:
    assert count_messages("gpt-4o", messages) == Count(3 + 1 + 6 + 3, "tokenizer", "o200k_base", "")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": SAME[0], "tools": [TOOL], "stream": True},
        {"input": SAME[-1], "tools": [{"type": "function", **FUNCTION}]},
        {"contents": SAME[4], "config": {"tools": [{"function_declarations": [FUNCTION]}]}},
        {
            "messages": SAME[5],
            "toolConfig": {"tools": [{"toolSpec": {**FUNCTION, "inputSchema": {"json": PARAMETERS}}}]},
        },
        {
            "messages": SAME[1],
            "tools": [{"name": FUNCTION["name"], "description": FUNCTION["description"], "input_schema": PARAMETERS}],
        },
    ],
)
def test_one_request_counts_alike_in_every_form(body: dict[str, Any]) -> None:
    assert count_request("gpt-4o", body) == count_messages("gpt-4o", SAME[0], [TOOL])


def test_system_and_instructions_are_a_message() -> None:
    whole = count_messages("gpt-4o", [{"role": "system", "content": "Be brief."}, *SAME[0]])
    assert count_request("gpt-4o", {"input": "How deep is the sea?", "instructions": "Be brief."}) == whole
    assert count_request("gpt-4o", {"system": [{"type": "text", "text": "Be brief."}], "messages": SAME[0]}) == whole


def test_what_is_embedded_is_text_alone() -> None:
    assert count_request("text-embedding-3-small", {"input": "hello"}, "embeddings").tokens == 1
    assert count_request("text-embedding-3-small", {"input": ["hello", "hello"]}, "embeddings").tokens == 2
    assert count_request("text-embedding-3-small", {"input": [[1, 2, 3], [4]]}, "embeddings").tokens == 4
    assert count_request("davinci-002", {"prompt": "hello"}, "text_completion").tokens == 1


def test_calls_of_tools_count_and_are_said_to_be_guessed() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_current_weather", "arguments": '{"location": "Oslo"}'}}
    chat = [
        *WEATHER,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "3 degrees"},
    ]
    found = count_messages("gpt-4o", chat)
    assert found.source == "estimate"
    assert "isn't published" in found.note
    assert found.tokens > count_messages("gpt-4o", WEATHER).tokens + 10
    claude = [
        {"role": "assistant", "content": [{"type": "tool_use", "name": "get_current_weather", "input": {"location": "Oslo"}}]},
        {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "3 degrees"}]}]},
    ]
    responses = [
        {"type": "function_call", "name": "get_current_weather", "arguments": '{"location": "Oslo"}'},
        {"type": "function_call_output", "output": "3 degrees"},
    ]
    counts = [count_messages("gpt-4o", form).tokens for form in (chat[2:], claude, responses)]
    assert max(counts) - min(counts) <= 2


def test_answers_of_client_libraries_are_messages() -> None:
    from openai.types.chat import ChatCompletionMessage

    message = ChatCompletionMessage(role="assistant", content="How deep is the sea?")
    assert (
        count_messages("gpt-4o", [message]).tokens
        == count_messages("gpt-4o", [{"role": "assistant", "content": "How deep is the sea?"}]).tokens
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["role", "content", "type", "text", "name", "tool_calls", "function", "arguments", "input", "image_url", "source", "parts", "data",
         "parameters", "properties", "enum", "items", "anyOf", "inputSchema", "toolResult", "description", "detail", "url"]
    ) | st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(JSON, JSON, JSON)
@example([{"type": []}], [{"name": [], "function": {}}], {"type": {}})
def test_any_request_has_a_count(messages: object, tools: object, system: object) -> None:
    """What makes no sense to us may make sense to the provider: it must not fail here."""
    assert count_messages("gpt-4o", messages, tools, system).tokens >= 0
    assert count_request("claude-3", {"messages": messages, "tools": tools, "system": system, "config": system}).tokens >= 0
    assert count_request("x", {"input": messages}, "embeddings").tokens >= 0


def test_what_cannot_be_counted_is_said() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    found = count_messages("gpt-4o", [{"role": "user", "content": [{"type": "text", "text": "Listen"}, audio, audio]}])
    assert found.source == "estimate"
    assert "without 2 of unknown size: input_audio" in found.note
    assert "int" in count_messages("gpt-4o", 5).note


def test_a_schema_may_hold_itself() -> None:
    nested: dict[str, Any] = {"type": "object", "properties": {}}
    nested["properties"]["child"] = nested
    assert count_messages("gpt-4o", "x", [{"type": "function", "name": "f", "parameters": nested}]).tokens > 0


# Encodings, and where they come from


def python(script: str, *args: str, **env: str) -> str:
    """What a process of its own prints that has no encodings, and to which every connection fails."""
    silent = """
        import socket, sys
        def refused(*args, **kwargs):
            print("NETWORK", file=sys.stderr)
            raise OSError("no network")
        socket.socket.connect = socket.getaddrinfo = refused
    """
    clean = {name: value for name, value in os.environ.items() if name not in {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"}}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(silent) + textwrap.dedent(script), *args],
        env={**clean, "TALLYSTICK_STRICT": "1", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


COUNT = """
    from tallystick.collectors.tokens import count_text
    found = count_text("gpt-4o", "How deep is the sea?")
    print(found.tokens, found.source, found.encoding, found.note)
"""


def test_without_encodings_there_is_an_estimate(tmp_path: Path) -> None:
    assert python(COUNT, TMPDIR=str(tmp_path)).startswith(
        "6 estimate None counted from its characters: o200k_base isn't on this machine"
    )
    # A cache that is switched off makes tiktoken download each time.
    assert python(COUNT, TMPDIR=str(tmp_path), TIKTOKEN_CACHE_DIR="").startswith("6 estimate None")


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"])
def test_tiktokens_caches_are_used(variable: str, tmp_path: Path) -> None:
    assert python(COUNT, TMPDIR=str(tmp_path), **{variable: str(vocabularies.directory())}) == "6 tokenizer o200k_base \n"


def test_its_default_cache_is_used(tmp_path: Path) -> None:
    (tmp_path / "data-gym-cache").symlink_to(vocabularies.directory())
    assert python(COUNT, TMPDIR=str(tmp_path)) == "6 tokenizer o200k_base \n"


def test_a_package_that_carries_encodings_is_found_and_not_imported(tmp_path: Path) -> None:
    script = f"{COUNT}\n    print(sorted(name for name in sys.modules if name.startswith(('llama_index', 'litellm'))))"
    assert python(script, TMPDIR=str(tmp_path), PYTHONPATH=str(vocabularies.site())) == "6 tokenizer o200k_base \n[]\n"


def test_a_damaged_file_is_no_encoding(tmp_path: Path) -> None:
    for file in vocabularies.directory().iterdir():
        if len(file.name) == 40:
            (tmp_path / file.name).write_bytes(file.read_bytes()[:-100])
    assert python(COUNT, TMPDIR=str(tmp_path / "none"), TIKTOKEN_CACHE_DIR=str(tmp_path)).startswith("6 estimate")
    assert len([file for file in tmp_path.iterdir() if len(file.name) == 40]) >= 2, "not ours to delete"


def test_without_tiktoken_there_is_an_estimate() -> None:
    script = f"""
        sys.modules["tiktoken"] = None
        {textwrap.indent(textwrap.dedent(COUNT), " " * 8).strip()}
    """
    assert "pip install 'tallystick[tokens]'" in python(script)


def test_the_applications_own_encoding_is_shared() -> None:
    script = """
        import tiktoken
        tiktoken.get_encoding("o200k_base")
        import os
        os.environ["TIKTOKEN_CACHE_DIR"] = "/nowhere"
        from tallystick.collectors.tokens import count_text
        print(count_text("gpt-4o", "How deep is the sea?").source)
    """
    assert python(script, TIKTOKEN_CACHE_DIR=str(vocabularies.directory())) == "tokenizer\n"


def test_importing_costs_nothing() -> None:
    script = """
        import tallystick, tallystick.collectors.tokens
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"tiktoken", "regex", "genai_prices", "pydantic", "requests"}))
    """
    assert python(script) == "[]\n"


def test_a_failure_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []

    def fail(name: str) -> Any:
        loads.append(name)
        raise LookupError(name)

    monkeypatch.setattr(encoders, "_loaded", {})
    monkeypatch.setattr(encoders, "_parts", fail)
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})
    threads = [threading.Thread(target=count_text, args=("gpt-4o", "x")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["o200k_base"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_of_a_fork_is_not_held_up_by_a_load_in_its_parent() -> None:
    script = """
        import os
        from tallystick.collectors.tokens import count_text, encoders
        with encoders._loading:
            child = os.fork()
            if child == 0:
                os._exit(0 if count_text("gpt-4o", "x").tokens == 1 else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert python(script) == "0\n"


def test_the_tables_name_their_sources() -> None:
    import csv
    from importlib.resources import files

    for name in ("encodings.csv", "images.csv"):
        rows = list(csv.DictReader(files("tallystick.collectors.tokens").joinpath(name).read_text(encoding="utf-8").splitlines()))
        assert all(row["source"] for row in rows)
        assert len({row["prefix"] for row in rows}) == len(rows)
