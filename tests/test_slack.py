"""Slack, against a server that behaves as Slack does: blocks within its limits, its codes, its pace, threads."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.channels.http import Post
from tallystick.alerts.channels.layout import SLACK, Layout
from tallystick.alerts.channels.sample import FULL, SPARSE
from tallystick.alerts.channels.slack import MOST_SECTION, SlackBot, SlackWebhook, cut, payload, units
from tallystick.alerts.model import Driver, Forecast, Key, Kind, Measure, Message, Outlier, Period
from tallystick.testing import SlackServer, block_kit

LAYOUT = Layout("slack.j2", SLACK)
POST = Post(allow_private=True)


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer(least_s=0) as server:
        yield server


def webhook(server: SlackServer, post: Post = POST, url: str = "") -> SlackWebhook:
    return SlackWebhook("team", SecretStr(url or server.webhook_url), LAYOUT, post)


def bot(server: SlackServer, token: str = "xoxb-local", channel: str = "#alerts") -> SlackBot:
    return SlackBot("team", SecretStr(token), channel, LAYOUT, POST, api=server.api_url)


def send(channel: SlackWebhook | SlackBot, message: Message = FULL, thread: str | None = None) -> Sent:
    return channel.send(message, delivery_id="d1", thread=thread)


SHOWN = """\
acme: 80 % of 100.00 USD used this month
════════════════════════════════════════

Spend reached 80 % of the budget.

*Spent*  at least 80.40 of 100.00 USD (80.4 %)
*Period*  2026-03, 9 days left
*Forecast*  117.50 USD by the end of the period; 108.20 to 131.90 USD in 8 of 10 cases
*Burn rate*  1.2 times the plan
*Priced*  98.2 % of the tokens; what the others cost is not in the sum
*Scope*  customer acme
*Owners*  ana@example.com, platform team

*Top drivers, beside the same stretch of the last period*
• feature summaries: 46.12 USD, 57.4 %, up 34.82 USD from 11.30 USD
• agent researcher: 20.50 USD, 25.5 %, new
• model gpt-5-mini: 9.78 USD, 12.2 %, down 2.23 USD from 12.01 USD
• feature search: 0.0042 USD, < 0.1 %

*Unusual requests*
• 50,000 tokens where 2,000 are usual: gpt-5, 0.42 USD, 2026-03-22 13:58:09 UTC, trace 4bf92f3577b34da6a3ce929d0e0e4736

