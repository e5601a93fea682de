"""Derivations against the reference's vectors."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire.portal_secrets import (
    PskParty,
    gateway_preshared_key,
    ice_credentials,
    peer_preshared_key,
    read_ingest_token,
    relay_id,
    sign_jwt,
    split_turn_username,
    turn_credentials,
)
from wardgate.wire.portal_values import Json

CLIENT_KEY = base64.b64encode(bytes(range(32))).decode()
GATEWAY_KEY = base64.b64encode(bytes(range(32, 64))).decode()
CLIENT = PskParty("8d5b1f0e-2a6c-4b7e-9f21-0c3d4e5f6a71", CLIENT_KEY, b"\x11" * 32)
GATEWAY = PskParty("1f7c9a42-5b0d-4e88-8a13-7d6e5c4b3a29", GATEWAY_KEY, b"\x22" * 32)
STAMP_SECRET = "00" * 31 + "ab"
CLAIMS: dict[str, Json] = {
    "account_id": "a",
    "initiator_device_id": "d",
    "responder_device_id": "r",
    "policy_authorization_id": "p",
    "policy_id": "p",
    "resource_id": "r",
    "resource_name": "n",
    "initiator_actor_id": "i",
    "initiator_actor_name": "n",
    "authorized_at": "2026-09-08T20:40:00.000000Z",
    "authorization_expires_at": "2026-09-09T20:40:00.000000Z",
    "iat": 1788900000,
    "exp": 1791578400,
    "uploads_enabled": False,
    "role": "initiator",
}


def test_turn_credentials_are_those_of_the_reference() -> None:
    username, password = turn_credentials(STAMP_SECRET, CLIENT_KEY, 2145916800)

    assert username == "2145916800:kF8o3vGOqsBa5vErLDRSdEr69ibaE0PVezlbVE4FGbY"
    assert password == "qASsCqzoDt1eg+ne/e6prVzb7kopwZ+68xtRh8LYrzw"
    assert split_turn_username(username) == (2145916800, "kF8o3vGOqsBa5vErLDRSdEr69ibaE0PVezlbVE4FGbY")


def test_relay_id_is_that_of_the_reference() -> None:
    assert relay_id(STAMP_SECRET) == "6e89c06a-6c1d-4475-a752-26a2c1af55c1"


def test_preshared_keys_are_those_of_the_reference() -> None:
    key = base64.b64encode(gateway_preshared_key(CLIENT, GATEWAY)).decode()
    peer_key = base64.b64encode(peer_preshared_key(CLIENT, GATEWAY)).decode()

    assert key == "Gc4K5Lyo6acsEQ74QG+XZlcE08D+6INXhlLLyejP/jk="
    assert peer_key == "Dd3Eb41HfEK25P+hs6u9vvEhqMB2MtMU68KuiQ3M55c="


def test_ice_credentials_are_those_of_the_reference() -> None:
    pair = ice_credentials(CLIENT.id, CLIENT_KEY, GATEWAY.id, GATEWAY_KEY)

    assert (pair.initiator.username, pair.initiator.password) == ("ngxk", "dpvlp7as5fit3dptmd2wc3")
    assert (pair.receiver.username, pair.receiver.password) == ("diny", "tissixgkdemowa4u7ogfdq")


@pytest.mark.parametrize("username", ["", "1", "1:a:b", ":a", "x:a", "-1:a", f"{2**64}:a", "٣:a", "9" * 5000 + ":a"])
def test_a_username_that_is_not_expiry_and_salt_is_refused(username: str) -> None:
    with pytest.raises(RemoteProtocolError):
        split_turn_username(username)


def test_ingest_token_carries_its_claims_under_a_signature() -> None:
    token = sign_jwt(CLAIMS, b"key")

    assert read_ingest_token(token, key=b"key") == CLAIMS
    with pytest.raises(RemoteProtocolError, match="signature"):
        read_ingest_token(token, key=b"other")


@pytest.mark.parametrize("name", sorted(CLAIMS))
def test_ingest_token_without_one_claim_is_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_ingest_token(sign_jwt({key: value for key, value in CLAIMS.items() if key != name}, b"key"))


@given(st.one_of(st.text(), st.from_regex(r"\A[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\Z")))
def test_any_text_is_a_token_or_a_protocol_error(text: str) -> None:
    try:
        read_ingest_token(text)
    except RemoteProtocolError:
        return


@given(st.text())
def test_any_text_is_a_username_or_a_protocol_error(text: str) -> None:
    try:
        expires_at, salt = split_turn_username(text)
    except RemoteProtocolError:
        return
    assert 0 <= expires_at < 2**64
    assert ":" not in salt
