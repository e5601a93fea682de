"""The flows in the native table, and what may become of a packet that no flow knows.

A packet that misses gets a `Verdict`. `Forward` is installed once, and from then on the native side forwards by itself
until the flow idles out or Python removes it. Removing is how access ends. Of the flows themselves Python keeps
nothing: there may be hundreds of thousands, and the native table can be asked.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from wardgate._fastpath import Datagram, Decided, Engine, FlowReport
from wardgate.ids import PeerIndex, ResourceId
from wardgate.tunnel.nat import Side
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.icmp_errors import Unreachable
from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP, FlowKey, Packet

UNCONFIRMED_IDLE_S: Final = 60.0
IDLE_S: Final = {TCP: 2 * 3600 + 4 * 60.0, UDP: 120.0, ICMP: 120.0, ICMPV6: 120.0}
EXPIRE_INTERVAL_S: Final = 1.0
KEPT_REPORTS: Final = 1024
KEPT_TOTALS: Final = 4096
MAX_LABELS: Final = 131_072
_BATCH: Final = 4096
_IDLE_TIMES: Final = (IDLE_S[TCP], IDLE_S[UDP], UNCONFIRMED_IDLE_S)


@dataclass(frozen=True, slots=True)
class Forward:
    """Let it through.

    Attributes:
        authorization: The number of the grant it passes under, 0 for none.
        resource_id: The resource it belongs to; `None` for the gateway itself.
        outside: How it is to look on the TUN device, where a gateway translates.
    """

    authorization: int = 0
    resource_id: ResourceId | None = None
    outside: Side | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer its sender with an ICMP error; `reason` is a counter's name."""

    why: Unreachable
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Say nothing; `reason` is a counter's name."""

    reason: str


Verdict = Forward | Refuse | Drop


def opens_flow(packet: Packet) -> bool:
    """Whether the native table can hold a flow that starts with this packet; others are decided one by one.

    Of ICMP only a proper echo request does; a protocol without ports makes one flow between two addresses.
    """
    return packet.icmp_type is None or (packet.is_echo_request and packet.icmp_code == 0)


def transmits(datagrams: Iterable[tuple[tuple[str, int] | None, tuple[str, int], bytes]]) -> list[Transmit]:
    """The engine's datagrams as ours."""
    return [
        Transmit(None if local is None else SocketAddr(*local), SocketAddr(*remote), payload)
        for local, remote, payload in datagrams
    ]


def inner_key(flow: FlowReport) -> FlowKey:
    """What the first packet of a flow looked like in the tunnel."""
    return FlowKey(flow.protocol, SocketAddr(*flow.inner_source), SocketAddr(*flow.inner_destination))


