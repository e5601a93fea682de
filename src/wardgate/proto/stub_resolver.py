"""The resolver that a host asks while the client runs: answers for names of resources, forwards the rest.

What is asked about a resource's name stays inside: addresses are answered here, all else by the resource's site. The
same holds for the names of addresses behind a resource. No other resolver hears of either.

Sans-IO: a query gives at once an answer, or a question to somebody else under a number of ours; their answer is handed
back under that number. After `handle_timeout`, drain `poll_reply`.
Source: RFC 1035; the split between local answers, site and recursion is the wire protocol's.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, Literal

from wardgate.errors import RemoteProtocolError
from wardgate.ids import ResourceId
from wardgate.proto.deadlines import Deadlines
from wardgate.proto.dns_cache import DnsCache
from wardgate.proto.dns_upstreams import Doh, Sentinels, Upstream
from wardgate.proto.pool_names import PoolNames
from wardgate.proto.proxy_ips import MAX_NAMES, Assignment, NamedResource, ProxyIps
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.dns import (
    IN,
    Query,
    Rcode,
    Record,
    RecordType,
    address_of_reverse_name,
    address_record,
    decode_query,
    decode_response,
    encode_answer,
    pointer_record,
    relay_answer,
    with_id,
)
from wardgate.wire.ip import IpAddress
from wardgate.wire.ranges import PROXY_V4, PROXY_V6, SENTINEL_V4, SENTINEL_V6, TUNNEL_V4, TUNNEL_V6, IpNetwork

Transport = Literal["udp", "tcp"]

DNS_PORT: Final = 53
LLMNR_PORT: Final = 5355
LLMNR_ADDRESSES: Final = frozenset({ip_address("224.0.0.252"), ip_address("ff02::1:3")})
SITE_RESOLVER_PORT: Final = 53535
"""Where a gateway answers queries on its tunnel addresses."""
MAX_OUTSTANDING: Final = 1000
FORWARD_TIMEOUT_S: Final = 5.0
SITE_TIMEOUT_S: Final = 10.0
LOCAL_TTL_S: Final = 1
_CANARY: Final = "use-application-dns.net"
_OUR_RANGES: Final = (TUNNEL_V4, TUNNEL_V6, PROXY_V4, PROXY_V6, SENTINEL_V4, SENTINEL_V6)


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom to answer, and from where.

    Attributes:
        source: The asker's address.
        sentinel: The address it asked.
    """

    source: SocketAddr
    sentinel: SocketAddr
    transport: Transport


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer the asker with this at once.

    Attributes:
        assignment: The name's proxy IPs, if addresses of a resource's name were asked: its gateways are to be told
            again.
    """

    payload: bytes
    assignment: Assignment | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask this resolver; hand its response to `handle_response`."""

    query_id: int
    upstream: Upstream
    payload: bytes
    transport: Transport


@dataclass(frozen=True, slots=True)
class ToSite:
    """Ask the resolver of this resource's gateway; hand its response to `handle_response`."""

    query_id: int
    resource_id: ResourceId
    domain: str
    payload: bytes
    transport: Transport


@dataclass(frozen=True, slots=True)
class Waiting:
    """The answer comes from `poll_reply`, maybe at once; see `pools` for what is to be asked of the portal."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A late answer."""

    asker: Asker
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Outstanding:
    asker: Asker
    query: Query
    wire_id: int
    any_id: bool
    is_cacheable: bool


