"""Every frame and every secret in the recorded conversations."""

import json

import pytest

from tests.unit.wire.recordings import RECORDINGS, frames, public_key, read, version_of
from wardgate.wire import portal
from wardgate.wire.portal import Frame, Message, Unknown, key_text
from wardgate.wire.portal_secrets import (
    PskParty,
    gateway_preshared_key,
    ice_credentials,
    read_ingest_token,
    relay_id,
    turn_credentials,
)

CLIENT_ID = "00000000-0000-0000-0000-0000000000aa"
GATEWAY_ID = "00000000-0000-0000-0000-0000000000bb"


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_frame_survives_decoding_and_encoding(name: str) -> None:
    recorded = [one.frame for one in read(name) if one.frame]

    again = [portal.decode_frame(portal.encode_frame(frame), complete=True) for frame in recorded]

    assert again == recorded
    assert len(recorded) > 10


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_message_of_a_component_re_encodes_to_what_it_sent(name: str) -> None:
    seen = 0
    for who, decode in (("client", portal.decode_from_client), ("gateway", portal.decode_from_gateway)):
        for frame in frames(name, who, ">portal"):
            if frame.event in (portal.JOIN, portal.HEARTBEAT):
                continue
            message = decode(frame.event, frame.payload, version_of(name))
            assert isinstance(message, Message)
            assert portal.push(who, message, version_of(name), ref=frame.ref) == frame  # type: ignore[arg-type]
            seen += 1
    assert seen >= 6


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_message_of_the_portal_keeps_its_meaning_when_encoded_again(name: str) -> None:
    version = version_of(name)
    for who, decode in (("client", portal.decode_to_client), ("gateway", portal.decode_to_gateway)):
        for frame in frames(name, who, "portal>"):
            message = decode(frame.event, frame.payload, version)
            assert isinstance(message, Message)
            again = portal.push(who, message, version)  # type: ignore[arg-type]
            assert decode(again.event, again.payload, version) == message
            assert isinstance(frame.payload, dict)
            assert isinstance(again.payload, dict)
            assert again.payload.keys() >= frame.payload.keys()


@pytest.mark.parametrize("name", RECORDINGS)
def test_relay_frames_decode(name: str) -> None:
    assert [portal.decode_to_relay(one.event, one.payload) for one in frames(name, "relay", "portal>")] == [
        portal.RelayInit()
    ]
    joins = [one for one in frames(name, "relay", ">portal") if one.event == portal.JOIN]
    assert [portal.decode_relay_join(one.payload).payload() for one in joins] == [one.payload for one in joins]


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_relay_credential_can_be_recomputed(name: str) -> None:
    secret = stamp_secret(name)
    for who, decode in (("client", portal.decode_to_client), ("gateway", portal.decode_to_gateway)):
        init = next(one for one in frames(name, who, "portal>") if one.event == "init")
        message = decode(init.event, init.payload, version_of(name))
        assert not isinstance(message, Unknown)
        [relay] = message.relays  # type: ignore[union-attr]
        assert relay.id == relay_id(secret)
        expected = turn_credentials(secret, public_key(name, who), relay.expires_at)
        assert (relay.username, relay.password) == expected


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_preshared_key_and_ice_credential_can_be_recomputed(name: str) -> None:
    client_key, gateway_key = public_key(name, "client"), public_key(name, "gateway")
    client = PskParty(CLIENT_ID, client_key, b"\x11" * 32)
    gateway = PskParty(GATEWAY_ID, gateway_key, b"\x22" * 32)
    granted = 0
    for frame in frames(name, "client", "portal>"):
        message = portal.decode_to_client(frame.event, frame.payload, version_of(name))
        if not isinstance(message, portal.AuthorizationCreated):
            continue
        granted += 1
        assert key_text(message.gateway_public_key) == gateway_key
        assert message.preshared_key == gateway_preshared_key(client, gateway)
        assert (message.client_ice_credentials, message.gateway_ice_credentials) == ice_credentials(
            CLIENT_ID, client_key, GATEWAY_ID, gateway_key
        )
        assert message.flow_logs_ingest_token is not None
        assert read_ingest_token(message.flow_logs_ingest_token)["role"] == "initiator"
    assert granted == 2


def stamp_secret(name: str) -> str:
    join = next(one for one in frames(name, "relay", ">portal") if one.event == portal.JOIN)
    return portal.decode_relay_join(join.payload).stamp_secret


def test_frames_of_the_stub_parse_as_text() -> None:
    frame = Frame("phoenix", "heartbeat", {}, 7)

    assert json.loads(portal.encode_frame(frame)) == {
        "topic": "phoenix",
        "event": "heartbeat",
        "payload": {},
        "ref": 7,
    }
