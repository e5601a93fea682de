"""The HTTP proxy that a network wants its hosts to use: which one, and how it is asked.

Source: RFC 9110, section 9.3.6 (CONNECT); the environment variables are those of curl.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from wardgate.errors import RemoteProtocolError, SettingError
from wardgate.wire.addresses import SocketAddr


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that knows CONNECT.

    Attributes:
        authorization: The value of Proxy-Authorization, if it wants one.
    """

    host: str
    port: int
    authorization: str | None = None


def parse_proxy(text: str, place: str) -> Proxy:
    """Reads `http://[user:password@]host[:port]`.

    Raises:
        SettingError: It is none; the text names `place`.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port or 3128
    except ValueError as error:
        raise SettingError(f"{place}: {error}; a proxy is http://host:port") from None
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise SettingError(f"{place}: {text!r} is no HTTP proxy; a proxy is http://[user:password@]host:port")
    authorization = None
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(words.encode()).decode()}"
    return Proxy(parts.hostname, port, authorization)


class Proxies:
    """Which proxy is used for which host: one that was set, `none`, or what the environment says."""

    def __init__(self, setting: str | None, environ: Mapping[str, str]) -> None:
        """Takes the setting.

        Raises:
            SettingError: A proxy's address is wrong.
        """
        self._setting = None if setting in (None, "none") else parse_proxy(setting or "", "--proxy")
        self._environ: dict[str, str] = {}
        if setting is None:
            lower = {name.lower(): value for name, value in environ.items() if value}
            self._environ = {
                scheme: lower[f"{scheme}_proxy"] for scheme in ("https", "all", "no") if f"{scheme}_proxy" in lower
            }
        for scheme in ("https", "all"):
            if scheme in self._environ:
                parse_proxy(self._environ[scheme], f"{scheme}_proxy")

    def of(self, host: str) -> Proxy | None:
        """The proxy by which that host is reached; `None` for none."""
        if self._setting is not None:
            return self._setting
        text = self._environ.get("https") or self._environ.get("all")
        if text is None or _is_exempt(host, self._environ.get("no", "")):
            return None
        return parse_proxy(text, "https_proxy")


def _is_exempt(host: str, exempt: str) -> bool:
    """Whether NO_PROXY names the host, a domain above it, or everything."""
    names = [name.strip().lower().lstrip(".") for name in exempt.split(",")]
    host = host.lower()
    return any(name == "*" or (name and (host == name or host.endswith("." + name))) for name in names)


def connect_request(proxy: Proxy, place: str) -> bytes:
    """What asks the proxy for a connection to `place`, as `host:port`."""
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode()


def check_answer(head: bytes) -> None:
    """Reads the head of the proxy's answer.

    Raises:
        RemoteProtocolError: It is no consent.
    """
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if not status.startswith("HTTP/1.") or status[8:12] != " 200":
        raise RemoteProtocolError(f"it says {status!r}")


def place_of(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return str(SocketAddr(host, port))
