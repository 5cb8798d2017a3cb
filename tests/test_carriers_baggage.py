"""The baggage header, destinations and trust: pure decisions, over whatever strangers send."""

import string
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context

import tallystick
from tallystick.collectors.carriers import asgi, wsgi
from tallystick.collectors.carriers.baggage import MAX_ENTRIES, MAX_HEADER, MAX_VALUE, Headers, is_attribution, merge, read
from tallystick.collectors.carriers.destinations import Destinations, destinations, is_private, provider_hosts
from tallystick.collectors.carriers.incoming import INCOMING, trust
from tallystick.collectors.scope import attribution

OURS = st.sampled_from(["customer", "feature", "agent", "team", "user", "session", "tag.x", "tag.ü, y=;", "tag.1"])
ATTRIBUTES = st.dictionaries(OURS.map("tallystick.".__add__), st.text(max_size=300), max_size=9)


@given(ATTRIBUTES)
@example({"tallystick.customer": "\ud800", "tallystick.tag.x": "+%41 "})
def test_what_is_written_is_read(attributes: dict[str, str]) -> None:
    clean = {name: value[:MAX_VALUE].encode(errors="replace").decode() for name, value in attributes.items()}
    header = merge("", attributes)
    assert header.isascii()
    assert len(header) <= MAX_HEADER
    read_back = read(header)
    # Only what would make the header too long is left out.
    assert read_back.items() <= clean.items()
    if sum(len(quote(value)) for value in clean.values()) < MAX_HEADER // 2:
        assert read_back == clean
        # Others read the same, but for spaces around a value.
        others = attribution(W3CBaggagePropagator().extract({"baggage": header}, Context()))
        assert others == {name: value.strip() for name, value in clean.items()}


@given(st.text(max_size=400) | st.text(alphabet="tallystick.customer=,;% \udfff", max_size=400), ATTRIBUTES)
@example("tallystick.customer=a,tallystick.customer=b", {"tallystick.customer": "c"})
def test_what_others_wrote_stays_and_nothing_is_doubled(header: str, attributes: dict[str, str]) -> None:
    merged = merge(header, attributes)
    assert [part for part in header.split(",") if part.strip()] == merged.split(",")[
        : len([p for p in header.split(",") if p.strip()])
    ] or not merged
    assert merge(merged, attributes) == merged, "once is enough"


@given(st.binary(max_size=600) | st.text(max_size=200).map(lambda text: f"tallystick.customer={text}".encode("utf-8", "replace")))
@example(b"tallystick.customer=%FF%00%ED%A0%80")
@example(b"tallystick.tag.=1,tallystick.tag." + b"x" * 300 + b"=1")
def test_any_bytes_are_read_or_ignored(raw: bytes) -> None:
    """As a server of either kind gives them."""
    latin = raw.decode("latin-1")
    heads = (
        lambda: asgi.head({"headers": [(b"baggage", raw)], "path": latin, "query_string": raw, "client": (latin, 1)}),
        lambda: wsgi.head({"HTTP_BAGGAGE": latin, "PATH_INFO": latin, "QUERY_STRING": latin, "REMOTE_ADDR": latin}),
    )
    for head in heads:
        for name, value in INCOMING.of(head).items():
            assert is_attribution(name)
            assert len(value) <= MAX_VALUE
            value.encode()
            name.encode()
    with tallystick.scope.of([("baggage", raw)]) as scope, scope:
        assert all(map(is_attribution, attribution()))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", {}),
        (",;=,= ,tallystick.customer,tallystick.customer;a=b", {}),
        ("tallystick.customer=", {"tallystick.customer": ""}),
        (" tallystick.customer = a%20b ; p=1 , other=x", {"tallystick.customer": "a b"}),
        ("tallystick%2Ecustomer=a+b", {"tallystick.customer": "a b"}),
        ("tallystick.tenant=x,tallystick.cost=1,tallystick.tag.=x,Tallystick.Customer=x", {}),
        ("tallystick.customer=1,tallystick.customer=2", {"tallystick.customer": "2"}),
    ],
)
def test_reading(header: str, found: dict[str, str]) -> None:
    assert read(header) == found


def test_what_strangers_send_is_bounded() -> None:
    many = ",".join(f"tallystick.tag.{number}=x" for number in range(300))
    assert len(read(many)) == MAX_ENTRIES
    assert read(f"tallystick.customer={'x' * 5000}") == {"tallystick.customer": "x" * MAX_VALUE}
    # What is beyond the length isn't looked at, and nothing is cut within.
    long = f"tallystick.customer=a,{'x' * MAX_HEADER}=1,tallystick.team=b"
    assert read(long) == {"tallystick.customer": "a"}
    written = merge("", {f"tallystick.tag.{number}": "ü" * 256 for number in range(100)})
    assert len(written) <= MAX_HEADER
    assert len(merge("", {f"tallystick.tag.{number}": "" for number in range(100)}).split(",")) == MAX_ENTRIES


