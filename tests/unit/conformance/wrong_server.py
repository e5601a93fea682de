"""A tiny STUN server in a thread, right or wrong in one chosen way, to see whether the suite notices."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from conformance import wire
from conformance.wire import Address, Draft, Malformed, Message

Answer = Callable[[bytes, Address], bytes | None]


@contextmanager
def serving(answer: Answer) -> Iterator[Address]:
    """Answers every datagram on loopback as `answer` says; `None` is silence."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.05)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    data, source = server.recvfrom(2048)
                except TimeoutError:
                    continue
                reply = answer(data, Address(*source))
                if reply is not None:
                    server.sendto(reply, source)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(*server.getsockname())
        finally:
            stop.set()
            thread.join()


def right(data: bytes, source: Address) -> bytes | None:
    """A STUN server as it should be, without TURN and without SOFTWARE."""
    request = _request(data)
    if request is None or request.method != wire.BINDING or request.message_class != wire.REQUEST:
        return None
    if request.has(wire.FINGERPRINT) and not request.has_right_fingerprint():
        return None
    unknown = [each.type for each in request.attributes if each.type < 0x8000 and each.type not in KNOWN]
    if unknown:
        refusal = Draft(wire.BINDING, wire.ERROR, request.transaction_id).add(wire.ERROR_CODE, b"\0\0\x04\x14")
        return refusal.add(wire.UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(unknown)}H", *unknown)).encode()
    return success(request, source).encode()


def ignores_unknown_attributes(data: bytes, source: Address) -> bytes | None:
    request = _request(data)
    return None if request is None else success(request, source).encode()


def answers_with_another_transaction_id(data: bytes, source: Address) -> bytes | None:
    reply = right(data, source)
    return None if reply is None else reply[:8] + bytes(12) + reply[20:]


def answers_with_another_port(data: bytes, source: Address) -> bytes | None:
    return right(data, Address(source.host, source.port ^ 1))


def sends_a_wrong_length(data: bytes, source: Address) -> bytes | None:
    reply = right(data, source)
    return None if reply is None else wire.with_length(reply, 400)


def echoes(data: bytes, _source: Address) -> bytes | None:
    return data


def is_deaf(_data: bytes, _source: Address) -> bytes | None:
    return None


def success(request: Message, source: Address) -> Draft:
    """The success response to any request."""
    draft = Draft(request.method, wire.SUCCESS, request.transaction_id)
    return draft.add(wire.XOR_MAPPED_ADDRESS, wire.write_xor_address(source, request.transaction_id))


KNOWN = frozenset(wire.ATTRIBUTE_NAMES)


def _request(data: bytes) -> Message | None:
    try:
        return wire.decode(data)
    except Malformed:
        return None
