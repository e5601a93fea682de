"""A network in virtual time: hosts behind NATs, latency, loss, relays that are real TURN servers, and a portal's mail.

Everything runs in one thread and is the same in every run. `World.run` jumps from one due moment to the next.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from wardgate._fastpath import DatagramUpcall, Engine, PacketUpcall, SessionUpcall, StaticKey
from wardgate.ids import RelayId
from wardgate.proto.turn_config import TurnConfig
from wardgate.proto.turn_events import OpenPort
from wardgate.proto.turn_server import TurnServer
from wardgate.tunnel.connections import (
    Connections,
    Event,
    InvalidatedCandidates,
    NewCandidates,
    Path,
    PathChanged,
)
from wardgate.wire import turn
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.portal import IceCredentials, Relay
from wardgate.wire.turn import Username

EPOCH = 1_800_000_000.0
USER_EXPIRES_AT = 2_145_916_800
PORTAL_DELAY_S = 0.010
MAX_STEPS_AT_ONE_TIME = 2_000
Mapping = Literal["cone", "symmetric"]
Filtering = Literal["none", "address", "port"]


class Node(Protocol):
    """Something with a clock on the network."""

    def handle_datagram(self, source: SocketAddr, destination: SocketAddr, payload: bytes, now: float) -> None: ...
    def handle_timeout(self, now: float) -> None: ...
    def poll_timeout(self) -> float | None: ...


@dataclass(slots=True)
class _Mapped:
    internal: SocketAddr
    external: SocketAddr
    key: SocketAddr | None
    allowed: dict[SocketAddr, float] = field(default_factory=dict)
    used_at: float = 0.0


class Nat:
    """A NAT with one public address.

    "cone" maps a source to one port whatever the destination, and keeps the source's port if it is free; "symmetric"
    takes another port for each destination. Filtering says who may answer: anybody, or contacted addresses, or ports.
    """

    def __init__(
        self,
        public: str,
        mapping: Mapping = "cone",
        filtering: Filtering = "port",
        idle_s: float = 120.0,
        first_port: int = 20_000,
        keeps_ports: bool = True,
    ) -> None:
        self.public = public
        self.mapping = mapping
        self.filtering = filtering
        self.idle_s = idle_s
        self._mapped: list[_Mapped] = []
        self._next_port = first_port
        self._keeps_ports = keeps_ports
        self._forwarded: dict[int, SocketAddr] = {}
        self._called: set[SocketAddr] = set()

    def outbound(self, source: SocketAddr, destination: SocketAddr, now: float) -> SocketAddr:
        """The source that the world sees."""
        self._expire(now)
        if self._forwarded.get(source.port) == source and destination in self._called:
            return SocketAddr(self.public, source.port)
        key = destination if self.mapping == "symmetric" else None
        known = next((one for one in self._mapped if one.internal == source and one.key == key), None)
        if known is None:
            known = _Mapped(source, SocketAddr(self.public, self._port(source)), key)
            self._mapped.append(known)
        known.used_at = now
        known.allowed[destination] = now
        return known.external

    def inbound(self, source: SocketAddr, destination: SocketAddr, now: float) -> SocketAddr | None:
        """The host behind that is meant, if the datagram may pass."""
        self._expire(now)
        for known in self._mapped:
            if known.external == destination and self._admits(known, source):
                known.used_at = now
                return known.internal
        forwarded = self._forwarded.get(destination.port)
        if forwarded:
            self._called.add(source)
        return forwarded

    def forward(self, internal: SocketAddr) -> None:
        """Hands what comes to the same public port to this host, whoever sends it."""
        self._forwarded[internal.port] = internal

    def change_ports(self) -> None:
        """Loses its table and takes other ports from now on."""
        self._mapped.clear()
        self._keeps_ports = False

    def _port(self, source: SocketAddr) -> int:
        taken = {one.external.port for one in self._mapped}
        if self.mapping == "cone" and self._keeps_ports and source.port not in taken:
            return source.port
        self._next_port += 1
        return self._next_port

    def _admits(self, known: _Mapped, source: SocketAddr) -> bool:
        match self.filtering:
            case "none":
                return True
            case "address":
                return any(allowed.host == source.host for allowed in known.allowed)
            case "port":
                return source in known.allowed

    def _expire(self, now: float) -> None:
        self._mapped = [one for one in self._mapped if now < one.used_at + self.idle_s]


@dataclass
class Attachment:
    """Where a node hangs on the network."""

    node: Node
    nat: Nat | None = None
    latency_s: float = 0.005
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicates: float = 0.0
    is_up: bool = True


class World:
    """The network, its clock and everybody on it."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.delivered: list[tuple[float, SocketAddr, SocketAddr, bytes]] = []
        self._by_host: dict[str, Attachment] = {}
        self._nats: dict[str, Nat] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    # building

    def attach(self, host: str, node: Node, **options: object) -> Attachment:
        """Puts a node on the network."""
        attachment = Attachment(node, **options)  # type: ignore[arg-type]
        self._by_host[host] = attachment
        if attachment.nat:
            self._nats[attachment.nat.public] = attachment.nat
        return attachment

    def detach(self, host: str) -> None:
        """Takes a node off the network for good."""
        del self._by_host[host]

    def attachment(self, host: str) -> Attachment:
        """Where the node of that address hangs."""
        return self._by_host[host]

    # traffic

    def send(self, source: SocketAddr, destination: SocketAddr, payload: bytes) -> None:
        """Sends a datagram from a host's own address; what cannot arrive is lost."""
        sender = self._by_host.get(source.host)
        if sender is None or not sender.is_up:
            return
        seen = sender.nat.outbound(source, destination, self.now) if sender.nat else source
        if self.random.random() < sender.loss:
            return
        for _ in range(self._copies(sender)):
            delay_s = self._delay_s(sender)
            self.at(self.now + delay_s, lambda: self._cross(seen, destination, payload, sender))

    def _copies(self, attachment: Attachment) -> int:
        return 2 if attachment.duplicates and self.random.random() < attachment.duplicates else 1

    def _delay_s(self, attachment: Attachment) -> float:
        """Jitter makes datagrams overtake each other."""
        jitter_s = attachment.jitter_s
        return attachment.latency_s + (self.random.uniform(0.0, jitter_s) if jitter_s else 0.0)

    def _cross(self, source: SocketAddr, destination: SocketAddr, payload: bytes, sender: Attachment) -> None:
        nat = self._nats.get(destination.host)
        inner = nat.inbound(source, destination, self.now) if nat else destination
        receiver = self._by_host.get(inner.host) if inner else None
        reachable = receiver is not None and (receiver.nat is nat)
        if inner is None or receiver is None or not reachable or (receiver is sender and nat):
            return
        if not receiver.is_up or self.random.random() < receiver.loss:
            return
        self.at(
            self.now + self._delay_s(receiver), lambda: self._deliver(receiver, source, inner, destination, payload)
        )

    def _deliver(
        self, receiver: Attachment, source: SocketAddr, inner: SocketAddr, destination: SocketAddr, payload: bytes
    ) -> None:
        if receiver.is_up:
            self.delivered.append((self.now, source, destination, payload))
            receiver.node.handle_datagram(source, inner, payload, self.now)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Does something at that time."""
        self._sequence += 1
        heapq.heappush(self._queue, (when, self._sequence, action))

    # time

    def run(self, for_s: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Lets time pass, until something is so; returns whether it is."""
        end = self.now + for_s
        steps, last = 0, self.now
        while not until():
            due = [attachment.node.poll_timeout() for attachment in self._by_host.values()]
            times = [at for at in due if at is not None] + ([self._queue[0][0]] if self._queue else [])
            at = max(self.now, min(times, default=end))
            if at > end:
                self.now = end
                return until()
            steps, last = (steps + 1, last) if at == last else (0, at)
            assert steps < MAX_STEPS_AT_ONE_TIME, "somebody is always due"
            self.now = at
            self._step()
            if not times:
                self.now = end
                return until()
        return True

    def _step(self) -> None:
        while self._queue and self._queue[0][0] <= self.now:
            heapq.heappop(self._queue)[2]()
        for attachment in list(self._by_host.values()):
            due = attachment.node.poll_timeout()
            if due is not None and due <= self.now:
                attachment.node.handle_timeout(self.now)


