"""Taking uploads of flow logs: whose they are by their token, and what of them is stored."""

from datetime import UTC, datetime
from typing import Any, Final

from wardgate.errors import RemoteProtocolError
from wardgate.portal.db.accounts import find_account
from wardgate.portal.db.engine import Database
from wardgate.portal.db.sealing import unseal
from wardgate.portal.domain.checks import is_uuid
from wardgate.wire.portal_secrets import read_ingest_token

_UNKNOWN_KEY: Final = bytes(32)
_IDS: Final = ("initiator_device_id", "responder_device_id", "policy_authorization_id", "policy_id", "resource_id")
_OPTIONAL_IDS: Final = ("initiator_auth_provider_id", "initiator_actor_id")
_TEXTS: Final = (
    "initiator_actor_name",
    "initiator_actor_email",
    "initiator_client_version",
    "initiator_device_os_name",
    "initiator_device_os_version",
    "initiator_device_serial",
    "initiator_device_uuid",
    "initiator_device_identifier_for_vendor",
    "initiator_device_firebase_installation_id",
    "resource_name",
    "resource_address",
)


async def read_attribution(db: Database, token: str, at: datetime) -> dict[str, Any] | None:
    """What the token says of all flows that are uploaded with it, as columns; none if it does not allow that.

    An account that does not exist looks like a wrong signature.
    """
    try:
        account_id = str(read_ingest_token(token)["account_id"])
        account = await find_account(db, account_id) if is_uuid(account_id) else None
        key = unseal(db.keyring, account, "ingest_signing_key") if account else _UNKNOWN_KEY
        claims: dict[str, Any] = read_ingest_token(token, key=key)
        columns = _columns(claims)
    except (RemoteProtocolError, ValueError, OverflowError):
        return None
    is_alive = claims["exp"] > at.timestamp()
    return columns if account is not None and is_alive and claims["uploads_enabled"] else None


def _columns(claims: dict[str, Any]) -> dict[str, Any]:
    """Columns of the claims.

    Raises:
        ValueError: A claim cannot be stored; no token of ours is like that.
    """
    columns: dict[str, Any] = {"account_id": claims["account_id"].lower(), "role": claims["role"]}
    for name in (*_IDS, *_OPTIONAL_IDS):
        value = claims.get(name) or None
        if (value is None and name in _IDS) or not (value is None or is_uuid(value)):
            raise ValueError(name)
        columns[name] = value.lower() if value else None
    for name in _TEXTS:
        value = claims.get(name)
        columns[name] = value[:255] if isinstance(value, str) else None
    for name in ("authorized_at", "authorization_expires_at"):
        columns[name] = _instant(claims[name])
    return columns


def _instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or at < datetime(2000, 1, 1, tzinfo=UTC):
        raise ValueError(text)
    return at.astimezone(UTC)
