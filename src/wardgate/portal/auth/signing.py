"""What the portal hands out to browsers and takes back: values that nobody else can make or change."""

import base64
import hashlib
import hmac
import json
from datetime import datetime, timedelta
from typing import Any, Final

MAX_TEXT: Final = 4096
_MAC_SIZE: Final = 32


class Signer:
    """Signs values for one purpose; what was signed for another is not accepted."""

    def __init__(self, key: bytes, purpose: str) -> None:
        self._key = hmac.digest(key, purpose.encode(), hashlib.sha256)

    def sign(self, value: Any, at: datetime, lifetime: timedelta) -> str:
        """A value as JSON, with its expiry, for a cookie or a link."""
        body = json.dumps([int((at + lifetime).timestamp()), value], separators=(",", ":")).encode()
        return _text(hmac.digest(self._key, body, hashlib.sha256) + body)

    def read(self, text: str | None, at: datetime) -> Any:
        """The value; `None` if it is not ours, was changed, or is over."""
        if not text or len(text) > MAX_TEXT:
            return None
        try:
            signed = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
            mac, body = signed[:_MAC_SIZE], signed[_MAC_SIZE:]
            if not hmac.compare_digest(mac, hmac.digest(self._key, body, hashlib.sha256)):
                return None
            expires_at, value = json.loads(body)
        except (ValueError, TypeError, RecursionError):
            return None
        return value if expires_at > at.timestamp() else None

    def tag(self, text: str) -> str:
        """A short proof that goes with a text, such as a form's with its session."""
        return _text(hmac.digest(self._key, text.encode(), hashlib.sha256)[:18])

    def is_tag(self, text: str, tag: str) -> bool:
        """Whether it is the proof of that text; in constant time."""
        return hmac.compare_digest(self.tag(text).encode(), tag.encode("utf-8", "replace"))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
