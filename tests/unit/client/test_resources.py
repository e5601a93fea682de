from ipaddress import ip_address, ip_network

from wardgate.client.resources import Resources, SiteStatus, allows_family
from wardgate.ids import ResourceId, SiteId
from wardgate.tunnel.ranges import CLIENT_ROUTES, DEFAULT_ROUTES
from wardgate.wire.ip import TCP
from wardgate.wire.portal import CidrResource, DnsResource, Filter, InternetResource, Site

SITE = Site(id=SiteId("00000000-0000-4000-8000-000000000051"), name="Lab")
OTHER_SITE = Site(id=SiteId("00000000-0000-4000-8000-000000000052"), name="Other")
CIDR, NAME, INTERNET = (ResourceId(f"00000000-0000-4000-8000-00000000000{number}") for number in range(1, 4))
LAB = CidrResource(id=CIDR, address=ip_network("10.9.0.0/24"), name="lab", sites=(SITE,))
APP = DnsResource(id=NAME, address="app.example", name="app", sites=(SITE,))
EVERYTHING = InternetResource(id=INTERNET, sites=(SITE,))


def test_the_list_of_an_init_replaces_everything() -> None:
    resources = Resources()
    resources.replace([LAB, APP])

    change = resources.replace([APP, EVERYTHING])

    assert change.removed == (LAB,)
    assert change.added == (INTERNET,)
    assert [one.id for one in resources.all()] == [NAME, INTERNET]


def test_the_same_list_again_changes_nothing() -> None:
    resources = Resources()
    resources.replace([LAB, APP])

    change = resources.replace([APP, LAB])

    assert (change.removed, change.added) == ((), ())


def test_a_new_name_is_no_change_of_access() -> None:
    resources = Resources()
    resources.upsert(LAB)

    change = resources.upsert(LAB.model_copy(update={"name": "laboratory"}))

    assert (change.removed, change.added) == ((), ())
    assert resources.all()[0].name == "laboratory"


def test_address_filters_site_and_ip_stack_are() -> None:
    for old, update in (
        (LAB, {"address": ip_network("10.8.0.0/24")}),
        (LAB, {"filters": (Filter(protocol="icmp"),)}),
        (LAB, {"sites": (OTHER_SITE,)}),
        (APP, {"ip_stack": "ipv4_only"}),
    ):
        resources = Resources()
        resources.upsert(old)

        change = resources.upsert(old.model_copy(update=update))

        assert (change.removed, change.added) == ((old,), (old.id,))


def test_routes_cover_the_tunnel_and_every_network() -> None:
    resources = Resources()
    resources.replace([LAB, APP, EVERYTHING])

    assert set(resources.tun_routes()) == {*CLIENT_ROUTES, ip_network("10.9.0.0/24")}
    assert list(resources.tun_routes()) == sorted(
        resources.tun_routes(), key=lambda one: (one.version, int(one.network_address), one.prefixlen)
    )


def test_the_internet_is_used_only_once_it_was_switched_on() -> None:
    resources = Resources()
    resources.upsert(EVERYTHING)
    assert resources.routes.lookup(ip_address("192.0.2.1"), TCP, 80) is None

    assert resources.set_internet_active(True).added == (INTERNET,)
    assert set(resources.tun_routes()) == {*CLIENT_ROUTES, *DEFAULT_ROUTES}
    assert resources.routes.lookup(ip_address("192.0.2.1"), TCP, 80) is not None

    assert resources.set_internet_active(False).removed == (EVERYTHING,)
    assert resources.routes.lookup(ip_address("192.0.2.1"), TCP, 80) is None


def test_names_are_routed_to_the_resources_that_cover_them() -> None:
    resources = Resources()
    resources.replace([LAB, APP])
    address = ip_address("100.96.0.1")

    resources.add_name("app.example", [address], [CIDR, NAME])
    resources.add_name("db.example", [ip_address("100.96.0.5")], [CIDR, NAME])

    route = resources.routes.lookup(address, TCP, 80)
    assert route is not None
    assert (route.resource_id, route.domain) == (NAME, "app.example")
    assert resources.routes.lookup(ip_address("100.96.0.5"), TCP, 80) is None


def test_ip_stacks_limit_the_families() -> None:
    v4, v6 = ip_address("100.96.0.1"), ip_address("fd00:2021:1111:8000::")
    only_v4 = APP.model_copy(update={"ip_stack": "ipv4_only"})
    only_v6 = APP.model_copy(update={"ip_stack": "ipv6_only"})

    assert [allows_family(one, v4) for one in (APP, only_v4, only_v6)] == [True, True, False]
    assert [allows_family(one, v6) for one in (APP, only_v4, only_v6)] == [True, False, True]


def test_an_offline_site_is_unknown_again_after_a_while_and_online_when_connected() -> None:
    sites = SiteStatus()
    sites.offline(SITE.id, 0.0)
    assert sites.of(SITE.id, 299.0) == "offline"
    assert sites.of(SITE.id, 300.0) == "unknown"

    sites.connected(SITE.id)
    assert sites.of(SITE.id, 300.0) == "online"
    sites.disconnected(SITE.id)
    assert sites.of(SITE.id, 300.0) == "unknown"
