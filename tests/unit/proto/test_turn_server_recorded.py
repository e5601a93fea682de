"""Recorded conversations of real Firezone programs with their relay: every MESSAGE-INTEGRITY is right, and our server,
given the same input, randomness and nonces, says the same to the last bit, but for SOFTWARE in what strangers get."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pcap import VECTORS, Captured, read_udp
from wardgate.proto import turn_server
from wardgate.proto.turn_auth import Nonces
from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_events import OpenPort
from wardgate.proto.turn_server import TurnServer
from wardgate.wire import channel_data, stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import MessageClass, Method
from wardgate.wire.turn import Username

RELAY = "203.0.113.3"
PRIVATE = (SocketAddr("10.5.0.2", 52625), SocketAddr("192.168.1.2", 52625))  # hosts without a route from the relay
CAPTURES = sorted((VECTORS / "relay").glob("*.pcap"))
RELAY_CAPTURES = [path for path in CAPTURES if path.name.endswith(".relay.pcap")]


def name_of(path: Path) -> str:
    return path.name.removesuffix(".pcap")


def test_there_are_recordings() -> None:
    assert (len(CAPTURES), len(RELAY_CAPTURES)) == (10, 5)


@pytest.mark.parametrize("path", CAPTURES, ids=name_of)
def test_every_integrity_in_the_recordings_is_right(path: Path) -> None:
    secret = stamp_secret_of(path)
    passwords = ice_passwords_of(path)
    key_by_transaction: dict[bytes, bytes] = {}
    verified: Counter[str] = Counter()

    for message in messages_of(path):
        if message.message_class == MessageClass.REQUEST and message.username is not None:
            if message.method == Method.BINDING:
                key = stun.short_term_key(passwords[message.username.partition(":")[0]])
            else:
                password = turn.password_of(Username.parse(message.username), secret)
                key = turn.long_term_key(message.username, password)
            key_by_transaction[message.transaction_id] = key
        if not message.has_integrity:
            assert message.method == Method.BINDING
            assert not message.has_fingerprint  # with the relay, hence without credentials
            continue
        assert message.verify_integrity(key_by_transaction[message.transaction_id])
        assert not message.malformed
        assert not message.unknown_required
        verified[f"{message.method} {message.message_class.name}"] += 1

    assert verified["3 REQUEST"] >= 1
    assert verified["3 ERROR"] >= 1
    assert verified["3 SUCCESS"] >= 1
    assert verified["9 SUCCESS"] >= 1
    if "-ice-" in path.name:
        assert verified["1 REQUEST"] >= 2
        assert verified["1 SUCCESS"] >= 2


@pytest.mark.parametrize("path", RELAY_CAPTURES, ids=name_of)
def test_our_server_says_what_the_recorded_relay_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = list(read_udp(path))
    monkeypatch.setattr(turn_server, "Nonces", lambda *_: RecordedNonces(recorded))
    start = recorded[0].at
    config = TurnConfig(RELAY, software="firezone-relay; rev=xxxx", private_peers=True)
    server = TurnServer(config, stamp_secret_of(path), start, RecordedRandomness(recorded))
    ours: list[tuple[object, ...]] = []

    for at, source, destination, payload in recorded:
        if source.host == RELAY:
            continue
        if destination.port == 3478:
            server.handle_datagram(source, payload, at - start)
        else:
            server.handle_peer_datagram(destination.port, source, payload)
        while (event := server.poll_event()) is not None:
            if isinstance(event, OpenPort):
                server.handle_port_opened(event.port, at - start)
        while (transmit := server.poll_transmit()) is not None:
            if transmit.remote not in PRIVATE:
                ours.append((transmit.local, transmit.remote, transmit.payload))

    theirs = [
        (sent.source, sent.destination, without_software(sent.payload))
        for sent in recorded
        if sent.source.host == RELAY
    ]
    assert Counter(ours) == Counter(theirs)


def without_software(payload: bytes) -> bytes:
    """An unsigned answer as it is without SOFTWARE, which stands in front."""
    if (
        payload[4:8] != stun.MAGIC_COOKIE.to_bytes(4, "big")
        or stun.decode(payload).has_integrity
        or payload[20:22] != b"\x80\x22"
    ):
        return payload
    rest = payload[24 + (int.from_bytes(payload[22:24], "big") + 3) // 4 * 4 :]
    return payload[:2] + len(rest).to_bytes(2, "big") + payload[4:20] + rest


def answers_of(recorded: list[Captured]) -> Iterator[tuple[SocketAddr, stun.Message]]:
    """What the relay said to clients itself."""
    for sent in recorded:
        if sent.source == SocketAddr(RELAY, 3478) and stun.is_stun(sent.payload):
            yield sent.destination, stun.decode(sent.payload)


class RecordedNonces(Nonces):
    """Issues the nonces that the recorded relay issued."""

    def __init__(self, recorded: list[Captured]) -> None:
        super().__init__(bytes(16))
        self._by_client = {client: answer.nonce for client, answer in answers_of(recorded) if answer.nonce is not None}

    def issue(self, client: SocketAddr, now: float) -> bytes:
        return self._by_client[client]

    def is_good(self, client: SocketAddr, nonce: bytes, now: float) -> bool:
        return self._by_client[client] == nonce


class RecordedRandomness:
    """Draws again the ports that the recorded relay drew."""

    def __init__(self, recorded: list[Captured]) -> None:
        self._ports = [
            answer.relayed_addresses[0].port for _, answer in answers_of(recorded) if answer.relayed_addresses
        ]

    def __call__(self, size: int) -> bytes:
        return bytes(16) if size == 16 else (self._ports.pop(0) - 49152).to_bytes(size, "big")


def messages_of(path: Path) -> Iterator[stun.Message]:
    """Every STUN message, also those inside channel data."""
    for captured in read_udp(path):
        payload = captured.payload
        if channel_data.is_channel_data(payload):
            payload = channel_data.decode(payload, exact=True).payload
        if payload[4:8] == stun.MAGIC_COOKIE.to_bytes(4, "big"):
            yield stun.decode(payload)


def frames_of(path: Path) -> list[object]:
    conversation = VECTORS / "portal" / (path.name.split(".")[0] + ".jsonl")
    return [json.loads(line)["frame"] for line in conversation.read_text().splitlines()]


def stamp_secret_of(path: Path) -> str:
    (secret,) = found(frames_of(path), "stamp_secret")
    assert isinstance(secret, str)
    return secret


def ice_passwords_of(path: Path) -> dict[str, str]:
    """Passwords by username fragment, as the portal told both ends."""
    pairs = (
        value for key in ("client_ice_credentials", "gateway_ice_credentials") for value in found(frames_of(path), key)
    )
    return {pair["username"]: pair["password"] for pair in pairs if isinstance(pair, dict)}


def found(value: object, key: str) -> list[object]:
    """Every value of that key, at any depth."""
    if isinstance(value, dict):
        here = [value[key]] if key in value else []
        return here + [hit for inner in value.values() for hit in found(inner, key)]
    return [hit for inner in value for hit in found(inner, key)] if isinstance(value, list) else []