@pytest.mark.parametrize(
    "headers",
    [
        {"Baggage": "tallystick.customer=acme"},
        {b"baggage": b"tallystick.customer=acme"},
        [("x", b"1"), ("baggage", b"tallystick.team=t"), ("baggage", b"tallystick.customer=acme")],
        ((b"BAGGAGE", "tallystick.customer=acme"),),
    ],
)
def test_scope_of_headers(headers: object) -> None:
    with tallystick.scope(customer="outer", feature="f"), tallystick.scope.of(headers):  # type: ignore[arg-type]
        found = attribution()
        assert (found["tallystick.customer"], found["tallystick.feature"]) == ("acme", "f")
    nothings: tuple[Headers | None, ...] = (None, (), {}, [])
    for nothing in nothings:
        with tallystick.scope.of(nothing):
            assert attribution() == {}

    @tallystick.scope.of(headers)  # type: ignore[arg-type]
    def work() -> str:
        return attribution()["tallystick.customer"]

    assert work() == "acme"


OWN = ["localhost", "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.31.0.1", "192.168.1.1", "::1", "[::1]", "fd00::1", "::ffff:10.0.0.1",
       "answers", "my_service", "answers.default.svc", "answers.default.svc.cluster.local", "ip-10-0-0-1.ec2.internal", "printer.local.",
       "ANSWERS"]  # fmt: skip
STRANGERS = ["", ".", "example.com", "8.8.8.8", "172.32.0.1", "169.254.169.254", "2001:db8::1", "::ffff:8.8.8.8", "134744072", "0x8080808",
             "metadata.google.internal", "internal", "svc.example.com", "api.openai.com", "local.example.com", "10.0.0.1.example.com", "0",
             "fe80::1", "é.com", "a b", "[::1", "127.0.0.1.nip.io"]  # fmt: skip


@pytest.mark.parametrize("host", OWN)
def test_a_private_host_is_told(host: str) -> None:
    assert Destinations().include(host)
    assert not Destinations(private=False).include(host)


@pytest.mark.parametrize("host", [host for host in STRANGERS if host not in ("internal", "[::1")])
def test_a_strange_host_is_not(host: str) -> None:
    assert not Destinations().include(host)


@pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com", "API.OpenAI.com.", "api.anthropic.com", "acme.openai.azure.com",
    "bedrock-runtime.us-east-1.amazonaws.com", "generativelanguage.googleapis.com", "europe-west4-aiplatform.googleapis.com",
    "api.mistral.ai", "api.cohere.com", "openrouter.ai", "api.x.ai", "router.huggingface.co", "vpce-1.bedrock-runtime.vpce.amazonaws.com"])  # fmt: skip
def test_a_provider_is_told_nothing_whatever_the_settings_say(host: str) -> None:
    assert not destinations("*").include(host)
    assert not destinations(host).include(host)
    assert destinations("*").include("example.com")


def test_patterns() -> None:
    own = destinations("*.acme.io, api.example.com !vllm.internal,203.0.113.*")
    included = ["chat.acme.io", "a.b.acme.io", "api.example.com", "203.0.113.9", "other.internal", "localhost", "CHAT.acme.IO"]
    assert [host for host in included if not own.include(host)] == []
    left_out = ["acme.io", "acme.io.evil.com", "example.com", "vllm.internal", "203.0.114.9"]
    assert [host for host in left_out if own.include(host)] == []
    assert not destinations("off").anyone
    assert not destinations(" OFF ").include("localhost")
    assert not destinations("!localhost").include("localhost")


def test_a_pattern_that_is_none_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    own = destinations("https://first.example/path,second.example")
    assert own.include("second.example")
    assert not own.include("first.example")
    assert "'https://first.example/path' is no host name" in caplog.text


@given(st.text(max_size=60) | st.ip_addresses().map(str) | st.from_regex(r"[a-z0-9.-]{1,30}"))
def test_any_host_is_decided(host: str) -> None:
    decided = Destinations().include(host)
    assert decided == Destinations(["!other"]).include(host)
    assert not decided or is_private(host.lower().rstrip(".").strip("[]"))


def test_the_list_of_providers_is_what_it_says() -> None:
    assert len(provider_hosts()) == len(set(provider_hosts())) > 60
    assert all(set(pattern) <= set(string.ascii_lowercase + string.digits + "*.-") for pattern in provider_hosts())


@pytest.mark.parametrize(
    ("setting", "included", "left_out"),
    [
        ("all", ["8.8.8.8", "", None, "unix"], []),
        ("none", [], ["127.0.0.1", None, ""]),
        ("10.0.0.0/8,::1 192.0.2.7", ["10.9.9.9", "::1", "192.0.2.7", "::ffff:10.0.0.1"], ["11.0.0.1", "::2", None, "x"]),
    ],
)
def test_trust(setting: str, included: list[str | None], left_out: list[str | None]) -> None:
    found = trust(setting)
    assert [peer for peer in included if not found.includes(peer)] == []
    assert [peer for peer in left_out if found.includes(peer)] == []
    assert found.anybody == bool(included)


def test_trust_that_cannot_be_read_trusts_less(caplog: pytest.LogCaptureFixture) -> None:
    found = trust("10.0.0.0/8,gateway.internal")
    assert found.includes("10.0.0.1")
    assert "'gateway.internal' is neither" in caplog.text
    assert not trust("everyone").anybody