class RelayNode:
    """A relay: the real TURN server."""

    def __init__(self, world: World, host: str, secret: str = "ab" * 32, number: int = 1, **options: object):
        self.world = world
        self.host = host
        self.relay_id = RelayId(f"00000000-0000-4000-8000-{number:012}")
        self.secret = secret
        self.server = TurnServer(TurnConfig(host), secret, EPOCH, world.random.randbytes)
        world.attach(host, self, **options)

    def announced_to(self, salt: str) -> Relay:
        """What the portal tells a device about this relay."""
        user = Username(USER_EXPIRES_AT, salt)
        return Relay(
            id=self.relay_id,
            addr=SocketAddr(self.host, turn.DEFAULT_PORT),
            username=str(user),
            password=turn.password_of(user, self.secret),
            expires_at=USER_EXPIRES_AT,
        )

    def handle_datagram(self, source: SocketAddr, destination: SocketAddr, payload: bytes, now: float) -> None:
        if destination.port == turn.DEFAULT_PORT:
            self.server.handle_datagram(source, payload, now)
        else:
            self.server.handle_peer_datagram(destination.port, source, payload)
        self._drain(now)

    def handle_timeout(self, now: float) -> None:
        self.server.handle_timeout(now)
        self._drain(now)

    def poll_timeout(self) -> float | None:
        return self.server.poll_timeout()

    def _drain(self, now: float) -> None:
        while event := self.server.poll_event():
            if isinstance(event, OpenPort):
                self.server.handle_port_opened(event.port, now)
        while transmit := self.server.poll_transmit():
            assert transmit.local
            self.world.send(transmit.local, transmit.remote, transmit.payload)


