"""The other channels, against real servers on loopback: what they send, what they make of an answer, and that no secret gets out."""

import base64
import io
import json
import logging
import socket
import socketserver
import ssl
import subprocess
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, TypeAdapter

from tallystick.alerts.channels import Channel, Refused, Retry, Sent, http
from tallystick.alerts.channels.email import Email
from tallystick.alerts.channels.incident import incident
from tallystick.alerts.channels.layout import HTML, MARKDOWN, PLAIN, BadTemplate, Layout, paragraphs
from tallystick.alerts.channels.open import BadChannel, channel_for
from tallystick.alerts.channels.sample import FULL, SPARSE
from tallystick.alerts.channels.slack import SlackBot
from tallystick.alerts.channels.stdout import Stdout
from tallystick.alerts.channels.teams import MOST_BYTES, card
from tallystick.alerts.channels.webhook import Body, Webhook, body, sign
from tallystick.alerts.config_channels import ChannelConfig
from tallystick.alerts.model import Kind, Message

CONFIG: TypeAdapter[Any] = TypeAdapter(ChannelConfig)
SECRET = "geheim0123456789geheim0123456789"


def channel(**config: object) -> Channel:
    return channel_for("team", CONFIG.validate_python(config), allow_private=True)


@dataclass
class Sink:
    """A web service that keeps what it gets and answers what it is told."""

    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int = 200
    body: str = ""
    url: str = ""


def serve(sink: Sink, context: ssl.SSLContext | None = None) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            sink.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, raw))
            self.send_response(sink.status)
            self.send_header("Location", f"{sink.url}/again")
            self.end_headers()
            self.wfile.write(sink.body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    sink.url = f"http://127.0.0.1:{server.server_address[1]}/hook/{SECRET}"
    return server


@pytest.fixture
def sink() -> Iterator[Sink]:
    kept = Sink()
    server = serve(kept)
    yield kept
    server.shutdown()
    server.server_close()


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its reference implementations."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("secret", "key"), [("whsec_" + base64.b64encode(b"k" * 24).decode(), b"k" * 24), ("plain words", b"plain words")]
)
def test_a_webhook_is_signed(sink: Sink, secret: str, key: bytes) -> None:
    hook = channel(type="webhook", url=sink.url, secret=secret)
    assert isinstance(hook, Webhook)
    hook.now = lambda: 1_774_188_180.9
    assert hook.send(FULL, delivery_id="dlv_1", thread=None) == Sent()
    (path, headers, raw) = sink.requests[0]
    assert path == f"/hook/{SECRET}"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("dlv_1", "1774188180")
    assert headers["webhook-signature"] == sign(key, "dlv_1", 1_774_188_180, raw)
    assert headers["content-type"] == "application/json"
    assert headers["host"] == sink.url.split("/")[2]


def test_the_body_is_the_documented_one(sink: Sink) -> None:
    channel(type="webhook", url=sink.url).send(FULL, delivery_id="d", thread=None)
    assert "webhook-signature" not in sink.requests[0][1]
    told = json.loads(sink.requests[0][2])
    assert (told["type"], told["version"], told["timestamp"]) == ("tallystick.alert.threshold", 1, "2026-03-22T14:03:00Z")
    data = told["data"]
    assert (data["amount"], data["spent"], data["percent"], data["priced_share"]) == ("100", "80.4", "80.4", "0.982")
    assert data["key"]["mark"] == "actual:80"
    assert data["drivers"][3] == {
        "dimension": "feature",
        "value": "search",
        "spent": "0.0042",
        "before": None,
        "share": "0.00005",
    }
    assert Body.model_validate(told).data.drivers[0].value == "summaries"


def test_the_body_tells_all_of_a_message() -> None:
    data = json.loads(body(SPARSE))["data"]
    assert set(data) | {"at"} == set(Message.__dataclass_fields__)
    assert data["spent"] is None


def test_decimals_have_no_exponent() -> None:
    assert json.loads(body(replace(FULL, amount=Decimal("1E+2"))))["data"]["amount"] == "100"
    assert json.loads(body(replace(FULL, amount=Decimal("1E-12"))))["data"]["amount"] == "0.000000000001"