@dataclass(frozen=True, slots=True)
class EndedFlow:
    """A flow that is gone; `is_lost` if its connection is, and the flow may come back with it."""

    flow: FlowReport
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and packets of flows, each way."""

    outbound_bytes: int = 0
    inbound_bytes: int = 0
    outbound_packets: int = 0
    inbound_packets: int = 0


Passed = tuple[list[bytes], list[Datagram], list[tuple[int, Literal["known", "full", "taken"]]]]


class FlowTable:
    """Installs flows into one engine and removes them by what they stand for."""

    def __init__(self, engine: Engine) -> None:
        self._expired_at = float("-inf")
        self._engine = engine
        self._resources: dict[int, ResourceId] = {}
        self._totals: dict[ResourceId, Counter[str]] = {}
        self._ended: deque[EndedFlow] = deque()
        self.reports: deque[FlowReport] = deque(maxlen=KEPT_REPORTS)
        self.refused = 0

    def __len__(self) -> int:
        return self._engine.flow_count()

    def label(self, authorization: int, resource_id: ResourceId) -> None:
        """Notes which resource the flows of a grant belong to."""
        self._resources[authorization] = resource_id
        if len(self._resources) > MAX_LABELS:
            del self._resources[next(iter(self._resources))]

    def unlabel(self, authorization: int) -> None:
        """The grant has ended, and its flows are removed."""
        self._resources.pop(authorization, None)

    def resource_of(self, flow: FlowReport) -> ResourceId | None:
        """The resource that a flow belongs to."""
        return self._resources.get(flow.authorization)

    def install(self, decided: list[Decided], now: float) -> Passed:
        """Opens flows in the native table and passes the packets that want them; see `Engine.install`."""
        passed = self._engine.install(decided, now, _IDLE_TIMES)
        self.refused += sum(1 for _, what in passed[2] if what == "full")
        return passed

    def by_host(self, key: FlowKey, *, from_peer: bool = True) -> FlowReport | None:
        """The flow whose first packet looked like this on the TUN device; which a peer opened, or the host."""
        return self._engine.flow_by_host(*key, from_peer=from_peer)

    def remove_authorization(self, peer: PeerIndex, authorization: int) -> list[FlowReport]:
        """Cuts every flow of a grant."""
        flows = self._engine.remove_flows(peer, authorization)
        self._finish(flows)
        return flows

    def remove_peer(self, peer: PeerIndex, reports: Iterable[FlowReport] = ()) -> list[FlowReport]:
        """Cuts every flow of a peer; `reports` are of those that the engine has forgotten already."""
        flows = [*reports, *self._engine.remove_flows(peer)]
        self._finish(flows, is_lost=True)
        return flows

    def remove_if(self, is_gone: Callable[[FlowReport], bool]) -> list[FlowReport]:
        """Cuts the flows that the caller names."""
        gone = [self._engine.remove_flow(flow.flow_id) for flow in self._each() if is_gone(flow)]
        flows = [flow for flow in gone if flow is not None]
        self._finish(flows)
        return flows

    def _each(self) -> Iterator[FlowReport]:
        after = 0
        while flows := self._engine.flows(_BATCH, after):
            yield from flows
            after = flows[-1].flow_id

    def expire(self, now: float) -> list[FlowReport]:
        """Takes over what idled out or ended by itself."""
        ended: list[FlowReport] = []
        while flows := self._engine.expire_flows(now, _BATCH):
            self._finish(flows)
            ended += flows
            if len(flows) < _BATCH:
                break
        return ended

    def handle_timeout(self, now: float) -> None:
        """Takes over what ended, if that is due."""
        due = self.poll_timeout()
        if due is not None and now >= due:
            self._expired_at = now
            self.expire(now)

    def poll_timeout(self) -> float | None:
        """When flows may be over; looked for once a second at most."""
        due = self._engine.next_flow_due()
        return None if due is None else max(due, self._expired_at + EXPIRE_INTERVAL_S)

    def counters(self) -> dict[str, int]:
        """What was not installed, by reason."""
        return {"flows_refused_table_full": self.refused}

    def traffic(self) -> dict[ResourceId, Traffic]:
        """What each resource's flows carried, those that ended included."""
        totals = {resource_id: Counter(total) for resource_id, total in self._totals.items()}
        for authorization, figures in self._engine.traffic().items():
            resource_id = self._resources.get(authorization)
            if resource_id is not None:
                _add(totals.setdefault(resource_id, Counter()), figures)
        return {resource_id: Traffic(**total) for resource_id, total in totals.items()}

    def poll_ended(self) -> EndedFlow | None:
        """The next flow that is gone, for whatever reason."""
        return self._ended.popleft() if self._ended else None

    def _finish(self, flows: list[FlowReport], *, is_lost: bool = False) -> None:
        self.reports.extend(flows)
        self._ended.extend([EndedFlow(flow, is_lost) for flow in flows])
        for flow in flows:
            resource_id = self._resources.get(flow.authorization)
            if resource_id is None:
                continue
            total = self._totals.get(resource_id)
            if total is None:
                if len(self._totals) >= KEPT_TOTALS:
                    continue
                total = self._totals[resource_id] = Counter()
            _add(total, (flow.outbound_packets, flow.outbound_bytes, flow.inbound_packets, flow.inbound_bytes))


def _add(total: Counter[str], figures: tuple[int, int, int, int]) -> None:
    total["outbound_packets"] += figures[0]
    total["outbound_bytes"] += figures[1]
    total["inbound_packets"] += figures[2]
    total["inbound_bytes"] += figures[3]