class Device:
    """A client or gateway: the real engine and the real `Connections`, without routing or policy."""

    def __init__(
        self,
        world: World,
        name: str,
        host: str,
        role: Literal["client", "gateway"],
        port: int = 52625,
        **options: object,
    ) -> None:
        self.world = world
        self.name = name
        self.address = SocketAddr(host, port)
        self.engine = Engine()
        self.static = StaticKey.from_bytes(world.random.randbytes(32))
        self.connections = Connections(self.engine, self.static, role, EPOCH, world.random.randbytes)
        self.events: list[tuple[float, Event]] = []
        self.packets: list[tuple[float, bytes]] = []
        self.mail: dict[str, Device] = {}
        self.is_portal_up = True
        world.attach(host, self, **options)

    def learn(self, *relays: RelayNode, forget: tuple[RelayId, ...] = ()) -> None:
        """The portal announces relays."""
        announced = [relay.announced_to(self.name) for relay in relays]
        self.connections.update_relays(forget, announced, self.world.now)
        self._drain()

    def send(self, peer: "Device", packet: bytes) -> bool:
        """Sends a packet through the tunnel, as Python's own."""
        sent = self.connections.send(peer.name, packet, self.world.now)
        self._drain()
        return sent

    def send_tun(self, packet: bytes) -> None:
        """Sends an application's packet: it comes from the TUN device."""
        for local, remote, payload in self.engine.handle_tun(packet, self.world.now):
            self._transmit(Transmit(SocketAddr(*local) if local else None, SocketAddr(*remote), payload))
        self._upcalls()

    def move(self, host: str, **options: object) -> None:
        """The host gets another address, maybe behind another NAT."""
        self.world.detach(self.address.host)
        self.address = SocketAddr(host, self.address.port)
        self.world.attach(host, self, **options)

    def reset(self) -> bool:
        """The program notices that its network changed."""
        kept = self.connections.reset(self.world.now)
        self._drain()
        return kept

    def handle_datagram(self, source: SocketAddr, destination: SocketAddr, payload: bytes, now: float) -> None:
        if destination.port != self.address.port:
            return
        self.packets += [(now, packet) for packet in self.engine.handle_datagram(destination, source, payload, now)]
        self._upcalls()

    def handle_timeout(self, now: float) -> None:
        self.connections.handle_timeout(now)
        self._drain()

    def poll_timeout(self) -> float | None:
        return self.connections.poll_timeout()

    def _upcalls(self) -> None:
        now = self.world.now
        for upcall in self.engine.poll_upcalls():
            match upcall:
                case DatagramUpcall():
                    self.connections.handle_datagram(upcall, now)
                case SessionUpcall():
                    self.connections.handle_session(upcall, now)
                case PacketUpcall():
                    if not self.connections.handle_probe(upcall, now):
                        self.packets.append((now, upcall.packet))
        self._drain()

    def _drain(self) -> None:
        while transmit := self.connections.poll_transmit():
            self._transmit(transmit)
        while event := self.connections.poll_event():
            self.events.append((self.world.now, event))
            self._post(event)

    def _transmit(self, transmit: Transmit) -> None:
        source = transmit.local or self.address
        self.world.send(source, transmit.remote, transmit.payload)

    def _post(self, event: Event) -> None:
        """Candidates travel through the portal."""
        if not isinstance(event, NewCandidates | InvalidatedCandidates) or not self.is_portal_up:
            return
        peer = self.mail.get(event.peer_id)
        if peer:
            self.world.at(self.world.now + PORTAL_DELAY_S, lambda: peer.receive(self.name, event))

    def receive(self, sender: str, event: NewCandidates | InvalidatedCandidates) -> None:
        """The portal brings candidates."""
        now = self.world.now
        if isinstance(event, NewCandidates):
            self.connections.add_remote_candidates(sender, event.lines, now)
        else:
            self.connections.remove_remote_candidates(sender, event.lines, now)
        self._drain()

    # what happened

    def happened(self, kind: type[Event]) -> list[Event]:
        """The events of a kind, in order."""
        return [event for _, event in self.events if isinstance(event, kind)]

    def time_of(self, kind: type[Event]) -> float:
        """When the first event of that kind happened."""
        return next(at for at, event in self.events if isinstance(event, kind))

    def path(self) -> Path:
        """The current path to the only peer."""
        changes = [event for event in self.happened(PathChanged) if isinstance(event, PathChanged)]
        return changes[-1].path

    def upsert(self, peer: "Device", *, controlling: bool, iceless: bool) -> None:
        """The portal says to connect to a peer."""
        ours, theirs = self.credentials_with(peer)
        self.mail[peer.name] = peer
        public = peer.static.public_key
        self.connections.upsert(peer.name, public, bytes(32), ours, theirs, controlling, iceless, self.world.now)
        self._drain()

    def credentials_with(self, peer: "Device") -> tuple[IceCredentials, IceCredentials]:
        """Ours and the peer's, as the portal derives them from both keys."""
        initiator, receiver = sorted((self, peer), key=lambda device: device.connections.role)
        return _credentials(initiator, receiver, self), _credentials(initiator, receiver, peer)

    def renew_key(self) -> None:
        """Takes a new key pair, as after a reset that closed every connection."""
        self.static = StaticKey.from_bytes(self.world.random.randbytes(32))
        self.connections.set_static(self.static)
        self._drain()


def connect(client: Device, gateway: Device, *, iceless: bool) -> None:
    """An authorization: the gateway hears of the client first."""
    world = client.world
    world.at(world.now + PORTAL_DELAY_S, lambda: client.upsert(gateway, controlling=True, iceless=iceless))
    gateway.upsert(client, controlling=False, iceless=iceless)


def _credentials(initiator: Device, receiver: Device, of: Device) -> IceCredentials:
    keys = (end.static.public_key for end in (initiator, receiver, of))
    tag = hashlib.sha256(b"".join(keys)).hexdigest()
    return IceCredentials(username=tag[-4:], password=tag[:22])