def test_pagerduty_has_one_incident_for_a_budget_and_period(sink: Sink) -> None:
    sink.status = 202
    pager = channel(type="pagerduty", url=sink.url, routing_key=SECRET)
    pager.send(FULL, delivery_id="a", thread=None)
    pager.send(
        replace(FULL, key=replace(FULL.key, revision=2, mark="actual:100"), severity="critical"), delivery_id="b", thread=None
    )
    pager.send(replace(FULL, kind=Kind.RESOLVED), delivery_id="c", thread=None)
    first, second, resolved = (json.loads(raw) for _, _, raw in sink.requests)
    assert first["dedup_key"] == second["dedup_key"] == resolved["dedup_key"]
    assert [event["event_action"] for event in (first, second, resolved)] == ["trigger", "trigger", "resolve"]
    assert (first["payload"]["summary"], first["payload"]["severity"], second["payload"]["severity"]) == (
        FULL.title,
        "warning",
        "critical",
    )
    assert first["payload"]["custom_details"]["Spent"] == "at least 80.40 of 100.00 USD (80.4 %)"
    assert first["links"] == [{"href": "https://tallystick.example/?customer=acme&by=feature", "text": "Spend by feature"}]
    assert "payload" not in resolved
    sink.status = 400
    with pytest.raises(Refused, match="routing key"):
        pager.send(FULL, delivery_id="a", thread=None)


def test_incidents_differ_by_budget_period_and_value() -> None:
    key = FULL.key
    others = [
        replace(key, subject="b" * 500),
        replace(key, value="x"),
        replace(key, period_start=key.period_start + timedelta(days=31)),
    ]
    keys = {incident(one) for one in [key, *others, replace(key, subject="b" * 500 + "c")]}
    assert len(keys) == 5
    assert all(len(one) <= 255 and one.isascii() for one in keys)


