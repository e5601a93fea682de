"""The flows in the native table, as Python knows them, and what may become of a packet that no flow knows.

A packet that misses gets a `Verdict`. `Forward` is installed once, and from then on the native side forwards by itself
until the flow idles out or Python removes it. Removing is how access ends.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from wardgate._fastpath import Engine, Flow, FlowReport
from wardgate.ids import FlowId, PeerIndex, ResourceId
from wardgate.wire.addresses import SocketAddr, Transmit
from wardgate.wire.icmp_errors import Unreachable
from wardgate.wire.ip import ICMP, ICMPV6, TCP, UDP, FlowKey, Packet

UNCONFIRMED_IDLE_S: Final = 60.0
IDLE_S: Final = {TCP: 2 * 3600 + 4 * 60.0, UDP: 120.0, ICMP: 120.0, ICMPV6: 120.0}
REINSTALL_S: Final = 0.01
KEPT_REPORTS: Final = 1024
KEPT_TOTALS: Final = 4096
_EXPIRY_BATCH: Final = 4096
_SHOWN_FLOWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Forward:
    """Let it through.

    Attributes:
        inner, host: The packet's key in the tunnel and on the TUN device; they differ where a gateway translates.
        authorization: The number of the grant it passes under, 0 for none.
        resource_id: The resource it belongs to; `None` for the gateway itself.
    """

    inner: FlowKey
    host: FlowKey
    authorization: int = 0
    resource_id: ResourceId | None = None


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


@dataclass(frozen=True, slots=True)
class InstalledFlow:
    """A flow that was put into the native table."""

    flow_id: FlowId
    peer: PeerIndex
    authorization: int
    resource_id: ResourceId | None
    inner: FlowKey
    host: FlowKey
    installed_at: float


@dataclass(frozen=True, slots=True)
class EndedFlow:
    """A flow that is gone; `is_lost` if its connection is, and the flow may come back with it."""

    flow: InstalledFlow
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes and packets of flows, each way."""

    outbound_bytes: int = 0
    inbound_bytes: int = 0
    outbound_packets: int = 0
    inbound_packets: int = 0

    def plus(self, report: FlowReport) -> "Traffic":
        """With a flow's figures added."""
        return Traffic(
            self.outbound_bytes + report.outbound_bytes,
            self.inbound_bytes + report.inbound_bytes,
            self.outbound_packets + report.outbound_packets,
            self.inbound_packets + report.inbound_packets,
        )


