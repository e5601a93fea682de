"""Messages between portals are encrypted and authenticated, so that who reads or writes on the bus gains nothing.

A sealed message is `version (1 byte, 1) ‖ length of the sender's id (1) ‖ sender's id ‖ number (8, big endian) ‖
AES-256-GCM(message)`. Every start of a portal has an id of its own, from which and from the installation's secret key
its key is derived; the number is the nonce. Head and target are authenticated. Numbers that do not grow are replays.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wardgate.errors import RemoteProtocolError

_VERSION: Final = 1
_MAX_ID: Final = 64
_MAX_SENDERS: Final = 1024
_NUMBER_SIZE: Final = 8

Derive = Callable[[str], bytes]
"""From a purpose to a key of 32 bytes."""


class Sealer:
    """Seals what one portal sends, and opens what others sent."""

    def __init__(self, node_id: str, derive: Derive) -> None:
        if not 0 < len(node_id.encode()) <= _MAX_ID:
            raise ValueError(f"a portal's id has 1 to {_MAX_ID} bytes")
        self._node_id = node_id
        self._derive = derive
        self._cipher = self._cipher_of(node_id)
        self._number = 0
        self._senders: OrderedDict[str, _Sender] = OrderedDict()

    def seal(self, target: str, message: bytes) -> bytes:
        """Encrypts a message for one portal, or for all."""
        self._number += 1
        name = self._node_id.encode()
        head = bytes((_VERSION, len(name))) + name + self._number.to_bytes(_NUMBER_SIZE, "big")
        return head + self._cipher.encrypt(_nonce(self._number), message, head + target.encode())

    def open(self, target: str, sealed: bytes) -> tuple[str, bytes]:
        """The sender's id and the message.

        Raises:
            RemoteProtocolError: It is no message of a portal with our key, or it came before.
        """
        if len(sealed) < 2 or sealed[0] != _VERSION:
            raise RemoteProtocolError("of another version")
        end = 2 + sealed[1] + _NUMBER_SIZE
        head, body = sealed[:end], sealed[end:]
        try:
            sender_id = head[2 : 2 + sealed[1]].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("the sender's id is no text") from None
        if len(head) < end or not sender_id or len(sender_id.encode()) > _MAX_ID:
            raise RemoteProtocolError("too short")
        number = int.from_bytes(head[-_NUMBER_SIZE:], "big")
        sender = self._senders.get(sender_id) or _Sender(self._cipher_of(sender_id))
        try:
            message = sender.cipher.decrypt(_nonce(number), body, head + target.encode())
        except (InvalidTag, ValueError):
            raise RemoteProtocolError("sealed with another key") from None
        if number <= sender.last.get(target, 0):
            raise RemoteProtocolError("it came before")
        sender.last[target] = number
        self._remember(sender_id, sender)
        return sender_id, message

    def _remember(self, sender_id: str, sender: "_Sender") -> None:
        self._senders[sender_id] = sender
        self._senders.move_to_end(sender_id)
        while len(self._senders) > _MAX_SENDERS:
            self._senders.popitem(last=False)

    def _cipher_of(self, node_id: str) -> AESGCM:
        return AESGCM(self._derive(f"bus:{node_id}"))


class _Sender:
    def __init__(self, cipher: AESGCM) -> None:
        self.cipher = cipher
        self.last: dict[str, int] = {}


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(_NUMBER_SIZE, "big")
