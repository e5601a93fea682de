from ipaddress import IPv4Address, IPv6Address, ip_address

from wardgate.client.gateways import GatewayOnClient, Gateways
from wardgate.ids import GatewayId, ResourceId, SiteId

A, B = ResourceId("a"), ResourceId("b")


def gateway(gateways: Gateways, number: int) -> GatewayOnClient:
    return gateways.upsert(
        GatewayId(f"g{number}"),
        SiteId("s"),
        IPv4Address(f"100.64.0.{number}"),
        IPv6Address(f"fd00:2021:1111::{number}"),
    )


def test_a_gateway_serves_what_was_granted_there() -> None:
    gateways = Gateways()
    first = gateway(gateways, 1)

    number = gateways.authorize(first, A)

    assert gateways.serving(A) is first
    assert gateways.serving(B) is None
    assert gateways.revoke(A) == (first, number)
    assert gateways.serving(A) is None
    assert gateways.revoke(A) is None


def test_granting_again_keeps_the_mark_and_a_new_grant_gets_a_new_one() -> None:
    gateways = Gateways()
    first = gateway(gateways, 1)
    number = gateways.authorize(first, A)

    assert gateways.authorize(first, A) == number
    gateways.revoke(A)
    assert gateways.authorize(first, A) != number


def test_gateways_are_found_by_their_addresses_of_now() -> None:
    gateways = Gateways()
    first = gateway(gateways, 1)
    gateways.upsert(GatewayId("g1"), SiteId("s"), IPv4Address("100.64.0.9"), IPv6Address("fd00:2021:1111::9"))

    assert gateways.at(ip_address("100.64.0.9")) is first
    assert gateways.at(ip_address("100.64.0.1")) is None


def test_the_portal_is_told_all_gateways_best_first() -> None:
    gateways = Gateways()
    for number in (1, 2, 3):
        gateway(gateways, number).is_connected = number == 3
    gateways.authorize(gateway(gateways, 2), A)

    assert gateways.preferred(A) == ("g2", "g3", "g1")
    assert gateways.preferred(B) == ("g3", "g1", "g2")


def test_a_forgotten_gateway_serves_nothing() -> None:
    gateways = Gateways()
    gateways.authorize(gateway(gateways, 1), A)

    gateways.remove(GatewayId("g1"))

    assert gateways.serving(A) is None
    assert gateways.at(ip_address("100.64.0.1")) is None
    assert gateways.preferred(A) == ()
