"""Which HTTP proxy is used, and how it is asked."""

import pytest

from wardgate.errors import RemoteProtocolError, SettingError
from wardgate.proto.http_proxy import Proxies, Proxy, check_answer, connect_request, parse_proxy


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy.example:8080", Proxy("proxy.example", 8080)),
        ("proxy.example", Proxy("proxy.example", 3128)),
        ("http://[2001:db8::1]:3128/", Proxy("2001:db8::1", 3128)),
        ("http://al%40ice:se:cret@proxy.example:1", Proxy("proxy.example", 1, "Basic YWxAaWNlOnNlOmNyZXQ=")),
    ],
)
def test_a_proxy_is_read(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text, "--proxy") == proxy


@pytest.mark.parametrize("text", ["", "socks5://proxy:1080", "http://", "http://proxy:99999", "http://proxy/path"])
def test_what_is_no_proxy_is_named(text: str) -> None:
    with pytest.raises(SettingError, match="--proxy"):
        parse_proxy(text, "--proxy")


@pytest.mark.parametrize(
    ("environ", "host", "expected"),
    [
        ({}, "portal.example", None),
        ({"HTTPS_PROXY": "http://p:1"}, "portal.example", "p"),
        ({"https_proxy": "http://p:1", "NO_PROXY": "example"}, "portal.example", None),
        ({"https_proxy": "http://p:1", "no_proxy": ".portal.example, x"}, "portal.example", None),
        ({"https_proxy": "http://p:1", "no_proxy": "rtal.example"}, "portal.example", "p"),
        ({"ALL_PROXY": "http://q:1", "no_proxy": "203.0.113.3"}, "203.0.113.3", None),
        ({"ALL_PROXY": "http://q:1", "https_proxy": ""}, "203.0.113.3", "q"),
        ({"https_proxy": "http://p:1", "no_proxy": "*"}, "anything", None),
        ({"http_proxy": "http://p:1"}, "portal.example", None),
    ],
)
def test_the_environment_names_it(environ: dict[str, str], host: str, expected: str | None) -> None:
    proxy = Proxies(None, environ).of(host)

    assert (proxy.host if proxy else None) == expected


def test_a_setting_goes_before_the_environment() -> None:
    environ = {"https_proxy": "http://p:1", "no_proxy": "*"}

    chosen = Proxies("http://q:1", environ).of("portal.example")

    assert chosen == Proxy("q", 1)
    assert Proxies("none", environ).of("portal.example") is None


def test_a_wrong_proxy_in_the_environment_is_named_at_once() -> None:
    with pytest.raises(SettingError, match="https_proxy"):
        Proxies(None, {"HTTPS_PROXY": "socks5://p"})


def test_it_is_asked_for_a_connection() -> None:
    request = connect_request(Proxy("p", 1, "Basic eA=="), "[2001:db8::3]:443")

    assert request == (
        b"CONNECT [2001:db8::3]:443 HTTP/1.1\r\nHost: [2001:db8::3]:443\r\nProxy-Authorization: Basic eA==\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", b"HTTP/2 200\r\n", b"\xff\xfe"]
)
def test_any_other_answer_than_consent_is_one_error(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        check_answer(head)
    check_answer(b"HTTP/1.1 200 Connection established\r\n\r\n")
