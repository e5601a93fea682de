"""The form of secret tokens, and what the portal keeps of them.

A token is `<nonce>.<kind>_<base64url>`: 16 bytes of account id (zeros for a relay), 16 of row id, 32 of secret. What
begins with the dot is what a sign-in page hands out; a client puts the nonce it chose before it. The portal stores a
salt and SHA3-256(nonce ‖ secret ‖ salt), so neither a read database nor a stolen redirect gives a working token. Each
kind has its own table and its own name in the text, so that one kind is never taken for another.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

from wardgate.ids import AccountId, TokenId
from wardgate.wire.addresses import RandomBytes

TokenKind = Literal["client", "gateway", "relay", "api"]
_NAMES: Final[dict[TokenKind, str]] = {"client": "wgc", "gateway": "wgg", "relay": "wgr", "api": "wga"}
_KINDS: Final = {name: kind for kind, name in _NAMES.items()}
MAX_NONCE: Final = 128
_SECRET_LENGTH: Final = 32
_MAX_LENGTH: Final = 512


@dataclass(frozen=True, slots=True)
class ParsedToken:
    """A token as it arrived; its secret is not checked yet."""

    kind: TokenKind
    account_id: AccountId | None
    token_id: TokenId
    nonce: str
    secret: bytes

    def __repr__(self) -> str:
        return f"ParsedToken(kind={self.kind!r}, token_id={self.token_id!r})"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to be shown once, and what is stored of it."""

    id: TokenId
    text: str
    salt: str
    hash: str

    def __repr__(self) -> str:
        return f"NewToken(id={self.id!r})"


def create(
    kind: TokenKind, account_id: AccountId | None, token_id: TokenId, random_bytes: RandomBytes, nonce: str = ""
) -> NewToken:
    """Makes a token; `text` lacks the nonce, which its owner already has."""
    secret = random_bytes(_SECRET_LENGTH)
    salt = _base64url(random_bytes(16))
    account = UUID(account_id).bytes if account_id else bytes(16)
    body = _base64url(account + UUID(token_id).bytes + secret)
    return NewToken(token_id, f".{_NAMES[kind]}_{body}", salt, _hash(nonce, secret, salt))


def parse(text: str) -> ParsedToken | None:
    """Reads a token; `None` if it has not the form of any kind."""
    if len(text) > _MAX_LENGTH or not text.isascii():
        return None
    nonce, separator, rest = text.partition(".")
    name, _, body = rest.partition("_")
    kind = _KINDS.get(name)
    if not separator or kind is None or len(nonce) > MAX_NONCE:
        return None
    raw = _from_base64url(body)
    if raw is None or len(raw) != 16 + 16 + _SECRET_LENGTH:
        return None
    account = AccountId(str(UUID(bytes=raw[:16]))) if any(raw[:16]) else None
    if (account is None) is not (kind == "relay"):
        return None
    return ParsedToken(kind, account, TokenId(str(UUID(bytes=raw[16:32]))), nonce, raw[32:])


def is_genuine(token: ParsedToken, salt: str, stored_hash: str) -> bool:
    """Whether the secret is the one that was stored; takes the same time either way."""
    return hmac.compare_digest(_hash(token.nonce, token.secret, salt), stored_hash)


def _hash(nonce: str, secret: bytes, salt: str) -> str:
    return hashlib.sha3_256(nonce.encode() + secret + salt.encode()).hexdigest()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _from_base64url(text: str) -> bytes | None:
    if "=" in text or any(letter in "+/" for letter in text):
        return None
    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return None
    return raw if _base64url(raw) == text else None
