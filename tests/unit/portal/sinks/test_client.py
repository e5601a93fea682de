"""Requests of sinks: only to public addresses, as they were checked, with bounds and with good certificates."""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.unit.portal.sinks.receiver import Answer, Receiver, Seen, make_authority, running
from wardgate.portal.sinks.client import MAX_ANSWER, Client, is_public
from wardgate.portal.sinks.outcomes import NotAllowed, Request, Unreachable


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:169.254.169.254", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2001:db8::1", False),
    ],
)
def test_which_addresses_are_public(address: str, expected: bool) -> None:
    assert is_public(ip_address(address)) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://logs.example/",
        "https://127.0.0.1/",
        "https://[::1]:8443/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://localhost/",
        "https://user@logs.example/",
        "ftp://logs.example/",
        "https://",
        "https://[",
        "nonsense",
    ],
)
async def test_other_addresses_are_not_asked(url: str) -> None:
    with pytest.raises((NotAllowed, Unreachable)):
        await Client().send(Request("GET", url, {}))


async def test_one_private_address_among_public_ones_is_enough_and_none_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in ("8.8.8.8", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(NotAllowed, match="not public"):
        await Client().send(Request("GET", "https://rebind.example/", {}))
    assert asked == ["rebind.example"]


async def test_the_address_that_was_checked_is_dialled_with_the_name_in_host_and_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path, ["logs.example"])
    resolved: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **options: Any) -> Any:
        if host == "logs.example":
            resolved.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return real(host, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with running(Receiver(), authority.certificate) as receiver:
        client = Client(allows_private=True, tls=authority.tls)
        for _ in range(2):
            response = await client.send(Request("POST", f"https://logs.example:{receiver.port}/a?b=c", {}, b"x"))
            assert response.status == 200
        await client.close()
    assert resolved == ["logs.example"]
    assert receiver.seen[0].headers["host"] == f"logs.example:{receiver.port}"
    assert (receiver.seen[0].path, receiver.seen[0].query) == ("/a", "b=c")


async def test_a_bad_certificate_is_no_answer(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, ["other.example"])
    async with running(Receiver(), authority.certificate) as receiver:
        there = {"logs.example": ("127.0.0.1", receiver.port)}
        for tls in (None, authority.tls):  # an unknown authority, and another name
            client = Client(tls=tls, connect_to=there)
            with pytest.raises(Unreachable, match=r"certificate|CERTIFICATE"):
                await client.send(Request("POST", "https://logs.example/", {"Authorization": "secret"}, b"x"))
            await client.close()
    assert receiver.seen == []


async def test_long_answers_are_cut_off() -> None:
    async with running(Receiver()) as receiver:
        receiver.play = lambda seen: Answer(200, b"x" * (MAX_ANSWER + 1))
        client = Client(allows_private=True)
        with pytest.raises(Unreachable, match="longer than"):
            await client.send(Request("GET", receiver.url, {}))
        await client.close()


async def test_redirects_are_not_followed_and_proxies_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    paths: list[str] = []

    def play(seen: Seen) -> Answer:
        paths.append(seen.path)
        return Answer(307, b"", {"location": "/elsewhere"})

    async with running(Receiver()) as receiver:
        receiver.play = play
        client = Client(allows_private=True)
        assert (await client.send(Request("POST", f"{receiver.url}/in", {}, b"x"))).status == 307
        await client.close()
    assert paths == ["/in"]
