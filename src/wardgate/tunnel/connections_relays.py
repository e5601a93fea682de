"""All relays of a device: which there are, which one a new connection uses, and what they know of our addresses."""

from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median

from wardgate._fastpath import Engine
from wardgate.ids import RelayId
from wardgate.proto.allocation import Allocation
from wardgate.proto.allocation_events import ChannelBound, ChannelLost, Event
from wardgate.wire.addresses import RandomBytes, SocketAddr, Transmit
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.portal import Relay

MAX_RELAYS = 32
MAX_FORMER = 64
MAX_CHECKED = 8
_MIN_DEVIATION_S = 0.002


class Relays:
    """The allocations, by relay, and the native side's knowledge of them.

    Attributes:
        heard_at: When a relay last answered; monotonic seconds.
    """

    def __init__(self, engine: Engine, random_bytes: RandomBytes, counts: Counter[str]) -> None:
        self._engine = engine
        self._random = random_bytes
        self._counts = counts
        self._by_id: dict[RelayId, Allocation] = {}
        self._by_server: dict[SocketAddr, Allocation] = {}
        self._former: dict[SocketAddr, None] = {}
        self._farewells: list[Transmit] = []
        self.heard_at = 0.0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._by_id.values()))

    def get(self, relay_id: RelayId | None) -> Allocation | None:
        """The allocation at that relay."""
        return self._by_id.get(relay_id) if relay_id else None

    def at(self, server: SocketAddr) -> Allocation | None:
        """The allocation at the relay with that address."""
        return self._by_server.get(server)

    def is_at(self, host: str) -> bool:
        """Whether a relay has that host address, on whatever port."""
        return any(server.host == host for server in self._by_server)

    def is_former(self, server: SocketAddr) -> bool:
        """Whether a relay of the recent past had that address."""
        return server in self._former

    def update(self, remove: Iterable[RelayId], add: Iterable[Relay], now: float) -> list[Allocation]:
        """Forgets some relays and learns others; gives the allocations that are gone.

        A relay that is known already with the same addresses and credentials stays as it is; if anything differs it was
        started anew and so is the allocation. So it was if another one had its address. The others are checked.
        """
        gone = [allocation for relay_id in remove if (allocation := self._remove(relay_id, now))]
        kept = list(self._by_id.values())
        for relay_id, entries in _by_id(add).items():
            ipv4 = next((entry.addr for entry in entries if not entry.addr.is_ipv6), None)
            ipv6 = next((entry.addr for entry in entries if entry.addr.is_ipv6), None)
            known, user, password = self._by_id.get(relay_id), entries[0].username, entries[0].password
            if known and known.same_as(ipv4, ipv6, user, password):
                continue
            for outdated in self._outdated_by(relay_id, ipv4, ipv6):
                kept = [one for one in kept if one is not outdated]
                gone += [allocation for allocation in (self._remove(outdated.relay_id, now),) if allocation]
            if len(self._by_id) >= MAX_RELAYS:
                useless = next((known for known in self._by_id.values() if not known.is_usable), None)
                if useless is None:
                    self._counts["relays refused"] += 1
                    continue
                kept = [known for known in kept if known is not useless]
                gone += [allocation for allocation in (self._remove(useless.relay_id, now),) if allocation]
            self._add(Allocation(relay_id, ipv4, ipv6, user, password, self._random, now))
        for allocation in kept:
            allocation.probe(now)
        return gone

    def _outdated_by(self, relay_id: RelayId, ipv4: SocketAddr | None, ipv6: SocketAddr | None) -> list[Allocation]:
        """What is known of that relay, and of relays whose address it has now."""
        return [
            known
            for known in self._by_id.values()
            if known.relay_id == relay_id or any(server in (ipv4, ipv6) for server in known.servers)
        ]

    def choose(self) -> Allocation | None:
        """One of the nearest relays for a new connection; one that is not usable yet only if there is no other."""
        usable = [allocation for allocation in self._by_id.values() if allocation.is_usable]
        measured = [(allocation.rtt_s, allocation) for allocation in usable if allocation.rtt_s is not None]
        if not measured:
            return next(iter(usable or self._by_id.values()), None)
        limit = _threshold([rtt_s for rtt_s, _ in measured])
        near = [allocation for rtt_s, allocation in measured if rtt_s <= limit]
        return near[int.from_bytes(self._random(4), "big") % len(near)]

    def check(self, now: float) -> None:
        """Asks all relays for a sign of life."""
        for allocation in list(self._by_id.values())[:MAX_CHECKED]:
            allocation.check(now)

    def instead_of(self, relay_id: RelayId | None, since: float) -> Allocation | None:
        """Another relay that answered since then, if that one did not."""
        silent = self.get(relay_id)
        if silent is None or silent.heard_at >= since:
            return None
        answered = [known for known in self._by_id.values() if known.is_usable and known.heard_at >= since]
        return min(answered, key=lambda known: known.rtt_s or 0.0, default=None)

    def owner_of(self, relayed: SocketAddr) -> Allocation | None:
        """The allocation that this relayed address of ours belongs to."""
        for allocation in self._by_id.values():
            if relayed in allocation.relayed_addresses:
                return allocation
        return None

    def reflexive_candidates(self) -> list[Candidate]:
        """Host and server-reflexive candidates as all relays see us, hosts first."""
        found = dict.fromkeys(c for allocation in self._by_id.values() for c in allocation.reflexive_candidates())
        return sorted(found, key=lambda candidate: candidate.kind is not Kind.HOST)

    def add_way(self, relay_id: RelayId, alias: SocketAddr, kind: str, now: float) -> None:
        """Datagrams to `alias`, an address of this host, reach that relay by `kind` from now on."""
        allocation = self._by_id.get(relay_id)
        if allocation is None:
            return
        self._by_server[alias] = allocation
        self._engine.add_relay(alias)
        allocation.add_way(alias, kind, now)

    def lose_way(self, alias: SocketAddr, now: float) -> None:
        """They no longer do."""
        allocation = self._by_server.get(alias)
        if allocation is not None and alias in allocation.ways:
            del self._by_server[alias]
            self._engine.remove_relay(alias)
            allocation.lose_way(alias, now)

    def reset(self, now: float) -> None:
        """This host moved: every allocation starts anew."""
        for allocation in self._by_id.values():
            for alias in allocation.ways:
                del self._by_server[alias]
                self._engine.remove_relay(alias)
            allocation.reset(now)

    def install(self, allocation: Allocation, event: Event) -> None:
        """Tells the native side about a channel that came or went."""
        server = allocation.active_server
        match event:
            case ChannelBound(number, _) if server:
                self._engine.add_channel(server, number)
            case ChannelLost(number, _):
                for address in allocation.servers:
                    self._engine.remove_channel(address, number)

    def handle_timeout(self, now: float) -> None:
        """Does what is due at `now`."""
        for allocation in self._by_id.values():
            allocation.handle_timeout(now)

    def poll_transmit(self) -> Transmit | None:
        """The next datagram to a relay."""
        if self._farewells:
            return self._farewells.pop(0)
        for allocation in self._by_id.values():
            transmit = allocation.poll_transmit()
            if transmit:
                return transmit
        return None

    def poll_timeout(self) -> float | None:
        """When something is due."""
        if self._farewells:
            return 0.0
        due = (allocation.poll_timeout() for allocation in self._by_id.values())
        return min((at for at in due if at is not None), default=None)

    def _add(self, allocation: Allocation) -> None:
        self._by_id[allocation.relay_id] = allocation
        for server in allocation.servers:
            self._by_server[server] = allocation
            self._former.pop(server, None)
            self._engine.add_relay(server)

    def _remove(self, relay_id: RelayId, now: float) -> Allocation | None:
        allocation = self._by_id.pop(relay_id, None)
        if allocation is None:
            return None
        allocation.close(now)
        while transmit := allocation.poll_transmit():
            self._farewells.append(transmit)
        for server in allocation.servers:
            if self._by_server.get(server) is allocation:
                del self._by_server[server]
                self._engine.remove_relay(server)
                self._former[server] = None
        while len(self._former) > MAX_FORMER:
            del self._former[next(iter(self._former))]
        return allocation


def _threshold(samples: list[float]) -> float:
    """How far away a relay may be and still count as near."""
    if len(samples) <= 2:
        return 1.5 * min(samples)
    middle = median(samples)
    deviation = median(abs(sample - middle) for sample in samples)
    return middle + 3 * max(deviation, _MIN_DEVIATION_S)


def _by_id(relays: Iterable[Relay]) -> dict[RelayId, list[Relay]]:
    grouped: dict[RelayId, list[Relay]] = {}
    for relay in relays:
        grouped.setdefault(RelayId(relay.id), []).append(relay)
    return grouped
