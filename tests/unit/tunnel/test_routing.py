from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from wardgate.ids import ResourceId
from wardgate.tunnel.filters import ALLOW_ALL, Filters
from wardgate.tunnel.routing import RoutingTable
from wardgate.wire.ip import ICMP, TCP
from wardgate.wire.portal import Filter

A, B, C = ResourceId("a"), ResourceId("b"), ResourceId("c")
HTTP = Filters([Filter(protocol="tcp", port_range_start=80, port_range_end=80)])
PING = Filters([Filter(protocol="icmp")])


def resource_of(table: RoutingTable, address: str, protocol: int = TCP, port: int = 80) -> ResourceId | None:
    route = table.lookup(ip_address(address), protocol, port)
    return None if route is None else route.resource_id


def test_longest_prefix_wins() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.0.0.0/8"), A, ALLOW_ALL)
    table.add_network(ip_network("10.9.0.0/24"), B, ALLOW_ALL)

    assert resource_of(table, "10.9.0.2") == B
    assert resource_of(table, "10.9.1.2") == A
    assert resource_of(table, "11.0.0.1") is None


def test_a_filter_that_permits_beats_a_longer_prefix() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.9.0.0/24"), A, PING)
    table.add_network(ip_network("10.9.0.2/32"), B, HTTP)

    assert resource_of(table, "10.9.0.2", ICMP, 0) == A
    assert resource_of(table, "10.9.0.2", TCP, 80) == B


def test_an_entry_is_returned_even_if_its_filter_denies() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.9.0.0/24"), A, HTTP)

    route = table.lookup(ip_address("10.9.0.2"), TCP, 22)

    assert route is not None
    assert not route.filters.permits(TCP, 22)


def test_equal_prefixes_go_to_the_higher_id() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.9.0.0/24"), B, ALLOW_ALL)
    table.add_network(ip_network("10.9.0.0/24"), A, ALLOW_ALL)

    assert resource_of(table, "10.9.0.2") == B


def test_permitting_filter_beats_a_more_specific_pattern_and_the_pattern_decides_else() -> None:
    table = RoutingTable()
    proxy = ip_address("100.96.0.1")
    table.add_name(proxy, A, "app.example", HTTP, rank=(2,))
    table.add_name(proxy, B, "app.example", PING, rank=(1,))

    assert resource_of(table, "100.96.0.1", TCP, 80) == A
    assert resource_of(table, "100.96.0.1", ICMP, 0) == B
    assert resource_of(table, "100.96.0.1", TCP, 22) == A


def test_name_and_network_tables_do_not_unite() -> None:
    table = RoutingTable()
    table.add_network(ip_network("100.96.0.0/16"), A, ALLOW_ALL)
    table.add_name(ip_address("100.96.0.1"), B, "app.example", PING)

    assert resource_of(table, "100.96.0.1", TCP, 80) == B


def test_a_network_keeps_its_refusal_although_the_internet_would_allow() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.9.0.0/24"), A, HTTP)
    table.add_internet(B)

    assert resource_of(table, "10.9.0.2", ICMP, 0) == A
    assert resource_of(table, "192.0.2.1", ICMP, 0) == B


def test_internet_never_covers_tunnel_or_proxy_ranges() -> None:
    table = RoutingTable()
    table.add_internet(A)

    assert resource_of(table, "100.64.0.2") is None
    assert resource_of(table, "100.96.0.7") is None
    assert resource_of(table, "fd00:2021:1111::5") is None
    assert resource_of(table, "2001:db8::1") == A


def test_every_change_is_seen_by_the_next_lookup() -> None:
    table = RoutingTable()
    assert resource_of(table, "10.9.0.2") is None

    table.add_network(ip_network("10.9.0.0/24"), A, ALLOW_ALL)
    assert resource_of(table, "10.9.0.2") == A

    table.remove(A)
    assert resource_of(table, "10.9.0.2") is None


def test_removal_takes_every_kind_of_route_of_one_resource_only() -> None:
    table = RoutingTable()
    table.add_name(ip_address("100.96.0.1"), A, "app.example", ALLOW_ALL)
    table.add_name(ip_address("100.96.0.1"), B, "app.example", ALLOW_ALL)
    table.add_network(ip_network("10.9.0.0/24"), B, ALLOW_ALL)
    table.add_internet(B)

    table.remove(B)

    assert resource_of(table, "100.96.0.1") == A
    assert resource_of(table, "10.9.0.2") is None
    assert not table.has_internet()


def test_covers_says_whose_sources_are_fine() -> None:
    table = RoutingTable()
    table.add_network(ip_network("10.9.0.0/24"), A, HTTP)
    table.add_network(ip_network("10.9.0.0/16"), B, ALLOW_ALL)
    table.add_internet(C)

    assert table.covers([A], ip_address("10.9.0.2"))
    assert not table.covers([A], ip_address("10.9.1.2"))
    assert table.covers([B], ip_address("10.9.1.2"))
    assert table.covers([C], ip_address("192.0.2.1"))
    assert not table.covers([C], ip_address("100.64.0.9"))


networks = st.sampled_from(["10.0.0.0/8", "10.9.0.0/16", "10.9.0.0/24", "10.9.0.2/32", "fd00:9::/64", "fd00:9::2/128"])


@given(
    st.lists(st.tuples(networks, st.sampled_from([A, B, C]), st.booleans(), st.booleans())),
    st.sampled_from(["10.9.0.2", "10.9.0.3", "10.9.7.7", "10.1.1.1", "192.0.2.1", "fd00:9::2", "fd00:9::3"]),
)
def test_of_all_networks_around_the_permitting_then_the_longest_then_the_highest_wins(
    steps: list[tuple[str, ResourceId, bool, bool]], address: str
) -> None:
    table = RoutingTable()
    routes: dict[tuple[str, ResourceId], bool] = {}
    for text, resource_id, is_permitting, is_removed in steps:
        table.add_network(ip_network(text), resource_id, HTTP if is_permitting else PING)
        routes[text, resource_id] = is_permitting
        if is_removed:
            table.remove(resource_id)
            routes = {key: value for key, value in routes.items() if key[1] != resource_id}

    around = [
        (is_permitting, ip_network(text).prefixlen, resource_id)
        for (text, resource_id), is_permitting in routes.items()
        if ip_address(address) in ip_network(text)
    ]

    assert resource_of(table, address, TCP, 80) == (max(around)[2] if around else None)