def test_a_card_for_teams(sink: Sink) -> None:
    sink.status = 202
    hostile = "[click](https://evil.example) **b** <at>all</at> `c`"
    channel(type="teams", url=sink.url).send(replace(FULL, owners=(hostile,)), delivery_id="a", thread=None)
    (attachment,) = json.loads(sink.requests[0][2])["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    blocks = attachment["content"]["body"]
    assert blocks[0]["inlines"][0]["text"] == FULL.title
    facts = blocks[2]["text"]
    assert "- **Spent** at least 80.40 of 100.00 USD (80.4 %)" in facts
    assert r"\[click\](https://evil.example) \*\*b\*\* \<at\>all\</at\> \`c\`" in facts
    code = next(block for block in blocks if block.get("fontType") == "monospace")
    assert code["text"].startswith("SELECT feature, sum(cost_usd) AS cost\n\nFROM charges")


def test_a_card_is_cut_at_28_kb() -> None:
    told = card("t", "critical", "\n\n".join(f"{i} " + "é𝄞" * 500 for i in range(50)))
    assert len(told) <= MOST_BYTES
    blocks = json.loads(told)["attachments"][0]["content"]["body"]
    assert len(blocks) > 5
    assert blocks[-1]["text"] == "The rest is too long for a card."
    one = json.loads(card("t", "info", "x" * 100_000))["attachments"][0]["content"]["body"]
    assert [block.get("text") for block in one] == [None, "The rest is too long for a card."]


def test_connectors_of_teams_that_answer_200_for_failures(sink: Sink) -> None:
    teams = channel(type="teams", url=sink.url)
    sink.body = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429 with ContextId x"
    with pytest.raises(Retry):
        teams.send(FULL, delivery_id="a", thread=None)
    sink.body = "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 403"
    with pytest.raises(Refused, match="Teams"):
        teams.send(FULL, delivery_id="a", thread=None)


@pytest.mark.parametrize("kind", ["webhook", "teams", "pagerduty"])
@pytest.mark.parametrize(
    ("status", "wanted"), [(302, Refused), (401, Refused), (404, Refused), (413, Refused), (429, Retry), (502, Retry)]
)
def test_what_answers_mean(sink: Sink, kind: str, status: int, wanted: type[Exception]) -> None:
    sink.status = status
    config = {"routing_key": SECRET} if kind == "pagerduty" else {}
    with pytest.raises(wanted):
        channel(type=kind, url=sink.url, **config).send(FULL, delivery_id="a", thread=None)


STDOUT = """\
no-data: nothing has arrived for 20 minutes

No span has arrived since 13:43 UTC.

"""


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    channel(type="stdout").send(SPARSE, delivery_id="a", thread=None)
    assert capsys.readouterr().out == STDOUT
    stream = io.StringIO()
    Stdout("out", Layout("text.j2", PLAIN), stream).send(
        replace(FULL, scope={"customer": "\x1b[2Jacme"}), delivery_id="a", thread=None
    )
    assert "\x1b" not in stream.getvalue()
    assert "  feature summaries: 46.12 USD, 57.4 %, up 34.82 USD from 11.30 USD\n" in stream.getvalue()
    assert "\n\n\n" not in stream.getvalue()
    stream.close()
    with pytest.raises(Retry):
        Stdout("out", Layout("text.j2", PLAIN), stream).send(SPARSE, delivery_id="a", thread=None)


class Mailbox:
    """Keeps mail; `refuse` is what it answers instead, by recipient, or for the whole message."""

    def __init__(self) -> None:
        self.mails: list[tuple[list[str], bytes]] = []
        self.refuse: dict[str, str] = {}
        self.answer = "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            self.mails.append((list(envelope.rcpt_tos), envelope.content))
        return self.answer


@dataclass
class MailServer:
    box: Mailbox
    port: int
    trusted: ssl.SSLContext

    def channel(self, tls: str, **changed: Any) -> Email:
        config: dict[str, Any] = {"from": "tally@example.com", "to": ["ana@example.com", "ben@example.com"]}
        if tls != "none":
            config |= {"username": "ana", "password": SECRET}
        made = channel(type="email", host="localhost", port=self.port, tls=tls, **config)
        assert isinstance(made, Email)
        return replace(made, **{"trusted": lambda: self.trusted} | changed)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost and hooks.test, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,DNS:hooks.test", "-keyout", "key.pem", "-out", "certificate.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return both


def server_side(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(params=["none", "starttls", "tls"])
def mail(request: pytest.FixtureRequest, certificate: Path) -> Iterator[tuple[str, MailServer]]:
    box = Mailbox()

    def login(server: Any, session: Any, envelope: Any, mechanism: str, told: Any) -> AuthResult:
        return AuthResult(success=told.password == SECRET.encode(), handled=False)

    options: dict[str, Any] = {
        "none": {},
        "starttls": {"tls_context": server_side(certificate), "require_starttls": True},
        "tls": {"ssl_context": server_side(certificate), "auth_require_tls": False},
    }[request.param]
    if request.param != "none":
        options |= {"authenticator": login, "auth_required": request.param == "starttls"}
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(box, hostname="localhost", port=port, **options)
    controller.start()
    yield request.param, MailServer(box, port, ssl.create_default_context(cafile=str(certificate)))
    controller.stop()


def received(box: Mailbox) -> EmailMessage:
    found = message_from_bytes(box.mails[-1][1], policy=default)
    assert isinstance(found, EmailMessage)
    return found


def test_mail(mail: tuple[str, MailServer]) -> None:
    tls, server = mail
    ours = server.channel(tls)
    hostile = replace(FULL, title="acme\r\nBcc: all@example.com", owners=("<script>alert(1)</script>",))
    ours.send(hostile, delivery_id="d1", thread=None)
    ours.send(replace(hostile, key=replace(FULL.key, mark="actual:100")), delivery_id="d1", thread=None)
    first, second = (message_from_bytes(raw, policy=default) for _, raw in server.box.mails)
    told = received(server.box)
    assert server.box.mails[0][0] == ["ana@example.com", "ben@example.com"]
    assert (told["Subject"], told["Bcc"], told["From"]) == ("acme Bcc: all@example.com", None, "tallystick <tally@example.com>")
    assert first["Message-ID"] == second["Message-ID"]
    assert first["References"] == second["References"]
    assert told["List-Id"] == "tallystick alerts <team.tallystick.example.com>"
    text, html = told.get_body(("plain",)), told.get_body(("html",))
    assert text is not None
    assert html is not None
    assert "Spent: at least 80.40 of 100.00 USD (80.4 %)" in text.get_content()
    assert "&lt;script&gt;" in html.get_content()
    assert "<script>" not in html.get_content()


def test_mail_that_is_refused(mail: tuple[str, MailServer]) -> None:
    tls, server = mail
    ours = server.channel(tls)

    def outcome() -> Retry | Refused | None:
        try:
            ours.send(FULL, delivery_id="d", thread=None)
        except (Retry, Refused) as error:
            return error
        return None

    server.box.answer = f"451 later {SECRET}"
    assert isinstance(outcome(), Retry)
    server.box.answer = "554 no ana@example.com"
    assert str(outcome()) == "the mail server answered 554: it refused the message"
    server.box.answer = "250 OK"
    server.box.refuse = {"ana@example.com": "450 greylisted", "ben@example.com": "550 nobody"}
    assert isinstance(outcome(), Retry)
    server.box.refuse = {"ana@example.com": "550 nobody", "ben@example.com": "550 nobody"}
    assert isinstance(outcome(), Refused)
    server.box.refuse = {"ana@example.com": "450 greylisted"}
    assert isinstance(outcome(), Retry)
    server.box.refuse = {"ana@example.com": "550 nobody"}
    assert (
        str(outcome())
        == "1 of 2 recipients: the mail server answered 550: it doesn't take mail for this recipient, or from this sender"
    )
    assert len(server.box.mails) == 2


def test_mail_without_a_right_login_or_certificate(mail: tuple[str, MailServer]) -> None:
    tls, server = mail
    if tls == "none":
        with pytest.raises(Refused, match="STARTTLS"):
            server.channel("starttls").send(FULL, delivery_id="d", thread=None)
        return
    with pytest.raises(Refused, match="user name or the password"):
        server.channel(tls, password=SecretStr("wrong")).send(FULL, delivery_id="d", thread=None)
    with pytest.raises(Retry, match="certificate isn't valid: self-signed"):
        server.channel(tls, trusted=ssl.create_default_context).send(FULL, delivery_id="d", thread=None)
    assert server.box.mails == []


def test_a_mail_server_that_does_not_come_to_an_end() -> None:
    closing = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while not closing.wait(0.02):
                self.request.send(b"2")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        ours = MailServer(Mailbox(), server.server_address[1], ssl.create_default_context()).channel("none", total_s=0.3)
        with pytest.raises(Retry, match="cut off"):
            ours.send(FULL, delivery_id="d", thread=None)
        closing.set()
        server.shutdown()
    with pytest.raises(Retry, match="refused the connection"):
        ours.send(FULL, delivery_id="d", thread=None)


def test_tls_is_by_name_though_the_address_was_chosen(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr(http, "_trusted", lambda: trusted)
    names: list[str | None] = []
    context = server_side(certificate)
    context.sni_callback = lambda _, name, __: names.append(name)
    kept = Sink()
    server = serve(kept, context)
    port = server.server_address[1]
    post = http.Post(allow_private=True, resolve=lambda host, port: ["127.0.0.1"])
    assert post(f"https://hooks.test:{port}/x", b"{}", {}).status == 200
    assert names == ["hooks.test"]
    assert kept.requests[0][1]["host"] == f"hooks.test:{port}"
    with pytest.raises(Retry, match="certificate isn't valid: hostname mismatch"):
        post(f"https://other.test:{port}/x", b"{}", {})
    server.shutdown()
    server.server_close()


def test_an_answer_is_read_no_further_than_it_is_needed() -> None:
    closing = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "1000000000")
            self.end_headers()
            self.wfile.write(b"x" * 20_000)
            closing.wait()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        answer = http.Post(allow_private=True)(f"http://127.0.0.1:{server.server_address[1]}/", b"{}", {})
        assert answer.body == "x" * http.READ_AT_MOST
        closing.set()
        server.shutdown()


FAULTS = [
    (200, ""),
    (302, ""),
    (400, f"bad_payload {SECRET}"),
    (404, SECRET),
    (500, SECRET),
    (429, SECRET),
    (200, f"<html>{SECRET}</html>"),
]


@pytest.mark.parametrize(
    "config",
    [
        {"type": "slack", "url": "URL"}, {"type": "slack", "token": SECRET, "channel": "#a"}, {"type": "webhook", "url": "URL", "secret": SECRET},
        {"type": "teams", "url": "URL"}, {"type": "pagerduty", "url": "URL", "routing_key": SECRET},
        {"type": "email", "host": "localhost", "port": 9, "from": "a@b.example", "to": "c@d.example", "username": "u", "password": SECRET},
    ],
    ids=lambda config: config["type"],
)  # fmt: skip
def test_no_secret_gets_out(
    sink: Sink, config: dict[str, Any], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a repr, an error with its causes, a log, or on standard output, whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    made = channel(**{name: sink.url if value == "URL" else value for name, value in config.items()})
    if isinstance(made, SlackBot):
        made.api = sink.url.removesuffix(SECRET)
    told = [repr(made)]
    for sink.status, sink.body in FAULTS:
        try:
            made.send(FULL, delivery_id="d", thread=None)
        except (Retry, Refused) as error:
            told += ["".join(traceback.format_exception(error)).replace(__file__, ""), repr(error), *map(str, error.args)]
    assert len(told) > 1
    told += [caplog.text, *map(str, (record.args for record in caplog.records)), *capsys.readouterr()]
    assert "geheim" not in "".join(told)


@pytest.mark.parametrize(
    ("config", "field", "told"),
    [
        ({"type": "slack", "url": "http://127.0.0.1/geheim"}, "url", "TALLYSTICK_ALLOW_PRIVATE_WEBHOOKS=1"),
        ({"type": "webhook", "url": "https://geheim:geheim@a.example/"}, "url", "password"),
        ({"type": "webhook", "url": "http://2130706433/geheim"}, "url", "four decimal numbers"),
        ({"type": "teams", "url": "http://[::1]/geheim"}, "url", "private"),
        ({"type": "webhook", "url": "https://a.example/", "secret": "whsec_geheim01!"}, "secret", "base64"),
        ({"type": "email", "host": "a", "from": "Ana <a@b.example>", "to": "c@d.example"}, "from", "e-mail address"),
        ({"type": "email", "host": "a", "from": "a@b.example", "to": ["c@d.example", "e f@g.example"]}, "to", "e-mail address"),
        ({"type": "pagerduty", "routing_key": "geheim", "template": "x.j2"}, "template", "leave `template` out"),
        ({"type": "stdout", "template": "/nowhere/x.j2"}, "template", "No such file"),
    ],
)
def test_bad_channels(config: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(BadChannel, match=r".") as error:
        channel_for("team", CONFIG.validate_python(config), allow_private=False)
    assert error.value.field == field
    assert told in str(error.value)
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("{{ text.title }", "line 1"), ("ok\n{% if %}", "line 2"), ("{{ nobody }}", "no such name: nobody"), ("{% if 0 %}{{ other }}{% endif %}", "other"),
        ("a\nb\n{{ text.titel }}", "line 3"), ("{{ message.forecast.low }}", "knows little"), ("{{ 1/0 }}", "division"),
        ("{{ text.__class__.__mro__ }}", "unsafe"), ("{{ ''.__class__ }}", "unsafe"), ("{% for i in range(99999) %}0123456789{% endfor %}", "65,536"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"), ("   ", "gives nothing"), ("{% include '../secret' %}", "secret"),
        ("{% include '/etc/passwd' %}", "passwd"), ("{{ text.title|nosuch }}", "nosuch"),
    ],
)  # fmt: skip
def test_templates_are_tried_when_they_are_loaded(tmp_path: Path, source: str, told: str) -> None:
    own = tmp_path / "own.j2"
    own.write_text(source)
    with pytest.raises(BadTemplate) as error:
        Layout("text.j2", PLAIN, user=own)
    assert told in str(error.value)
    assert "own.j2" in str(error.value)


def test_a_template_that_fails_later_gives_the_usual_layout(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = tmp_path / "own.j2"
    own.write_text(
        "{{ text.title }}{% if message.scope.customer is defined and message.scope.customer == 'x' %}{{ 1/0 }}{% endif %}"
    )
    stream = io.StringIO()
    ours = Stdout("out", Layout("text.j2", PLAIN, user=own), stream)
    ours.send(FULL, delivery_id="d", thread=None)
    assert stream.getvalue() == f"{FULL.title}\n\n"
    for _ in range(2):
        ours.send(replace(FULL, scope={"customer": "x"}), delivery_id="d", thread=None)
    assert stream.getvalue().count("The template own.j2 failed (division by zero), so this is the usual layout.") == 2
    assert "Scope: customer x" in stream.getvalue()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_shipped_template_can_be_extended(tmp_path: Path) -> None:
    own = tmp_path / "own.j2"
    own.write_text(
        "{% extends 'text.j2' %}{% block sql %}Runbook: wiki{% endblock %}{% block reason %}{{ super() }}<&>{% endblock %}"
    )
    told = Layout("text.j2", PLAIN, user=own).render(FULL)
    assert "Runbook: wiki" in told
    assert "SELECT" not in told
    assert "Spend reached 80 % of the budget.\n<&>" in told
    html = tmp_path / "own.html.j2"
    html.write_text("{% extends 'email.html.j2' %}{% block reason %}{{ super() }}{% endblock %}")
    assert "<p>Spend &lt; 1</p>" in Layout("email.html.j2", HTML, user=html).render(replace(FULL, reason="Spend < 1"))


def test_mail_with_a_template_of_ones_own(tmp_path: Path) -> None:
    text, html = tmp_path / "own.j2", tmp_path / "own.html.j2"
    text.write_text("only {{ text.title }}")
    html.write_text("<b>{{ text.title }}</b>")
    config = {"type": "email", "host": "a", "from": "a@b.example", "to": "c@d.example"}
    plain, both = channel(**config, template=text), channel(**config, template=html)
    assert isinstance(plain, Email)
    assert isinstance(both, Email)
    mail = plain.compose(replace(FULL, title="<b>"), "d")
    assert (mail.get_content_type(), mail.get_content().strip()) == ("text/plain", "only <b>")
    body = both.compose(replace(FULL, title="<b>"), "d").get_body(("html",))
    assert body is not None
    assert body.get_content().strip() == "<b>&lt;b&gt;</b>"


def test_a_webhook_with_a_template_of_ones_own(sink: Sink, tmp_path: Path) -> None:
    own = tmp_path / "own.json.j2"
    own.write_text('{"title": "{{ text.title }}", "key": {{ message.key.subject|tojson }}}')
    hook = channel(type="webhook", url=sink.url, template=own)
    hook.send(replace(FULL, title='say "no" \\'), delivery_id="d", thread=None)
    assert json.loads(sink.requests[0][2]) == {"title": 'say "no" \\', "key": "acme"}
    own.write_text('{"title": "{{ text.title }}"{% if message.owners == ("x",) %},{% endif %}}')
    channel(type="webhook", url=sink.url, template=own).send(replace(FULL, owners=("x",)), delivery_id="d", thread=None)
    usual = json.loads(sink.requests[1][2])
    assert usual["data"]["owners"] == ["x"]
    assert usual["note"].startswith("The template own.json.j2 failed")
    own.write_text('{"title": {{ text.title }}}')
    with pytest.raises(BadChannel, match="template"):
        channel(type="webhook", url=sink.url, template=own)


def test_paragraphs() -> None:
    told = [(part.text, part.code) for part in paragraphs("a\nb\n\n \n```\nx\n\ny\n```\nc\n```\nopen")]
    assert told == [("a\nb", False), ("x\n\ny", True), ("c", False), ("open", True)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_markdown_and_html_hold_any_name(name: str) -> None:
    import html.parser

    tags: list[str] = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)

    usual = Layout("email.html.j2", HTML)
    Parser().feed(usual.render(replace(FULL, owners=("a",))))
    expected, tags = tags, []
    Parser().feed(usual.render(replace(FULL, owners=(name,))))
    assert tags == expected
    parts = list(paragraphs(Layout("teams.j2", MARKDOWN).render(replace(FULL, owners=(name,)))))
    assert len(parts) == len(list(paragraphs(Layout("teams.j2", MARKDOWN).render(FULL))))