class FlowTable:
    """Installs flows into one engine and removes them by what they stand for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._next_id = 1
        self._by_id: dict[int, InstalledFlow] = {}
        self._by_inner: dict[tuple[PeerIndex, FlowKey], InstalledFlow] = {}
        self._by_host: dict[FlowKey, InstalledFlow] = {}
        self._by_grant: dict[PeerIndex, dict[int, dict[int, InstalledFlow]]] = {}
        self._totals: dict[ResourceId, Traffic] = {}
        self._ended: deque[EndedFlow] = deque()
        self.reports: deque[FlowReport] = deque(maxlen=KEPT_REPORTS)
        self.refused = 0
        self.returned = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def install(self, peer: PeerIndex, verdict: Forward, now: float, *, from_peer: bool) -> InstalledFlow | None:
        """Puts a flow into the native table, in place of one with the same keys.

        Returns:
            `None` if the table is full, or had this flow a moment ago and its packet came back all the same (both
            counted): a packet that both sides read differently must not go round for ever.
        """
        for stale in (self._by_inner.get((peer, verdict.inner)), self._by_host.get(verdict.host)):
            if stale is not None and stale.peer == peer and now - stale.installed_at < REINSTALL_S:
                self.returned += 1
                return None
            if stale is not None:
                report = self._engine.remove_flow(stale.flow_id)
                self._finish([stale], [] if report is None else [report])
        flow = InstalledFlow(
            FlowId(self._next_id), peer, verdict.authorization, verdict.resource_id, verdict.inner, verdict.host, now
        )
        self._next_id += 1
        if not self._engine.add_flow(_native(flow, from_peer), now):
            self.refused += 1
            return None
        self._by_id[flow.flow_id] = flow
        self._by_inner[peer, flow.inner] = flow
        self._by_host[flow.host] = flow
        self._by_grant.setdefault(peer, {}).setdefault(flow.authorization, {})[flow.flow_id] = flow
        return flow

    def by_inner(self, peer: PeerIndex, key: FlowKey) -> InstalledFlow | None:
        """The flow whose first packet looked like this in the tunnel."""
        return self._by_inner.get((peer, key))

    def by_host(self, key: FlowKey) -> InstalledFlow | None:
        """The flow whose first packet looked like this on the TUN device."""
        return self._by_host.get(key)

    def remove_authorization(self, peer: PeerIndex, authorization: int) -> list[InstalledFlow]:
        """Cuts every flow of a grant."""
        flows = list(self._by_grant.get(peer, {}).get(authorization, {}).values())
        self._finish(flows, self._engine.remove_flows(peer, authorization))
        return flows

    def remove_peer(self, peer: PeerIndex, reports: Iterable[FlowReport] = ()) -> list[InstalledFlow]:
        """Cuts every flow of a peer; `reports` are of those that the engine has forgotten already."""
        flows = [flow for flows in self._by_grant.get(peer, {}).values() for flow in flows.values()]
        self._finish(flows, (*reports, *self._engine.remove_flows(peer)), is_lost=True)
        return flows

    def remove_if(self, is_gone: Callable[[InstalledFlow], bool]) -> list[InstalledFlow]:
        """Cuts the flows that the caller names."""
        flows = [flow for flow in self._by_id.values() if is_gone(flow)]
        reports = [self._engine.remove_flow(flow.flow_id) for flow in flows]
        self._finish(flows, [report for report in reports if report is not None])
        return flows

    def expire(self, now: float) -> list[InstalledFlow]:
        """Takes over what idled out or ended by itself."""
        ended: list[InstalledFlow] = []
        while reports := self._engine.expire_flows(now, _EXPIRY_BATCH):
            flows = [self._by_id[report.flow_id] for report in reports if report.flow_id in self._by_id]
            self._finish(flows, reports)
            ended += flows
            if len(reports) < _EXPIRY_BATCH:
                break
        return ended

    def counters(self) -> dict[str, int]:
        """What was not installed, by reason."""
        return {"flows_refused_table_full": self.refused, "flows_refused_packet_returned": self.returned}

    def traffic(self) -> dict[ResourceId, Traffic]:
        """What each resource's flows carried, those that ended included."""
        totals = dict(self._totals)
        for report in self._engine.flows(_SHOWN_FLOWS):
            flow = self._by_id.get(report.flow_id)
            if flow is not None and flow.resource_id is not None:
                totals[flow.resource_id] = totals.get(flow.resource_id, Traffic()).plus(report)
        return totals

    def poll_ended(self) -> EndedFlow | None:
        """The next flow that is gone, for whatever reason."""
        return self._ended.popleft() if self._ended else None

    def _finish(self, flows: list[InstalledFlow], reports: Iterable[FlowReport], *, is_lost: bool = False) -> None:
        resource_ids = {flow.flow_id: flow.resource_id for flow in flows}
        known = [flow for flow in flows if flow.flow_id in self._by_id]
        self._forget(known)
        self._ended.extend(EndedFlow(flow, is_lost) for flow in known)
        for report in reports:
            self._take_report(report, resource_ids.get(FlowId(report.flow_id)))

    def _take_report(self, report: FlowReport | None, resource_id: ResourceId | None) -> None:
        if report is None:
            return
        self.reports.append(report)
        if resource_id is not None and (resource_id in self._totals or len(self._totals) < KEPT_TOTALS):
            self._totals[resource_id] = self._totals.get(resource_id, Traffic()).plus(report)

    def _forget(self, flows: Iterable[InstalledFlow]) -> None:
        for flow in flows:
            self._by_id.pop(flow.flow_id, None)
            self._by_inner.pop((flow.peer, flow.inner), None)
            self._by_host.pop(flow.host, None)
            grants = self._by_grant.get(flow.peer, {})
            grants.get(flow.authorization, {}).pop(flow.flow_id, None)
            if not grants.get(flow.authorization):
                grants.pop(flow.authorization, None)
            if not grants:
                self._by_grant.pop(flow.peer, None)


def _native(flow: InstalledFlow, from_peer: bool) -> Flow:
    return Flow(
        flow_id=flow.flow_id,
        peer=flow.peer,
        authorization=flow.authorization,
        protocol=flow.inner.protocol,
        inner_source=flow.inner.source,
        inner_destination=flow.inner.destination,
        host_source=flow.host.source,
        host_destination=flow.host.destination,
        from_peer=from_peer,
        idle_s=IDLE_S.get(flow.inner.protocol, IDLE_S[UDP]),
        unconfirmed_idle_s=UNCONFIRMED_IDLE_S,
    )
