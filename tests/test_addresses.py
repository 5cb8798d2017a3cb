"""P13: a webhook reaches no private address, however it is written, and whatever its name leads to."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.alerts.channels import Refused, Retry
from tallystick.alerts.channels.addresses import BadAddress, check_url, permitted, resolve
from tallystick.alerts.channels.http import Post
from tallystick.testing import SlackServer

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::1", "2001::1", "2001:db8::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "3fff::1", "5f00::1", "not an address", "",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1",
    "3.64.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "198.20.0.1",
    "2606:4700::1111",
    "2a00:1450::1",
    "64:ff9b::101:101",
    "::ffff:1.1.1.1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not permitted(address, allow_private=False)
    assert permitted(address, allow_private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert permitted(address, allow_private=False)


@given(st.ip_addresses())
def test_never_more_than_python_lets_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if permitted(str(address), allow_private=False):
        assert not any(
            (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified)
        )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1/x", "private"), ("http://127.0.0.1./x", "private"), ("http://[::1]/x", "private"), ("http://localhost/x", "private"),
        ("https://a.LOCALHOST./x", "private"), ("http://[::ffff:169.254.169.254]/x", "private"), ("http://0x7f.1/x", "127.0.0.1"),
        ("http://2130706433/x", "127.0.0.1"), ("http://0177.0.0.1/x", ""), ("http://127.1/x", "127.0.0.1"),
        ("http://①②⑦.0.0.1/x", ""), ("http://127。0。0。1/x", ""), ("file:///etc/passwd", "https"), ("gopher://a.example/x", "https"),
        ("hooks.example/x", "https"), ("http:///x", "host"), ("https://user:geheim@a.example/x", "password"),
        ("https://geheim@127.0.0.1/x", "password"), ("https://a.example:99999/x", "port"), ("http://[::1/x", "URL"), ("", "https"),
        ("http://a.example%2f@127.0.0.1/x", ""), ("http://a b/x", ""),
    ],
)  # fmt: skip
def test_urls_are_refused_when_they_are_read(url: str, told: str) -> None:
    with pytest.raises(BadAddress) as error:
        check_url(url, allow_private=False)
    assert told in str(error.value)
    assert "geheim" not in str(error.value)
    assert "/x" not in str(error.value).replace("https://…", "")


def test_urls_that_are_let_through() -> None:
    assert check_url("https://hooks.example:8443/a?b=c", allow_private=False).host == "hooks.example"
    assert check_url("http://93.184.216.34/x", allow_private=False)
    assert check_url("http://127.0.0.1:8080/x", allow_private=True)
    with pytest.raises(BadAddress, match=r"127\.0\.0\.1"):
        check_url("http://2130706433/", allow_private=True)


def test_a_name_that_leads_to_a_private_address_is_found_when_connecting() -> None:
    with SlackServer() as slack:
        url = slack.webhook_url.replace("127.0.0.1", "hooks.example")
        with pytest.raises(Refused, match="private address"):
            Post(False, resolve=lambda host, port: ["127.0.0.1"])(url, b"{}", {})
        with pytest.raises(Refused, match="private address"):
            Post(False, resolve=lambda host, port: ["::ffff:127.0.0.1", "169.254.169.254"])(url, b"{}", {})
        assert slack.statuses == []
        assert Post(True, resolve=lambda host, port: ["127.0.0.1"])(url, b"{}", {}).code == "no_text"


def test_a_name_is_resolved_once() -> None:
    """An address that changes between the check and the connection, as in DNS rebinding, can't: the checked one is connected to."""
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) > 1 else ["240.0.0.1"]

    with pytest.raises(Refused):
        Post(False, resolve=rebinding)("http://rebind.example/x", b"{}", {})
    assert asked == ["rebind.example"]


def test_of_several_addresses_only_permitted_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        tried.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(Retry, match="refused"):
        Post(False, resolve=lambda host, port: ["127.0.0.1", "1.1.1.1", "10.0.0.1", "2606:4700::1111", "1.1.1.1"])(
            "http://a.example/", b"", {}
        )
    assert tried == [("1.1.1.1", 80), ("2606:4700::1111", 80)]


def test_odd_spellings_are_refused_also_when_connecting() -> None:
    """The system's resolver takes them."""
    assert resolve("127.1", 80) == ["127.0.0.1"]
    with pytest.raises(Refused):
        Post(False)("http://127.1/x", b"{}", {})


def test_a_second_address_is_tried() -> None:
    with SlackServer() as slack:
        url = slack.webhook_url.replace("127.0.0.1", "hooks.example")
        assert Post(True, resolve=lambda host, port: ["127.0.0.2", "::1", "127.0.0.1"])(url, b"{}", {}).status == 400
