"""The types of the compiled module: the whole seam between Python and Rust.

Python decides, Rust forwards. The `Engine` owns three exact-match tables: sessions (keys, counters, replay window),
paths (where a peer's datagrams go) and flows (5-tuple -> rewrite and forward). A hit never touches Python; a miss is an
upcall. Every call takes its time as an argument (monotonic seconds, CLOCK_MONOTONIC) and does no I/O; `TunnelIo` is the
shell of threads and sockets around an engine. Addresses are `(host text, port)` tuples.
"""

from typing import Literal, final

Addr = tuple[str, int]
Datagram = tuple[Addr | None, Addr, bytes]
"""`(local, remote, payload)`: local is the source address to send from, or the address it arrived on."""

class HandshakeError(Exception):
    """The Noise message is malformed, not for us, or fails authentication. The object that raised is unchanged."""

# --- Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, construction and identifier of WireGuard; keys never leave Rust ---

@final
class StaticKey:
    """An X25519 key pair."""

    @staticmethod
    def from_bytes(private: bytes) -> StaticKey: ...
    @property
    def public_key(self) -> bytes: ...

@final
class Keypair:
    """Transport keys of one finished handshake, opaque; given to `Engine.add_session` once."""

    @property
    def local_index(self) -> int: ...
    @property
    def remote_index(self) -> int: ...
    @property
    def is_initiator(self) -> bool: ...

@final
class Initiation:
    """The initiator's half of a handshake, waiting for the response."""

    @staticmethod
    def start(
        static: StaticKey, remote_public: bytes, psk: bytes, sender_index: int, timestamp: bytes, ephemeral: bytes
    ) -> tuple[Initiation, bytes]:
        """Makes the 148-byte message; its last 32 bytes (mac1, mac2) are zero and Python's to fill.

        Args:
            timestamp: 12 bytes, TAI64N.
            ephemeral: 32 random bytes, the ephemeral private key.
        """

    def finish(self, response: bytes) -> Keypair:
        """Reads a 92-byte response (macs not checked here). A failed attempt leaves the initiation usable."""

@final
class OpenedInitiation:
    """A peer's initiation whose static key and timestamp were decrypted; not yet answered."""

    @staticmethod
    def open(static: StaticKey, message: bytes) -> OpenedInitiation:
        """Reads a 148-byte message (macs not checked here)."""

    @property
    def remote_public(self) -> bytes: ...
    @property
    def timestamp(self) -> bytes: ...
    @property
    def sender_index(self) -> int: ...
    def respond(self, psk: bytes, sender_index: int, ephemeral: bytes) -> tuple[bytes, Keypair]:
        """Makes the 92-byte response, its last 32 bytes zero, and our keys. May be called once."""

