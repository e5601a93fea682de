"""What checks work with: clients that talk to the server and say in failures what was sent and what came."""

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from conformance import wire
from conformance.credentials import User, Users
from conformance.links import Link, Peer, open_link
from conformance.registry import Failed, NotApplicable, NotTested
from conformance.wire import Address, Draft, Malformed, Message

stopping = threading.Event()
"""Set when the program is to end, so that nobody waits minutes for a thread."""


@dataclass(frozen=True)
class Target:
    """The server under test and how to reach it.

    Attributes:
        realm: The realm our credentials are for; `None` takes the server's word.
        peer_host: Where our own peers are bound.
        server6: The same server at an IPv6 address, if it has one.
        answer_s: How long an answer may take before the request is sent again, and then once more.
        silence_s: How long nothing must come before we say that nothing comes.
    """

    server: Address
    users: Users
    peer_host: str
    transport: str = "udp"
    realm: str | None = None
    server6: Address | None = None
    answer_s: float = 0.5
    silence_s: float = 0.25


@dataclass(frozen=True)
class Facts:
    """What the first look at the server showed.

    Attributes:
        authenticates: Whether Allocate needs credentials.
        no_turn: Why nothing of TURN can be tested; empty if it can.
        untested: Whether that is for want of credentials.
    """

    authenticates: bool = True
    no_turn: str = ""
    untested: bool = False


class Delivery(NamedTuple):
    """Data of a peer as the client got it, in a Data indication (with `peer`) or as channel data (with `channel`)."""

    payload: bytes
    peer: Address | None
    channel: int | None
    raw: bytes


@dataclass(frozen=True)
class Exchange:
    """A request and what became of it."""

    sent: str
    answer: Message | None
    key: bytes | None = None

    def expect_success(self) -> Message:
        """The success response.

        Raises:
            Failed: Something else came.
        """
        if self.answer is None or self.answer.message_class != wire.SUCCESS:
            raise self.failed("a success response")
        return self.answer

    def expect_error(self, *codes: int) -> Message:
        """The error response, with one of these codes.

        Raises:
            Failed: Something else came.
        """
        if self.answer is None or self.answer.error_code not in codes or self.answer.message_class != wire.ERROR:
            raise self.failed(" or ".join(str(code) for code in codes))
        return self.answer

    def expect_nothing(self) -> None:
        if self.answer is not None:
            raise self.failed("no answer")

    def failed(self, expected: str) -> Failed:
        return Failed(f"sent {self.sent}; expected {expected}, got {self.answer or 'no answer'}")