Spend by feature (https://tallystick.example/?customer=acme&by=feature)

```
SELECT feature, sum(cost_usd) AS cost
FROM charges
WHERE customer = 'acme' AND started_at >= '2026-03-01'
GROUP BY feature
```

warning · 2026-03-22 14:03 UTC · tallystick"""


def test_the_whole_message(slack: SlackServer) -> None:
    assert send(webhook(slack)) == Sent(None)
    (message,) = slack.messages
    assert message.show() == SHOWN
    assert message.text == "acme: 80 % of 100.00 USD used this month\nSpend reached 80 % of the budget."
    assert slack.statuses == [200]


def test_a_message_that_knows_little(slack: SlackServer) -> None:
    send(webhook(slack), SPARSE)
    assert [block["type"] for block in slack.messages[0].payload["blocks"]] == ["header", "section", "context"]


HOSTILE = "<!channel> <@U1> <https://evil.example|acme> *b* `c` ``` & &lt;!here&gt; \n\n```\nx\n\n:skull:"


def test_names_call_nobody_and_make_no_blocks(slack: SlackServer) -> None:
    named = replace(
        FULL,
        title=HOSTILE,
        reason=HOSTILE,
        scope={HOSTILE: HOSTILE},
        owners=(HOSTILE,),
        severity=HOSTILE,
        period=replace(FULL.period, label=HOSTILE) if FULL.period else None,
        drivers=(Driver(HOSTILE, HOSTILE, Decimal(1), None, Decimal(1)),),
        outliers=(replace(FULL.outliers[0], model=HOSTILE, trace_id=HOSTILE),),
        links={HOSTILE: "https://a.example/|<!channel>|x>"},
        sql=f"SELECT '{HOSTILE}'\n```\n<!channel>",
    )
    send(webhook(slack), named)
    send(webhook(slack), FULL)
    hostile, usual = slack.messages
    assert hostile.mentions == []
    assert len(hostile.payload["blocks"]) == len(usual.payload["blocks"])
    marked = [block["text"] for block in hostile.payload["blocks"] if block["type"] == "section"]
    assert all(text["verbatim"] for text in marked)
    *prose, code = [text["text"] for text in marked]
    assert "`" not in "".join(prose)
    assert (code[:4], code[-4:], code.count("```")) == ("```\n", "\n```", 2)
    assert [found.partition("|")[0] for found in re.findall(r"<([^>]*)>", "".join(prose))] == [
        "https://a.example/%7C&lt;!channel&gt;%7Cx&gt;"
    ]


finite = st.decimals(allow_nan=False, allow_infinity=False)
words = st.text(max_size=40) | st.sampled_from(
    ["", HOSTILE, "𝄞" * 5_000, "&" * 5_000, "`" * 4_000, "\n" * 300, "a b\n" * 3_000, "<" * 2_999]
)
moments = st.integers(946684800, 4102444800).map(lambda second: datetime.fromtimestamp(second, UTC))
messages = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    key=st.builds(Key, words, st.integers(), moments, words, words),
    title=words,
    reason=words,
    at=moments,
    severity=words,
    measure=st.sampled_from(Measure),
    amount=st.none() | finite,
    spent=st.none() | finite,
    percent=st.none() | finite,
    period=st.none() | st.builds(Period, moments, moments, words),
    forecast=st.none() | st.builds(Forecast, finite, finite, finite),
    burn=st.none() | finite,
    priced_share=st.none() | st.decimals(0, 1),
    scope=st.dictionaries(words, words, max_size=3),
    owners=st.lists(words, max_size=30).map(tuple),
    drivers=st.lists(st.builds(Driver, words, words, finite, st.none() | finite, finite), max_size=4).map(lambda some: tuple(some * 100)),
    outliers=st.lists(st.builds(Outlier, words, words, st.integers(), st.integers(), st.none() | finite, moments), max_size=2).map(
        lambda some: tuple(some * 100)
    ),
    links=st.dictionaries(words, words | st.just("https://a.example/" + "x" * 900), max_size=3),
    sql=words,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(messages)
def test_any_message_is_within_the_limits(message: Message) -> None:
    told = json.loads(json.dumps(payload(message, LAYOUT.render(message))))
    assert block_kit.errors(told["blocks"]) == []
    assert block_kit.code(told) is None
    assert block_kit.mentions(told) == []


@settings(max_examples=100, deadline=None)
@given(st.lists(words, max_size=120).map("\n\n".join))
def test_any_template_is_within_the_limits(rendered: str) -> None:
    """What users' templates give isn't escaped again, but it is cut."""
    assert block_kit.code(payload(SPARSE, rendered)) is None


@given(st.text(st.sampled_from("a𝄞&<>| \n;lt"), max_size=60), st.integers(0, 80))
def test_cut(text: str, most: int) -> None:
    kept = cut(SLACK.text(text), most)
    assert units(kept) <= most
    assert not re.search(r"&(?!amp;|lt;|gt;)", kept)


def test_more_than_50_blocks_are_cut() -> None:
    told = payload(SPARSE, "\n\n".join(f"paragraph {i}" for i in range(100)))
    assert len(told["blocks"]) == 50
    assert block_kit.code(told) is None
    assert "_The rest is too long for Slack._" in block_kit.show(told)


def test_what_is_too_long_is_said(slack: SlackServer) -> None:
    told = payload(SPARSE, "\n\n".join(["x" * 5_000] * 8))
    shown = block_kit.show(told)
    assert "_The rest is too long for Slack._" in shown
    assert units(told["blocks"][1]["text"]["text"]) <= MOST_SECTION


@pytest.mark.parametrize(
    ("status", "body", "wanted", "told"),
    [
        (400, "invalid_payload", Refused, "invalid_payload"),
        (403, "action_prohibited", Refused, "administrator"),
        (404, "channel_not_found", Refused, "doesn't exist"),
        (404, "no_service", Refused, "new incoming webhook"),
        (410, "channel_is_archived", Refused, "unarchive"),
        (404, "<html>no</html>", Refused, "web page"),
        (418, "Some words, https://a.example/secret", Refused, "418: check the URL"),
        (408, "", Retry, "408"),
        (429, "rate_limited", Retry, "429"),
        (500, "", Retry, "500"),
        (503, "<!doctype html><html>down</html>", Retry, "503, with a web page"),
    ],
)
def test_codes(slack: SlackServer, status: int, body: str, wanted: type[Exception], told: str) -> None:
    slack.fail(status, body=body)
    with pytest.raises(wanted, match=re.escape(told)) as error:
        send(webhook(slack))
    assert "secret" not in str(error.value)
    assert slack.messages == []


@pytest.mark.parametrize(
    ("told", "wait"),
    [
        ("30", 30),
        ("0", 0),
        ("999999999", 86_400),
        ("-1", None),
        ("1e999", None),
        ("nan", None),
        ("soon", None),
        (None, None),
        ("", None),
    ],
)
def test_retry_after(slack: SlackServer, told: str | None, wait: float | None) -> None:
    slack.fail(429, retry_after=told)
    with pytest.raises(Retry) as error:
        send(webhook(slack))
    assert error.value.after_s == wait


def test_retry_after_as_a_date(slack: SlackServer) -> None:
    slack.fail(503, retry_after="Fri, 01 Jan 2100 00:00:00 GMT")
    with pytest.raises(Retry) as error:
        send(webhook(slack))
    assert error.value.after_s == 86_400
    slack.fail(503, retry_after="Fri, 01 Jan 2010 00:00:00 GMT")
    with pytest.raises(Retry) as error:
        send(webhook(slack))
    assert error.value.after_s == 0


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end(slack: SlackServer, fault: str) -> None:
    getattr(slack, fault)()
    with pytest.raises(Retry, match=r"no answer within 0\.3 s"):
        send(webhook(slack, replace(POST, total_s=0.3)))


def test_a_resolver_that_does_not_come_to_an_end(slack: SlackServer) -> None:
    def slow(host: str, port: int) -> list[str]:
        slack.closing.wait()
        return ["127.0.0.1"]

    with pytest.raises(Retry, match="no answer"):
        send(webhook(slack, replace(POST, connect_s=0.2, resolve=slow)))


def test_no_server() -> None:
    with SlackServer() as slack:
        gone = webhook(slack)
    with pytest.raises(Retry, match="refused"):
        send(gone)


def test_a_redirect_is_not_followed(slack: SlackServer) -> None:
    for status in (301, 302, 307, 308):
        slack.redirect(slack.webhook_url, status=status)
        with pytest.raises(Refused, match="redirect"):
            send(webhook(slack))
    assert slack.messages == []


def test_a_page_is_no_answer(slack: SlackServer) -> None:
    slack.page()
    with pytest.raises(Refused, match="login page"):
        send(webhook(slack))


def test_an_answer_lost_is_sent_again(slack: SlackServer) -> None:
    slack.drop()
    with pytest.raises(Retry):
        send(webhook(slack))
    assert len(slack.messages) == 1


def test_the_pace() -> None:
    now = [100.0]
    with SlackServer(clock=lambda: now[0]) as slack:
        channel = webhook(slack)
        assert channel.interval_s == 1.0
        send(channel)
        now[0] += 0.4
        with pytest.raises(Retry) as error:
            send(channel)
        assert error.value.after_s == 1
        now[0] += 0.6
        send(channel)
        assert slack.statuses == [200, 429, 200]


def test_revoked(slack: SlackServer) -> None:
    slack.revoke("channel_is_archived")
    with pytest.raises(Refused, match="channel_is_archived"):
        send(webhook(slack))
    with pytest.raises(Refused, match="no_service"):
        send(webhook(slack, url=f"{slack.url}/services/T/B/other"))


def test_the_80_answers_under_the_50(slack: SlackServer) -> None:
    channel = bot(slack)
    first = send(channel, replace(FULL, severity="info"))
    assert first.thread == slack.messages[0].ts
    assert send(channel, FULL, first.thread) == first
    assert send(channel, replace(FULL, severity="info"), first.thread) == first
    assert [message.thread for message in slack.messages] == [None, first.thread, first.thread]
    assert [message.payload.get("reply_broadcast") for message in slack.messages] == [None, True, False]
    assert slack.show().count("│   acme: 80 %") == 2


def test_a_thread_that_was_deleted_starts_anew(slack: SlackServer) -> None:
    sent = send(bot(slack), FULL, "1700000000.000100")
    (message,) = slack.messages
    assert (message.thread, sent.thread) == (None, message.ts)


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ("ratelimited", Retry), ("internal_error", Retry), ("fatal_error", Retry), ("is_archived", Refused), ("missing_scope", Refused),
        ("not_in_channel", Refused), ("<script>", Refused),
    ],
)  # fmt: skip
def test_errors_of_the_web_api(slack: SlackServer, error: str, wanted: type[Exception]) -> None:
    slack.fail(200, body=json.dumps({"ok": False, "error": error}), retry_after="7")
    with pytest.raises(wanted) as raised:
        send(bot(slack))
    assert "<" not in str(raised.value)
    assert getattr(raised.value, "after_s", 7) == 7


def test_refused_by_the_web_api(slack: SlackServer) -> None:
    with pytest.raises(Refused, match=r"invalid_auth: install"):
        send(bot(slack, token="xoxb-old"))
    with pytest.raises(Refused, match=r"channel_not_found.*invite"):
        send(bot(slack, channel="#other"))
    slack.fail(200, body="nonsense")
    with pytest.raises(Retry, match="without JSON"):
        send(bot(slack))


def test_the_answer_repeats_the_message_and_is_read_whole(slack: SlackServer) -> None:
    long = replace(FULL, sql="é" * 2_000, reason="é" * 500, drivers=FULL.drivers * 3)
    assert send(bot(slack), long).thread == slack.messages[0].ts


def post(slack: SlackServer, body: object) -> tuple[int, str]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = httpx.post(slack.webhook_url, content=raw)
    return answer.status_code, answer.text


def section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "invalid_payload"), ([], "invalid_payload"), ({"text": 5}, "invalid_payload"), ({}, "no_text"), ({"text": ""}, "no_text"),
        ({"blocks": [section("x")] * 51}, "invalid_blocks"), ({"blocks": [section("x" * 3_001)]}, "invalid_blocks"),
        ({"blocks": [section("𝄞" * 1_501)]}, "invalid_blocks"), ({"blocks": [section("")]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]}, "invalid_blocks"),
        ({"blocks": [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2_001}]}]}, "invalid_blocks"),
        ({"blocks": [{"type": "section"}]}, "invalid_blocks"), ({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks"),
        ({"blocks": [{"type": "table_of_mine"}]}, "invalid_blocks"), ({"blocks": "x"}, "invalid_blocks"), ({"blocks": ["x"]}, "invalid_blocks"),
        ({"blocks": [section("x" * 3_000)] * 4}, "msg_blocks_too_long"), ({"text": "x" * 40_001}, "msg_too_long"),
    ],
)  # fmt: skip
def test_the_server_refuses_what_slack_refuses(slack: SlackServer, body: object, told: str) -> None:
    assert post(slack, body) == (400, told)
    assert slack.messages == []


def test_the_server_takes_what_slack_takes(slack: SlackServer) -> None:
    fields = {"type": "section", "fields": [{"type": "plain_text", "text": "x" * 100}] * 10}
    assert post(slack, {"blocks": [section("x" * 3_000), {"type": "divider"}, fields]}) == (200, "ok")
    assert post(slack, {"text": "<!here> <https://a.example|there> &amp;"}) == (200, "ok")
    assert slack.messages[1].mentions == ["!here"]
    assert slack.messages[1].show() == "@here there (https://a.example) &"


def test_a_template_of_ones_own(slack: SlackServer, tmp_path: Path) -> None:
    own = tmp_path / "team.j2"
    own.write_text("*{{ text.title }}* {{ message.scope.customer }}\n\n{{ text.links[0]|link if text.links }}")
    channel = replace(webhook(slack), layout=Layout("slack.j2", SLACK, user=None))
    with pytest.raises(ValueError, match="message that knows little"):
        Layout("slack.j2", SLACK, user=own)
    own.write_text(
        "*{{ text.title }}* {{ message.scope.get('customer', '') }}\n\n{% if text.links %}{{ text.links[0]|link }}{% endif %}"
    )
    channel.layout = Layout("slack.j2", SLACK, user=own)
    send(channel, replace(FULL, scope={"customer": "<!channel>"}))
    marked = [block["text"]["text"] for block in slack.messages[0].payload["blocks"] if block["type"] == "section"]
    assert marked == [
        "*acme: 80 % of 100.00 USD used this month* &lt;!channel&gt;",
        "<https://tallystick.example/?customer=acme&amp;by=feature|Spend by feature>",
    ]