def xchacha20poly1305_seal(key: bytes, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
    """For cookie replies: 24-byte nonce."""

def xchacha20poly1305_open(key: bytes, nonce: bytes, aad: bytes, ciphertext: bytes) -> bytes:
    """Raises `HandshakeError` if it does not authenticate."""

# --- upcalls: sources of packets take turns; session events and datagrams go before them ---

@final
class PacketUpcall:
    """An IP packet that no flow knows.

    Attributes:
        peer: Who sent it through the tunnel; `None` if it came from the TUN device.
        packet: The IP packet. Of a TUN super-packet only the first segment is here, the rest was dropped and counted.
        local, remote: Where its datagram arrived and came from (the relay for relayed ones); `None` from the TUN.
        channel: The relay channel it arrived on, if any.
        target: What access depends on, to look decisions up by: protocol, destination port (2 bytes, 0 if it has none),
            source and destination address. `None` if the packet opens no flow; of ICMP only echo requests do.
        inside: What a translation depends on: protocol, source port (or ICMP identifier), destination address. `None`
            likewise.
    """

    @staticmethod
    def of(peer: int | None, packet: bytes) -> PacketUpcall:
        """A packet as if it had come in. Raises ValueError if it is of a kind that never passes."""

    @property
    def peer(self) -> int | None: ...
    @property
    def packet(self) -> bytes: ...
    @property
    def local(self) -> Addr | None: ...
    @property
    def remote(self) -> Addr | None: ...
    @property
    def channel(self) -> int | None: ...
    @property
    def target(self) -> bytes | None: ...
    @property
    def inside(self) -> bytes | None: ...

@final
class DatagramUpcall:
    """A datagram that is not a data message: STUN, handshake, cookie, unknown. Relayed ones come whole.

    Data messages of sessions that we do not have are counted and dropped.
    """

    local: Addr
    remote: Addr
    payload: bytes

@final
class SessionUpcall:
    """Something about a peer's sessions that Python has to act on.

    Attributes:
        kind: `confirmed`: the first valid packet of a session that we answered; `missing`: a packet wanted to leave
            and no session could seal it (at most one such upcall a peer and second); `exhausted`: counter near its end;
            `woken`: a message of a peer that was put to sleep was sent or received.
        local_index: The session's; 0 for `missing` and `woken`.
    """

    kind: Literal["confirmed", "missing", "exhausted", "woken"]
    peer: int
    local_index: int

Upcall = PacketUpcall | DatagramUpcall | SessionUpcall
Decided = tuple[PacketUpcall, int, int, bytes]
"""`(packet, peer, authorization, outside)`: a packet that may pass.

`outside` is how a packet from a peer is to look on the TUN device: protocol, source port (or identifier) and
destination address; empty if it stays as it is.
"""

# --- tables ---

@final
class Flow:
    """One flow to install: both directions at once.

    "Outbound" is the direction of the flow's first packet. `inner` is how outbound packets look inside the tunnel,
    `host` how they look on the TUN device; they differ where a gateway translates. For ICMP echo both ports are the
    identifier (type by direction: request outbound, reply inbound, or the other way round if `icmp_reply_first`); for
    protocols without ports they are 0.

    Attributes:
        from_peer: The first packet came through the tunnel (a gateway, mostly); else it came from the TUN device.
        authorization: A number of Python's choice, to remove flows by; 0 for none.
        idle_s: Gone after so long without a packet in either direction once it was confirmed by an inbound packet.
        unconfirmed_idle_s: Gone after so long since the last outbound packet while no inbound packet was seen.
    """

    def __new__(
        cls,
        *,
        flow_id: int,
        peer: int,
        authorization: int,
        protocol: int,
        inner_source: Addr,
        inner_destination: Addr,
        host_source: Addr,
        host_destination: Addr,
        from_peer: bool,
        idle_s: float,
        unconfirmed_idle_s: float,
        icmp_reply_first: bool = False,
    ) -> Flow:
        """Raises ValueError if the addresses are of different families."""

@final
class FlowReport:
    """A flow's figures, when asked for or when it is gone.

    Attributes:
        inside: Protocol, source port (or identifier) and destination address of its first packet in the tunnel.
        is_translated: Whether it looks different on the TUN device.
    """

    @property
    def flow_id(self) -> int: ...
    @property
    def peer(self) -> int: ...
    @property
    def authorization(self) -> int: ...
    @property
    def protocol(self) -> int: ...
    @property
    def inner_source(self) -> Addr: ...
    @property
    def inner_destination(self) -> Addr: ...
    @property
    def host_source(self) -> Addr: ...
    @property
    def host_destination(self) -> Addr: ...
    @property
    def inside(self) -> bytes: ...
    @property
    def from_peer(self) -> bool: ...
    @property
    def is_translated(self) -> bool: ...
    @property
    def outbound_packets(self) -> int: ...
    @property
    def outbound_bytes(self) -> int: ...
    @property
    def inbound_packets(self) -> int: ...
    @property
    def inbound_bytes(self) -> int: ...
    @property
    def created_at(self) -> float: ...
    @property
    def last_used_at(self) -> float: ...
    @property
    def finished(self) -> Literal["", "fin", "rst"]: ...

@final
class PeerActivity:
    """When a peer's tunnel was last used; 0.0 means never. "Data" is any transport message with a packet inside."""

    last_data_sent_at: float
    last_data_received_at: float
    last_sent_at: float
    last_received_at: float
    first_unanswered_at: float
    """When data was first sent after the last authentic message received; 0.0 if nothing is unanswered."""
    last_flow_packet_at: float
    """Application packets only, either direction."""
    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int
    sending_index: int
    """Local index of the session that seals now; 0 if none."""

@final
class Engine:
    """Sessions, paths and flows of one process. All methods may be called from any thread."""

    def __init__(
        self,
        *,
        max_peers: int = 16384,
        max_flows: int = 262144,
        max_flows_per_peer: int = 65536,
        upcall_capacity: int = 4096,
        upcalls_per_peer: int = 1024,
        mtu: int = 1280,
    ) -> None: ...

    # sessions: at most 8 a peer, the oldest goes; reject-after 180 s, replay window 8192
    def add_session(self, peer: int, keypair: Keypair, now: float, initiator_stops_after_s: float = 180.0) -> None:
        """Ours as initiator seals at once; as responder after its first valid packet (`confirmed`). Raises KeyError
        if the index is taken, ValueError if the keypair was used before, OverflowError if there are too many peers."""

    def remove_session(self, local_index: int) -> bool: ...

    # paths
    def set_path(self, peer: int, local: Addr | None, remote: Addr, channel: int | None = None) -> None:
        """Where the peer's datagrams go: directly, or as channel data of that number to the relay `remote`."""

    def clear_path(self, peer: int) -> None: ...
    def add_channel(self, relay: Addr, channel: int) -> None:
        """Channel data of that number from that relay is unwrapped; other channel data of a known relay is dropped."""

    def remove_channel(self, relay: Addr, channel: int) -> None: ...
    def add_relay(self, relay: Addr) -> None: ...
    def remove_relay(self, relay: Addr) -> None:
        """Forgets it with its channels."""

    def remove_peer(self, peer: int) -> list[FlowReport]:
        """Removes its sessions, path and flows."""

    # flows; a TCP flow is over at once after a RST, 5 s after the last packet once both sides sent FIN
    def add_flow(self, flow: Flow, now: float) -> bool:
        """False if a table bound was met (counted) or either key is taken by another live flow; the same id replaces
        and its figures go on."""

    def install(
        self, decided: list[Decided], now: float, idle_s: tuple[float, float, float]
    ) -> tuple[list[bytes], list[Datagram], list[tuple[int, Literal["known", "full", "taken"]]]]:
        """Opens the flows of packets that missed, numbered here, and passes each packet on its flow.

        Args:
            decided: Who may pass, and as what.
            idle_s: Of confirmed TCP flows, of other confirmed flows, and of unconfirmed ones.

        Returns:
            Packets for the TUN device, datagrams to send, and by position what did not become a new flow: `known`
            passed on a flow that was opened meanwhile, `full` met a bound, `taken` looks like another flow on the TUN
            device.

        Raises:
            ValueError: A packet opens no flow, or what it is to look like is not possible. Nothing was done.
        """

    def remove_flow(self, flow_id: int) -> FlowReport | None: ...
    def remove_flows(self, peer: int, authorization: int | None = None) -> list[FlowReport]: ...
    def expire_flows(self, now: float, limit: int = 4096) -> list[FlowReport]: ...
    def flows(self, limit: int = 4096, after: int = 0) -> list[FlowReport]:
        """Those with a greater id than `after`, the lowest first."""

    def flow_count(self) -> int: ...
    def next_flow_due(self) -> float | None:
        """When `expire_flows` has something to do, or an earlier moment; `None` if there is nothing."""

    def flow_by_host(self, protocol: int, source: Addr, destination: Addr, from_peer: bool) -> FlowReport | None:
        """The flow whose outbound packets look like this on the TUN device; of pings, requests."""

    def traffic(self) -> dict[int, tuple[int, int, int, int]]:
        """Outbound packets and bytes, inbound packets and bytes of the flows that are there, by authorization."""

    def sleep(self, peer: int) -> None:
        """Has the next message of a peer that the threads send or receive told as a `woken` upcall, once."""

    # single packets of Python's own making
    def seal(self, peer: int, packet: bytes, now: float, expects_answer: bool = True) -> bytes | None:
        """A transport message around the packet (empty: a keepalive); `None` if no session can seal.

        What expects no answer is not in `PeerActivity.first_unanswered_at`.
        """

    # sans-IO data plane: what the threads do, callable from Python (tests, replays of buffered packets)
    def handle_tun(self, packet: bytes, now: float) -> list[Datagram]:
        """A packet from the TUN device; forwarded ones come back as datagrams, others become upcalls or are counted."""

    def handle_datagram(self, local: Addr, remote: Addr, payload: bytes, now: float) -> list[bytes]:
        """A datagram from the network; the packets for the TUN device come back."""

    def handle_inner(self, peer: int, packet: bytes, now: float) -> list[bytes]:
        """A packet of a peer that was decrypted earlier (a replayed upcall); the packets for the TUN come back."""

    # upcalls: bounded, in all and by source; the newest is dropped and counted
    def poll_upcalls(self, limit: int = 256) -> list[Upcall]: ...
    def upcall_fd(self) -> int:
        """An eventfd, readable while upcalls wait; `poll_upcalls` drains it."""

    def activity(self, peer: int) -> PeerActivity: ...
    def counters(self) -> dict[str, int]:
        """Everything counted, by name: forwarded, dropped and refused of each kind."""

@final
class TunDevice:
    """An open TUN interface (IFF_VNET_HDR with offloads where the kernel has them)."""

    @staticmethod
    def open(name: str, *, mtu: int = 1280, offload: bool = True) -> TunDevice:
        """Raises OSError."""

    @property
    def name(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def offload(self) -> bool: ...
    def close(self) -> None: ...

@final
class TunnelIo:
    """Two native threads around an engine: TUN to network and network to TUN; neither ever takes the GIL."""

    def __init__(
        self,
        engine: Engine,
        tun: TunDevice,
        *,
        udp4_fd: int | None,
        udp6_fd: int | None,
        udp_gso: bool = True,
        udp_gro: bool = True,
    ) -> None:
        """Takes duplicates of the sockets; packet-info options are set here."""

    def start(self) -> None: ...
    def stop(self, timeout_s: float = 1.0) -> None:
        """Ends the threads for good and lets go of the device and the sockets; `TunDevice.close` then closes it."""
    def send(self, datagrams: list[Datagram]) -> int:
        """Sends from Python; returns how many were handed to the kernel. Others are counted."""

    def write_tun(self, packets: list[bytes]) -> int: ...
    def rebind(self, udp4_fd: int | None, udp6_fd: int | None) -> None:
        """Replaces the sockets (roaming)."""

    def failure(self) -> str | None:
        """Why a thread ended by itself, if one did."""

    def step_counters(self) -> dict[str, int]:
        """Batches, system calls, GSO and GRO sizes, errors of the two threads."""

# --- the lab ---

LinkCounters = tuple[int, int, int, int, float]
"""Frames delivered, their bytes, those dropped on a full wire, those refused, and how late the latest was (s)."""

@final
class DelayLine:
    """Carries frames between two TAP devices, each a fixed time after it came in; a thread without the GIL does it."""

    def __init__(self, first_fd: int, second_fd: int, delay_s: float, limit_bytes: int) -> None:
        """Starts carrying; the descriptors are duplicated.

        Raises:
            ValueError: The delay is negative or not a number.
            OSError: A descriptor is not open.
        """

    def set_delay(self, delay_s: float) -> None:
        """The delay of what comes in from now on; frames never overtake each other."""

    def counters(self) -> tuple[LinkCounters, LinkCounters]:
        """From first to second, and back."""

    def stop(self) -> None:
        """Ends the thread and lets go of the devices; harmless when repeated."""

# --- relay ---

def judge_stranger(
    client: Addr,
    datagram: bytes,
    now_s: float,
    *,
    nonce_key: bytes,
    realm: str,
    nonce_cookie: bytes = b"",
    algorithms: bytes = b"",
) -> bytes | bool:
    """What the forwarder makes of a STUN message that is no Send indication.

    Its answer; or, if it is Python's to judge, whether it has a good nonce, so that it need not wait behind strangers.
    """

def decode_channel_data(datagram: bytes) -> tuple[int, bytes] | None:
    """Channel and payload as the forwarder reads them; for tests."""

@final
class RelayIo:
    """A relay's sockets, and native threads that forward between them without the GIL.

    A channel that was added carries data both ways, also to another allocation of this relay; indications pass for
    hosts that were permitted. What is neither is dropped and counted, except other STUN messages on the listening port:
    these are upcalls, or answered here after `answer_strangers`.
    """

    def __init__(
        self,
        *,
        listen_port: int,
        bind4: str | None,
        bind6: str | None,
        public4: str | None,
        public6: str | None,
        upcall_capacity: int = 4096,
        gso: bool = True,
        gro: bool = True,
        xdp: str | None = None,
        xdp_mode: str = "driver",
        threads: int = 1,
    ) -> None:
        """Opens the listening port in each family that has an address to bind. Raises OSError.

        Args:
            public4, public6: By which clients and peers reach the relay; may differ from what is bound.
            gso, gro: Whether datagrams of one flow may share a system call, out and in; falls back by itself.
            xdp: The interface at which the kernel is to forward known channels; falls back, see `offload_error`.
            xdp_mode: `driver` or `generic`, else ValueError.
            threads: How many forward; each has a socket at the listening port, and the kernel shares out the clients.
        """

    def start(self) -> None: ...
    def stop(self, timeout_s: float = 1.0) -> bool:
        """Ends the threads, closes every port, detaches from the kernel; whether the threads ended in time."""

    def answer_strangers(
        self,
        *,
        nonce_key: bytes,
        realm: str,
        refusals_per_s: float,
        refusals_burst: float,
        nonce_cookie: bytes = b"",
        algorithms: bytes = b"",
    ) -> None:
        """From now on plain Binding requests, and Allocates without credentials, are answered without Python.

        Those of TCP and TLS clients, which come from this host itself, are upcalls as before. What has a nonce that is
        good for its client does not wait behind what has none.
        """

    def open_allocation(self, port: int, *, ipv4: bool, ipv6: bool) -> None:
        """Opens the port in each of these families, or in none. Raises OSError."""

    def close_allocation(self, port: int, *, ipv4: bool = True, ipv6: bool = True) -> bool:
        """Closes the port in these families; with the last one its channels and permissions are forgotten."""

    def add_channel(self, client: Addr, channel: int, port: int, peer: Addr) -> None:
        """Idempotent. Raises KeyError if port is no allocation's or either end is taken, OverflowError at the bound."""

    def remove_channel(self, client: Addr, channel: int) -> bool: ...
    def add_permission(self, client: Addr, port: int, host: str) -> None:
        """Lets Send and Data indications pass between the client and any port of the host. Idempotent.

        Raises KeyError if port is no allocation's or another client's.
        """

    def remove_permission(self, port: int, host: str) -> bool: ...
    def send_whole(self, datagrams: list[tuple[int, Addr, bytes]]) -> int:
        """As `send`, but what does not fit the link is refused rather than cut into fragments (DONT-FRAGMENT)."""

    def send(self, datagrams: list[tuple[int, Addr, bytes]]) -> int:
        """Sends `(port, remote, payload)`; returns how many the kernel took. Others are counted."""

    def poll_upcalls(self, limit: int = 256) -> list[tuple[int, Addr, bytes]]:
        """`(port, source, payload)` of what Python has to answer."""

    def upcall_fd(self) -> int:
        """An eventfd, readable while upcalls wait and when the thread ended by itself."""

    def counters(self) -> dict[str, int]:
        """What user space counted; while the kernel forwards, also what it counted, as `xdp_*`."""

    def is_offloaded(self) -> bool:
        """Whether the kernel forwards known channels."""

    def offload_error(self) -> str | None:
        """Why it does not, if it was to."""

    def channels(self, limit: int = 4096) -> list[tuple[Addr, int, int, int, int, int]]:
        """`(client, channel, packets to peer, bytes to peer, packets to client, bytes to client)`, the kernel's too."""

    def failure(self) -> str | None:
        """Why the thread ended by itself, if it did."""