class Client:
    """One 5-tuple, with what a TURN client remembers of it."""

    def __init__(self, lab: "Lab", link: Link, user: User | None) -> None:
        self.link = link
        self.user = user
        self.realm = lab.target.realm or ""
        self.nonce = b""
        self.relayed: list[Address] = []
        self._lab = lab
        self._target = lab.target
        self._allocated = False
        self._backlog: deque[bytes] = deque()

    # requests

    def ask(self, draft: Draft, data: bytes | None = None, *, patience_s: float | None = None) -> Exchange:
        """Sends a request as it is, a second time if nothing comes, and waits for the answer with its transaction id.

        Args:
            data: What to send instead of the draft's bytes.

        Raises:
            Failed: The answer is malformed.
        """
        request = draft.encode() if data is None else data
        wait_s = self._target.answer_s if patience_s is None else patience_s
        for _ in range(1 if self.link.reliable else 2):
            self.link.send(request)
            answer = self._answer_to(draft, wait_s * (2 if self.link.reliable else 1))
            if answer is not None:
                if answer.method == wire.ALLOCATE and answer.message_class == wire.SUCCESS:
                    self._allocated = True
                    self.relayed = answer.addresses(wire.XOR_RELAYED_ADDRESS)
                return Exchange(str(draft), answer, self.key)
        return Exchange(str(draft), None, self.key)

    def ask_once(self, draft: Draft, data: bytes | None = None) -> Exchange:
        """Sends once and waits only as long as silence takes; for what should stay unanswered."""
        self.link.send(draft.encode() if data is None else data)
        return Exchange(str(draft), self._answer_to(draft, self._target.silence_s))

    def ask_signed(self, draft: Draft) -> Exchange:
        """The same with our credentials, for a server that wants them; a stale nonce is renewed once."""
        exchange = self.ask(self.signed(draft))
        if exchange.answer is not None and exchange.answer.error_code == 438:
            self.nonce = exchange.answer.first(wire.NONCE) or b""
            exchange = self.ask(self.signed(draft))
        return exchange

    def signed(self, draft: Draft, user: User | None = None) -> Draft:
        """A copy with USERNAME, REALM, NONCE and MESSAGE-INTEGRITY."""
        signed = self.named(draft, user)
        return signed.integrity(self.key_of(user)) if self._lab.facts.authenticates else signed

    def named(self, draft: Draft, user: User | None = None) -> Draft:
        """A copy with USERNAME, REALM and NONCE only."""
        copy = replace(draft, types=list(draft.types))
        if not self._lab.facts.authenticates:
            return copy
        if not self.nonce:
            self.challenge()
        name = (user or self._own_user()).name
        copy.add(wire.USERNAME, name.encode()).add(wire.REALM, self.realm.encode()).add(wire.NONCE, self.nonce)
        return copy

    def challenge(self) -> Message:
        """Has the server say its realm and nonce, and remembers them."""
        answer = self.ask(Draft(wire.ALLOCATE).transport().because("no credentials")).expect_error(401)
        realm, nonce = answer.first(wire.REALM), answer.first(wire.NONCE)
        if realm is None or nonce is None:
            raise Failed(
                f"sent Allocate request without credentials; expected REALM and NONCE in the 401, got {answer}"
            )
        self.realm = self._target.realm or realm.decode(errors="replace")
        self.nonce = nonce
        return answer

    @property
    def key(self) -> bytes | None:
        return self.key_of(None) if self.user is not None and self.realm else None

    def key_of(self, user: User | None) -> bytes:
        name, password = user or self._own_user()
        return wire.md5_key(name, self.realm, password)

    # what most checks begin with

    def allocate(self, draft: Draft | None = None) -> Address:
        """Gets an allocation and returns its first relayed address."""
        exchange = self.ask_signed(draft or Draft(wire.ALLOCATE).transport())
        exchange.expect_success()
        if not self.relayed:
            raise exchange.failed("XOR-RELAYED-ADDRESS")
        return self.relayed[0]

    def permit(self, *peers: Address) -> Self:
        draft = Draft(wire.CREATE_PERMISSION)
        for peer in peers:
            draft.peer(peer)
        self.ask_signed(draft).expect_success()
        return self

    def bind(self, number: int, peer: Address) -> Self:
        self.ask_signed(Draft(wire.CHANNEL_BIND).channel(number).peer(peer)).expect_success()
        return self

    def send_to(self, peer: Address, payload: bytes) -> Draft:
        """Sends a Send indication."""
        draft = Draft(wire.SEND, wire.INDICATION).peer(peer).data(payload)
        self.link.send(draft.encode())
        return draft

    # what comes without being asked for

    def delivery(self, timeout_s: float | None = None) -> Delivery | None:
        """The next data of a peer."""
        deadline = time.monotonic() + (self._target.answer_s if timeout_s is None else timeout_s)
        while (data := self._next(deadline)) is not None:
            if 0x40 <= data[0] <= 0x7F and len(data) >= 4:
                size = int.from_bytes(data[2:4], "big")
                return Delivery(data[4 : 4 + size], None, int.from_bytes(data[:2], "big"), data)
            message = _decoded(data)
            if message and (message.method, message.message_class) == (wire.DATA_METHOD, wire.INDICATION):
                payload = message.first(wire.DATA)
                if payload is not None:
                    return Delivery(payload, message.address(wire.XOR_PEER_ADDRESS), None, data)
        return None

    def hear(self, timeout_s: float | None = None) -> bytes | None:
        """The next message of any kind."""
        return self._next(time.monotonic() + (self._target.silence_s if timeout_s is None else timeout_s))

    def close(self) -> None:
        """Frees the allocation, so that later checks meet an untouched server."""
        if self._allocated:
            with contextlib.suppress(Failed, NotTested, OSError):  # a server gone mad must not take the suite with it
                self.ask(self.signed(Draft(wire.REFRESH).lifetime(0)), patience_s=0.2)
        self.link.close()

    def _own_user(self) -> User:
        if self.user is None:
            raise NotTested("needs credentials: --username and --password, or --secret")
        return self.user

    def _answer_to(self, draft: Draft, wait_s: float) -> Message | None:
        deadline = time.monotonic() + wait_s
        strange: list[bytes] = []
        try:
            while (data := self._next(deadline)) is not None:
                if data[8:20] == draft.transaction_id and data[0] < 0x40:
                    try:
                        answer = wire.decode(data)
                    except Malformed as error:
                        raise Failed(f"sent {draft}; the answer is malformed: {error}") from error
                    if answer.message_class in (wire.SUCCESS, wire.ERROR):
                        return answer
                strange.append(data)
            return None
        finally:
            self._backlog.extendleft(reversed(strange))

    def _next(self, deadline: float) -> bytes | None:
        while True:
            data = self._backlog.popleft() if self._backlog else self.link.receive(deadline - time.monotonic())
            if data != b"":
                return data