class StubResolver:
    """One client's resolver.

    Args:
        random_bytes: For the ids of forwarded queries.
        max_names: How many names of resources can get proxy IPs in the life of the process.
    """

    def __init__(self, random_bytes: RandomBytes, max_names: int = MAX_NAMES) -> None:
        self._random_bytes = random_bytes
        self._names = ProxyIps(max_names)
        self.pools = PoolNames()
        self._sentinels = Sentinels()
        self._networks: dict[tuple[int, int], dict[int, ResourceId]] = {}
        self._cache = DnsCache()
        self._outstanding: dict[int, _Outstanding] = {}
        self._deadlines: Deadlines[int] = Deadlines()
        self._next_query_id = 1
        self._replies: deque[Reply] = deque()
        self._now = 0.0
        self._counters: Counter[str] = Counter()

    # --- settings --------------------------------------------------------------------------------------------------

    def set_resources(
        self, resources: Iterable[NamedResource], networks: Iterable[tuple[IpNetwork, ResourceId]] = ()
    ) -> tuple[Assignment, ...]:
        """Takes the resources there are now, by name and by address; gives the known names whose resources changed."""
        self._cache.clear()
        self._networks = {}
        for network, resource_id in sorted(networks, key=lambda one: (-one[0].prefixlen, one[1])):
            same_length = self._networks.setdefault((network.version, network.prefixlen), {})
            same_length[int(network.network_address)] = resource_id
        return self._names.set_resources(resources)

    def set_upstreams(self, upstreams: Iterable[Upstream]) -> bool:
        """Takes the resolvers in use now; returns whether the sentinels changed and the host must be told."""
        if not self._sentinels.set(upstreams):
            return False
        self._cache.clear()
        return True

    @property
    def sentinels(self) -> Mapping[IpAddress, Upstream | None]:
        """The host's resolvers, in order, with what stands behind each."""
        return self._sentinels.upstream_by_sentinel

    @property
    def counters(self) -> Mapping[str, int]:
        """What became of queries and responses, by name."""
        return {**self._counters, "refused_names": self._names.refused_names}

    def assignments(self) -> tuple[Assignment, ...]:
        """Every name that has proxy IPs."""
        return self._names.assignments()

    def resource_of(self, proxy_ip: IpAddress) -> Assignment | None:
        """The name that a proxy IP stands for and the resources that cover it now."""
        return self._names.assignment_of(proxy_ip)

    def is_for_us(self, destination: SocketAddr) -> bool:
        """Whether a packet to that address is a query: to a sentinel in use, or to all neighbours (LLMNR)."""
        address = ip_address(destination[0])
        if destination[1] == LLMNR_PORT:
            return address in LLMNR_ADDRESSES
        return destination[1] == DNS_PORT and address in self._sentinels.upstream_by_sentinel

    # --- queries ---------------------------------------------------------------------------------------------------

    def handle_query(self, asker: Asker, payload: bytes, now: float) -> Answer | Forward | ToSite | Waiting | None:
        """Takes a query.

        Returns:
            What to do; `None` if there is nothing to answer (counted): malformed, to an address that is no sentinel, or
            a neighbour query about no resource.
        """
        self._now = max(self._now, now)
        if not self.is_for_us(asker.sentinel):
            return self._drop("not_for_us")
        try:
            query = decode_query(payload)
        except RemoteProtocolError:
            return self._drop("malformed_queries")
        if query.question.name != _CANARY and self.pools.handle_query(asker, query, now):
            self._counters["of_pools"] += 1
            self._take_pool_replies()
            return Waiting()
        local = self._answer_locally(asker, query)
        if local is not None:
            self._counters["local"] += 1
            return local
        if asker.sentinel[1] == LLMNR_PORT:
            return self._drop("not_ours_to_answer")
        cached = self._cache.get(query, now)
        if cached is not None:
            self._counters["cached"] += 1
            return Answer(self._encode(asker, query, Rcode.NOERROR, cached))
        return self._ask_others(asker, query, now)

    def _drop(self, reason: str) -> Answer | None:
        self._counters[reason] += 1
        return None

    def _answer_locally(self, asker: Asker, query: Query) -> Answer | None:
        question = query.question
        if question.name == _CANARY:
            return Answer(self._encode(asker, query, Rcode.NXDOMAIN))
        if question.class_ != IN or not question.is_plain:
            return None
        match question.type:
            case RecordType.A:
                return self._addresses(asker, query, 4)
            case RecordType.AAAA:
                return self._addresses(asker, query, 6)
            case RecordType.ANY:
                return self._anything(asker, query)
            case RecordType.HTTPS | RecordType.SVCB if self._names.matches(question.name):
                return Answer(self._encode(asker, query, Rcode.NOERROR))
            case RecordType.PTR:
                return self._reverse(asker, query)
            case _:
                return None

    def _addresses(self, asker: Asker, query: Query, version: int) -> Answer | None:
        if not self._names.matches(query.question.name):
            return None
        assignment = self._names.assign(query.question.name)
        if assignment is None:
            return Answer(self._encode(asker, query, Rcode.SERVFAIL))
        records = [address_record(query, one, LOCAL_TTL_S) for one in assignment.addresses(version)]
        return Answer(self._encode(asker, query, Rcode.NOERROR, records), assignment)

    def _anything(self, asker: Asker, query: Query) -> Answer | None:
        """Answers with what is known here, as RFC 8482 allows."""
        if not self._names.matches(query.question.name):
            return None
        assignment = self._names.assign(query.question.name)
        if assignment is None:
            return Answer(self._encode(asker, query, Rcode.SERVFAIL))
        addresses = (*assignment.addresses(4), *assignment.addresses(6))
        records = [address_record(query, one, LOCAL_TTL_S) for one in addresses]
        return Answer(self._encode(asker, query, Rcode.NOERROR, records), assignment)

    def _reverse(self, asker: Asker, query: Query) -> Answer | None:
        """The name behind a proxy IP; of other addresses that only exist here, nobody else can know a name."""
        address = address_of_reverse_name(query.question.name)
        if address is None:
            return None
        assignment = self._names.assignment_of(address)
        name = self.pools.name_of(address) if assignment is None else assignment.domain
        if name is not None:
            record = pointer_record(query, name, LOCAL_TTL_S)
            return Answer(self._encode(asker, query, Rcode.NOERROR, (record,)))
        if any(address in one for one in _OUR_RANGES if one.version == address.version):
            return Answer(self._encode(asker, query, Rcode.NXDOMAIN))
        return None

    def _encode(self, asker: Asker, query: Query, rcode: Rcode, records: Iterable[Record] = ()) -> bytes:
        return encode_answer(query, rcode, records, _limit(asker, query))

    def _ask_others(self, asker: Asker, query: Query, now: float) -> Answer | Forward | ToSite:
        upstream = self._sentinels.upstream_by_sentinel.get(ip_address(asker.sentinel[0]))
        resource_id = self._site_of(query)
        if len(self._outstanding) >= MAX_OUTSTANDING:
            return self._refuse(asker, query)
        if resource_id is not None:
            query_id, payload = self._wait(asker, query, True, any_id=False, deadline=now + SITE_TIMEOUT_S)
            return ToSite(query_id, resource_id, query.question.name, payload, asker.transport)
        if upstream is None:
            return self._refuse(asker, query)
        any_id = isinstance(upstream, Doh)
        query_id, payload = self._wait(asker, query, False, any_id, deadline=now + FORWARD_TIMEOUT_S)
        return Forward(query_id, upstream, payload, asker.transport)

    def _refuse(self, asker: Asker, query: Query) -> Answer:
        self._counters["refused"] += 1
        return Answer(self._encode(asker, query, Rcode.SERVFAIL))

    def _wait(self, asker: Asker, query: Query, to_site: bool, any_id: bool, deadline: float) -> tuple[int, bytes]:
        """Remembers who asked; gives our number for it and the query under an id that others cannot guess."""
        query_id, wire_id = self._next_query_id, 0 if any_id else int.from_bytes(self._random_bytes(2), "big")
        self._next_query_id += 1
        self._outstanding[query_id] = _Outstanding(asker, query, wire_id, any_id, not to_site)
        self._deadlines.set(query_id, deadline)
        self._counters["to_site" if to_site else "forwarded"] += 1
        return query_id, with_id(query.raw, wire_id)

    def _site_of(self, query: Query) -> ResourceId | None:
        """The resource whose site knows what is asked: of its names everything, of its addresses the names."""
        question = query.question
        if question.class_ != IN or not question.is_plain:
            return None
        matches = self._names.matches(question.name) or self._names.matches(_without_service(question.name))
        if matches:
            return matches[0].resource_id
        address = address_of_reverse_name(question.name) if question.type == RecordType.PTR else None
        return None if address is None else self._network_of(address)

    def _network_of(self, address: IpAddress) -> ResourceId | None:
        """The resource with the longest prefix that the address is in."""
        for (version, length), by_network in self._networks.items():
            below = address.max_prefixlen - length
            if version == address.version and (found := by_network.get(int(address) >> below << below)):
                return found
        return None

    # --- responses -------------------------------------------------------------------------------------------------

    def handle_response(self, query_id: int, payload: bytes | None, now: float) -> Reply | None:
        """Takes what became of a query that was forwarded.

        Args:
            query_id: Its number.
            payload: The response; `None` if it could not be asked.

        Returns:
            `None` if nobody waits for it any more, or it does not answer the question (both counted).
        """
        self._now = max(self._now, now)
        waiting = self._outstanding.get(query_id)
        if waiting is None:
            self._counters["late_responses"] += 1
            return None
        asker, query = waiting.asker, waiting.query
        if payload is None:
            self._forget(query_id)
            self._counters["failed"] += 1
            return Reply(asker, self._encode(asker, query, Rcode.SERVFAIL))
        try:
            response = decode_response(payload)
        except RemoteProtocolError:
            self._counters["malformed_responses"] += 1
            return None
        is_answered = response.question is None or response.question.is_same(query.question)
        if not is_answered or (response.id != waiting.wire_id and not waiting.any_id):
            self._counters["foreign_responses"] += 1
            return None
        self._forget(query_id)
        if waiting.is_cacheable and response.question is not None:
            self._cache.put(query, response, now)
        return Reply(asker, relay_answer(query, response, _limit(asker, query)))

    def handle_pool_answer(
        self, resource_id: ResourceId, domain: str, addresses: tuple[IpAddress, ...], now: float
    ) -> bool:
        """Takes the portal's word on a device's name; returns whether it was asked for. Drain `poll_reply`."""
        self._now = max(self._now, now)
        is_awaited = self.pools.handle_resolved(resource_id, domain, addresses)
        self._take_pool_replies()
        return is_awaited

    def _take_pool_replies(self) -> None:
        while (reply := self.pools.poll_reply()) is not None:
            asker = reply.token
            if isinstance(asker, Asker):
                self._replies.append(Reply(asker, self._encode(asker, reply.query, reply.rcode, reply.records)))

    def handle_timeout(self, now: float) -> None:
        """Forgets queries that were not answered in time; over UDP the asker has long given up as well."""
        self._now = max(self._now, now)
        self.pools.handle_timeout(now)
        self._take_pool_replies()
        while (query_id := self._deadlines.pop_due(now)) is not None:
            waiting = self._outstanding.pop(query_id)
            self._counters["timed_out"] += 1
            if waiting.asker.transport == "tcp":
                self._replies.append(Reply(waiting.asker, self._encode(waiting.asker, waiting.query, Rcode.SERVFAIL)))

    def _forget(self, query_id: int) -> None:
        del self._outstanding[query_id]
        self._deadlines.discard(query_id)

    def reset(self) -> None:
        """Forgets what is under way and cached, as after a change of networks."""
        self._outstanding.clear()
        self._deadlines = Deadlines()
        self._replies.clear()
        self._cache.clear()

    def poll_reply(self) -> Reply | None:
        """The next answer that a timeout caused."""
        return self._replies.popleft() if self._replies else None

    def poll_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; due now while replies are queued."""
        if self._replies:
            return self._now
        due = (self._deadlines.next_at(), self.pools.poll_timeout())
        return min((at for at in due if at is not None), default=None)


def _limit(asker: Asker, query: Query) -> int | None:
    return query.udp_size if asker.transport == "udp" else None


def _without_service(name: str) -> str:
    """The name without the labels in front that ask for a service there, such as `_ldap._tcp` (RFC 8552)."""
    while name.startswith("_") and "." in name:
        name = name.partition(".")[2]
    return name
