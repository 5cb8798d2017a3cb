"""E-mail by SMTP, as text and as HTML. The mail server is the operator's own, so it may have a private address."""

import contextlib
import hashlib
import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Any, Final, Literal

from pydantic import SecretStr

from tallystick.alerts import figures
from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.channels.incident import incident
from tallystick.alerts.channels.layout import Layout
from tallystick.alerts.model import Message
from tallystick.alerts.text import TITLE

DO: Final = {
    530: "it wants a login or TLS first: set `username`, `password` and `tls`",
    535: "it refused the user name or the password",
    550: "it doesn't take mail for this recipient, or from this sender",
    552: "the message is too large for it",
    553: "it doesn't take this sender or recipient",
    554: "it refused the message",
}


@dataclass
class Email:
    """total_s: for all of a delivery, however slowly the server answers. trusted: whom certificates must be from."""

    name: str
    host: str
    port: int
    tls: Literal["starttls", "tls", "none"]
    sender: str
    to: tuple[str, ...]
    username: str | None
    password: SecretStr | None
    text: Layout
    html: Layout | None
    total_s: float = 10.0
    trusted: Callable[[], ssl.SSLContext] = ssl.create_default_context
    interval_s: float = 0.0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        mail = self.compose(message, delivery_id)
        try:
            with self._session() as smtp:
                refused = smtp.send_message(mail, self.sender, list(self.to))
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise _outcome(error) from None
        if refused:
            # Who got it drops the second copy by its Message-ID.
            raise _outcome(smtplib.SMTPRecipientsRefused(refused), f"{len(refused)} of {len(self.to)} recipients: ")
        return Sent()

    def compose(self, message: Message, delivery_id: str) -> EmailMessage:
        """Message-ID is stable over retries, References over the messages of a budget, period and value, which mail programs put together."""
        mail = EmailMessage(policy=SMTP_POLICY)
        domain = re.sub(r"[^A-Za-z0-9.-]", "-", self.sender.rpartition("@")[2])
        mail["Subject"] = figures.line(message.title, TITLE) or "tallystick"
        mail["From"] = Address("tallystick", addr_spec=self.sender)
        mail["To"] = [Address(addr_spec=address) for address in self.to]
        mail["Date"] = format_datetime(message.at)
        mail["Message-ID"] = f"<{_hash(delivery_id)}@{domain}>"
        mail["References"] = f"<{_hash(incident(message.key))}@{domain}>"
        mail["List-Id"] = f"tallystick alerts <{re.sub(r'[^a-z0-9-]+', '-', self.name.lower()) or 'alerts'}.tallystick.{domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Auto-Response-Suppress"] = "All"
        mail.set_content(self.text.render(message))
        if self.html is not None:
            mail.add_alternative(self.html.render(message), subtype="html")
        return mail

    @contextlib.contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        # With a name of its own, else smtplib asks the resolver for one, which may take long.
        us = socket.gethostname()
        if self.tls == "tls":
            smtp: smtplib.SMTP = _Smtps(self.host, self.port, us, timeout=self.total_s, context=self.trusted())
        else:
            smtp = _Bounded(self.host, self.port, us, timeout=self.total_s)
        try:
            if self.tls == "starttls":
                smtp.starttls(context=self.trusted())
            if self.username is not None and self.password is not None:
                smtp.login(self.username, self.password.get_secret_value())
            yield smtp
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
        finally:
            smtp.close()


class _Bounded(smtplib.SMTP):
    """Breaks off `timeout` seconds after it connected: smtplib's own timeout begins anew with every byte of a server that drips."""

    _watchdog: threading.Timer | None = None

    def connect(self, host: str = "localhost", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        self._watchdog = threading.Timer(self.timeout, self._break_off)
        self._watchdog.daemon = True
        self._watchdog.start()
        return super().connect(host, port, source_address)

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
        super().close()

    def _break_off(self) -> None:
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)


class _Smtps(_Bounded, smtplib.SMTP_SSL):
    pass


def _outcome(error: Exception, who: str = "") -> Retry | Refused:
    """By the reply's code: 4xx may pass, 5xx doesn't. The reply's text isn't told: it repeats addresses, and at a login worse."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            codes = sorted(code for code, _ in error.recipients.values())
            return _by_code(codes[0], who)
        case smtplib.SMTPResponseException():
            return _by_code(error.smtp_code, who)
        case smtplib.SMTPNotSupportedError():
            return Refused("the mail server doesn't offer STARTTLS, a login, or addresses beyond ASCII: check `port` and `tls`")
        case UnicodeError():
            return Refused("an address or the host name can't be written for SMTP")
    return Retry(f"no mail could be handed over: {_why(error)}")


def _why(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's TLS certificate isn't valid: {error.verify_message.partition(',')[0].lower()}"
        case ssl.SSLError():
            return "no TLS connection: check `port` and `tls`"
        case socket.gaierror():
            return "the server's name has no address"
        case ConnectionRefusedError():
            return "the server refused the connection"
        case smtplib.SMTPServerDisconnected() | TimeoutError():
            return "the server didn't answer in time, or broke off"
    return type(error).__name__


def _by_code(code: int, who: str) -> Retry | Refused:
    told = f"{who}the mail server answered {code}"
    if 500 <= code < 600:
        return Refused(f"{told}: {DO.get(code, 'it refused the message')}")
    return Retry(told if 400 <= code < 500 else f"{who}the mail server's answer was cut off, or isn't SMTP's")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
