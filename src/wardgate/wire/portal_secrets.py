"""What portal and components derive from keys and secrets, each as a pure function.

Keys are given as their base64 text, ids as lower-case dashed UUIDs; both go into the hashes as such.
"""

import base64
import hashlib
import hmac
import json
from typing import Final, NamedTuple
from uuid import UUID

from wardgate.errors import RemoteProtocolError
from wardgate.ids import RelayId
from wardgate.wire.portal_values import IceCredentials, Json

RELAY_REALM: Final = "firezone"


def _base64_nopad(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _base64url_nopad(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def relay_id(stamp_secret: str) -> RelayId:
    """The id of a relay: a UUID made of its secret, so a restarted relay is another one."""
    digest = hashlib.sha256(stamp_secret.encode()).digest()
    return RelayId(str(UUID(bytes=digest[:16], version=4)))


class TurnCredentials(NamedTuple):
    """What a device shows to a relay."""

    username: str
    password: str


def turn_credentials(stamp_secret: str, public_key: str, expires_at: int) -> TurnCredentials:
    """The credentials of the device with that WireGuard key at that relay, until `expires_at` (unix seconds)."""
    salt = _base64_nopad(hashlib.sha256(public_key.encode()).digest())
    username = f"{expires_at}:{salt}"
    return TurnCredentials(username, turn_password(stamp_secret, expires_at, salt))


def turn_password(stamp_secret: str, expires_at: int, salt: str) -> str:
    """The password that belongs to the username `<expires_at>:<salt>`; the relay computes it anew."""
    return _base64_nopad(hashlib.sha256(f"{expires_at}:{stamp_secret}:{salt}".encode()).digest())


def split_turn_username(username: str) -> tuple[int, str]:
    """Expiry (unix seconds) and salt of a username.

    Raises:
        RemoteProtocolError: It is not a number and a salt.
    """
    expiry, separator, salt = username.partition(":")
    if not separator or ":" in salt or not expiry.isascii() or not expiry.isdigit() or len(expiry) > 20:
        raise RemoteProtocolError("username is not an expiry and a salt")
    expires_at = int(expiry)
    if expires_at >= 2**64:
        raise RemoteProtocolError("username has an expiry out of range")
    return expires_at, salt


class PskParty(NamedTuple):
    """One end of a tunnel, as far as its secrets go."""

    id: str
    public_key: str
    psk_base: bytes


def gateway_preshared_key(client: PskParty, gateway: PskParty) -> bytes:
    """The pre-shared key of a client and a gateway; stable while ids, keys and bases are."""
    salt = f"WG_PSK|C_ID:{client.id}|G_ID:{gateway.id}|C_PK:{client.public_key}|G_PK:{gateway.public_key}"
    return _preshared_key(client, gateway, salt)


def peer_preshared_key(initiator: PskParty, target: PskParty) -> bytes:
    """The pre-shared key of two clients."""
    salt = f"WG_PSK_CC|CA_ID:{initiator.id}|CB_ID:{target.id}|CA_PK:{initiator.public_key}|CB_PK:{target.public_key}"
    return _preshared_key(initiator, target, salt)


def _preshared_key(initiator: PskParty, receiver: PskParty, salt: str) -> bytes:
    secret = initiator.psk_base + receiver.psk_base
    return hashlib.pbkdf2_hmac("sha256", secret, salt.encode(), iterations=1, dklen=32)


class IcePair(NamedTuple):
    """The credentials of both ends of a tunnel."""

    initiator: IceCredentials
    receiver: IceCredentials


def ice_credentials(initiator_id: str, initiator_key: str, receiver_id: str, receiver_key: str) -> IcePair:
    """The ICE credentials of a client that asks and of the gateway or client that it asks for."""
    seed = f"{initiator_id}:{initiator_key}:{receiver_id}:{receiver_key}"
    text = base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode().lower().rstrip("=")
    return IcePair(
        IceCredentials(username=text[0:4], password=text[4:26]),
        IceCredentials(username=text[26:30], password=text[30:52]),
    )


def sign_jwt(claims: dict[str, Json], key: bytes) -> str:
    """A JWT signed with HS256."""
    head = _base64url_nopad(b'{"alg":"HS256","typ":"JWT"}')
    body = _base64url_nopad(json.dumps(claims, separators=(",", ":")).encode())
    signature = hmac.digest(key, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{_base64url_nopad(signature)}"


_INGEST_TEXTS: Final = (
    "account_id",
    "initiator_device_id",
    "responder_device_id",
    "policy_authorization_id",
    "policy_id",
    "resource_id",
    "resource_name",
    "initiator_actor_id",
    "initiator_actor_name",
    "authorized_at",
    "authorization_expires_at",
)


def read_ingest_token(token: str, *, key: bytes | None = None) -> dict[str, Json]:
    """The claims of a flow-log token, checked for shape as real components do.

    Args:
        token: Three base64url segments.
        key: The account's signing key, where the signature is to be verified; components have none.

    Raises:
        RemoteProtocolError: A segment, the algorithm, the signature or a claim is not as it must be.
    """
    parts = token.split(".")
    if len(parts) != 3 or not parts[2]:
        raise RemoteProtocolError("ingest token is not three segments")
    try:
        head, claims = (json.loads(_base64url_decode(part)) for part in parts[:2])
        signature = _base64url_decode(parts[2])
    except (ValueError, RecursionError):
        raise RemoteProtocolError("ingest token does not decode") from None
    if not isinstance(head, dict) or head.get("alg") != "HS256" or not isinstance(claims, dict):
        raise RemoteProtocolError("ingest token is not HS256 claims")
    if key is not None and not hmac.compare_digest(
        signature, hmac.digest(key, f"{parts[0]}.{parts[1]}".encode(), "sha256")
    ):
        raise RemoteProtocolError("ingest token has a wrong signature")
    _check_ingest_claims(claims)
    return claims


def _check_ingest_claims(claims: dict[str, Json]) -> None:
    numbers = [claims.get("iat"), claims.get("exp")]
    fine = (
        all(isinstance(claims.get(name), str) for name in _INGEST_TEXTS)
        and all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers)
        and isinstance(claims.get("uploads_enabled"), bool)
        and claims.get("role") in ("initiator", "responder")
    )
    if not fine:
        raise RemoteProtocolError("ingest token lacks a claim")


def _base64url_decode(text: str) -> bytes:
    if "=" in text or not text.isascii() or any(letter in "+/" for letter in text):
        raise ValueError("is not base64url without padding")
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
