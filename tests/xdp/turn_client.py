"""A TURN client, as small as can be: allocates in both families and binds channels."""

import os
import socket

from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import AddressFamily, Builder, MessageClass, Method


class TurnClient:
    """One allocation, made through a socket of the caller's.

    Attributes:
        port: The allocation's, at each of the relay's addresses.
    """

    def __init__(self, own: socket.socket, relay: tuple[str, int], credentials: tuple[str, str]) -> None:
        self._socket = own
        self._username, password = credentials
        self._key = turn.long_term_key(self._username, password)
        own.connect(relay)
        self._nonce = self._ask(self._allocate().build()).nonce or b""
        self.port = self._signed(self._allocate()).relayed_addresses[0].port

    def bind(self, channel: int, peer: SocketAddr) -> None:
        """Binds a channel, or refreshes it."""
        self._signed(_request(Method.CHANNEL_BIND).channel_number(channel).peer_address(peer))

    def free(self) -> None:
        """Deletes the allocation."""
        self._signed(_request(Method.REFRESH).lifetime(0))

    def _allocate(self) -> Builder:
        builder = _request(Method.ALLOCATE).requested_transport(turn.UDP_TRANSPORT)
        return builder.additional_family(AddressFamily.IPV6)

    def _signed(self, builder: Builder) -> stun.Message:
        signed = builder.username(self._username).realm(turn.REALM).nonce(self._nonce)
        answer = self._ask(signed.build(self._key))
        assert answer.error is None, answer.error
        return answer

    def _ask(self, datagram: bytes) -> stun.Message:
        self._socket.send(datagram)
        return stun.decode(self._socket.recv(2000))


def _request(method: Method) -> Builder:
    return Builder(method, MessageClass.REQUEST, os.urandom(12))