class Lab:
    """Everything one check uses; what it opened is closed behind it."""

    def __init__(self, target: Target, facts: Facts) -> None:
        self.target = target
        self.facts = facts
        self._clients: list[Client] = []
        self._peers: list[Peer] = []

    def client(self, user: User | None = None, *, server: Address | None = None, transport: str = "") -> Client:
        """A client on a fresh 5-tuple."""
        link = open_link(transport or self.target.transport, server or self.target.server)
        client = Client(self, link, user or self.target.users.take())
        self._clients.append(client)
        return client

    def other_user(self) -> User:
        """A second user, with another name."""
        other = self.target.users.take_other()
        if other is None:
            raise NotTested("needs a second user: --other-username and --other-password, or --secret")
        return other

    def peer(self, host: str | None = None) -> Peer:
        """A peer that the relay can reach."""
        peer = Peer(host or self.target.peer_host)
        self._peers.append(peer)
        return peer

    def distant_peer(self) -> Peer:
        """A peer with another IP address than `peer`."""
        if not self.target.peer_host.startswith("127."):
            raise NotTested("needs a second local address; there is one only where peers are on 127.0.0.0/8")
        return self.peer("127.0.0.77")

    def allocated(self) -> tuple[Client, Peer, Address]:
        """A client with an allocation, a peer without permission, and the relayed address."""
        client, peer = self.client(), self.peer()
        return client, peer, client.allocate()

    def need_authentication(self) -> None:
        if not self.facts.authenticates:
            raise NotApplicable("the server asks nobody for credentials")

    def sleep(self, seconds: float) -> None:
        """Waits for something to expire; the end of the program ends it early."""
        if stopping.wait(seconds):
            raise NotTested("interrupted")

    @property
    def silence_s(self) -> float:
        return self.target.silence_s

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for peer in self._peers:
            peer.close()


def seen(data: "bytes | Delivery | tuple[bytes, Address] | None") -> str:
    """What came, in words."""
    match data:
        case None:
            return "nothing"
        case Delivery(payload, peer, None):
            return f"a Data indication of {len(payload)} bytes from {peer}"
        case Delivery(payload, None, channel):
            return f"{len(payload)} bytes on channel 0x{channel:04x}"
        case bytes() if len(data) >= 4 and 0x40 <= data[0] <= 0x7F:
            return f"ChannelData 0x{data[:2].hex()} of {int.from_bytes(data[2:4], 'big')} bytes"
        case bytes():
            message = _decoded(data)
            return str(message) if message else f"{len(data)} bytes that are no STUN message ({data[:8].hex()}...)"
        case _:
            return f"{len(data[0])} bytes from {data[1]}"


def _decoded(data: bytes) -> Message | None:
    try:
        return wire.decode(data)
    except Malformed:
        return None
