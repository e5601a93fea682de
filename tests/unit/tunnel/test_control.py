from ipaddress import ip_address

from tests.unit.tunnel.packets import udp
from wardgate.ids import GatewayId, ResourceId
from wardgate.tunnel.control import MAX_WAITING_PACKETS, RESEND_S, Name, NameAnnouncements
from wardgate.wire.control import AssignedIps, DomainStatus, NatStatus

GATEWAY, RESOURCE = GatewayId("g"), ResourceId("r")
APP = Name(GATEWAY, RESOURCE, "app.example")
PROXY_IPS = (ip_address("100.96.0.1"), ip_address("fd00:2021:1111:8000::"))
ACTIVE = DomainStatus(NatStatus.ACTIVE, RESOURCE, "app.example")
INACTIVE = DomainStatus(NatStatus.INACTIVE, RESOURCE, "app.example")
PACKET = udp("100.96.0.1", 53)


def messages(announcements: NameAnnouncements) -> list[AssignedIps]:
    found = []
    while (message := announcements.poll_message()) is not None:
        found.append(message[1])
    return found


def test_the_first_packet_announces_the_name_and_waits_for_the_answer() -> None:
    announcements = NameAnnouncements()

    assert not announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    assert messages(announcements) == [AssignedIps(RESOURCE, "app.example", PROXY_IPS)]
    assert announcements.handle_status(GATEWAY, ACTIVE) == [PACKET]
    assert announcements.admit(APP, PROXY_IPS, PACKET, 0.1)
    assert messages(announcements) == []


def test_an_unanswered_announcement_is_repeated_by_traffic_two_seconds_apart() -> None:
    announcements = NameAnnouncements()
    for now in (0.0, 1.0, 1.9):
        announcements.admit(APP, PROXY_IPS, PACKET, now)
    assert len(messages(announcements)) == 1

    announcements.admit(APP, PROXY_IPS, PACKET, RESEND_S)
    assert len(messages(announcements)) == 1


def test_inactive_drops_what_waited_and_lets_later_packets_pass() -> None:
    announcements = NameAnnouncements()
    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)

    assert announcements.handle_status(GATEWAY, INACTIVE) == []
    assert announcements.admit(APP, PROXY_IPS, PACKET, 0.1)


def test_a_query_announces_anew_while_packets_of_a_confirmed_name_flow() -> None:
    announcements = NameAnnouncements()
    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    announcements.handle_status(GATEWAY, ACTIVE)
    messages(announcements)

    announcements.refresh(APP, PROXY_IPS, 1.0)

    assert len(messages(announcements)) == 1
    assert announcements.admit(APP, PROXY_IPS, PACKET, 1.1)


def test_a_query_after_a_failure_makes_packets_wait_again() -> None:
    announcements = NameAnnouncements()
    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    announcements.handle_status(GATEWAY, INACTIVE)

    announcements.refresh(APP, PROXY_IPS, 1.0)

    assert not announcements.admit(APP, PROXY_IPS, PACKET, 1.1)
    assert announcements.handle_status(GATEWAY, ACTIVE) == [PACKET]


def test_a_query_does_not_lose_what_waits() -> None:
    announcements = NameAnnouncements()
    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)

    announcements.refresh(APP, PROXY_IPS, 0.5)

    assert announcements.handle_status(GATEWAY, ACTIVE) == [PACKET]


def test_at_most_32_packets_wait() -> None:
    announcements = NameAnnouncements()
    for number in range(MAX_WAITING_PACKETS + 8):
        announcements.admit(APP, PROXY_IPS, udp("100.96.0.1", 53, str(number).encode()), 0.0)

    assert len(announcements.handle_status(GATEWAY, ACTIVE)) == MAX_WAITING_PACKETS


def test_answers_nobody_asked_for_change_nothing() -> None:
    announcements = NameAnnouncements()

    assert announcements.handle_status(GATEWAY, ACTIVE) == []
    assert not announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    assert announcements.handle_status(GatewayId("other"), ACTIVE) == []
    assert not announcements.admit(APP, PROXY_IPS, PACKET, 0.1)


def test_a_lost_gateway_is_told_again() -> None:
    announcements = NameAnnouncements()
    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    announcements.handle_status(GATEWAY, ACTIVE)
    messages(announcements)

    announcements.remove_gateway(GATEWAY)

    assert not announcements.admit(APP, PROXY_IPS, PACKET, 0.1)
    assert len(messages(announcements)) == 1


def test_resources_with_one_name_are_announced_each() -> None:
    announcements = NameAnnouncements()
    other = APP._replace(resource_id=ResourceId("s"))

    announcements.admit(APP, PROXY_IPS, PACKET, 0.0)
    announcements.admit(other, PROXY_IPS, PACKET, 0.0)
    announcements.remove_resource(RESOURCE)

    assert [one.resource_id for one in messages(announcements)] == ["s"]
