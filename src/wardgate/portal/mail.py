"""Mail: handed to the SMTP server that the settings name."""

from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from wardgate.errors import SettingError, WardgateError

TIMEOUT_S: Final = 10.0
_PORTS: Final = {"smtp": 587, "smtps": 465}


class MailNotSent(WardgateError):
    """The mail server did not take a mail."""


class Mailer(Protocol):
    """Sends mail."""

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hands one mail over.

        Raises:
            MailNotSent: The server is not there, or does not take it.
        """


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """Hands each mail to one server, with TLS whenever the server has it.

    Attributes:
        host, port: Where it listens.
        is_tls: Whether the connection begins with TLS, as for `smtps`.
    """

    host: str
    port: int
    sender: str
    is_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, sender: str) -> "SmtpMailer":
        """Reads `smtp://user:password@host:port` or `smtps://…`.

        Raises:
            SettingError: It is no such URL.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise SettingError("smtp_url: the port must be a number up to 65535") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise SettingError("smtp_url: must be smtp://host:port or smtps://host:port, with user:password@ if needed")
        username, password = (unquote(one) if one else None for one in (parts.username, parts.password))
        is_tls = parts.scheme == "smtps"
        return cls(parts.hostname, port or _PORTS[parts.scheme], sender, is_tls, username, password)

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hands one mail over."""
        import aiosmtplib  # here, since most portals in tests and demos send none

        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self.sender, to, subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self.sender.rpartition("@")[2])
        message.set_content(text)
        options: dict[str, Any] = {"hostname": self.host, "port": self.port, "timeout": TIMEOUT_S}
        try:
            await aiosmtplib.send(
                message, username=self.username, password=self.password, use_tls=self.is_tls, **options
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise MailNotSent(f"{self.host}:{self.port} did not take the mail: {error}") from error
