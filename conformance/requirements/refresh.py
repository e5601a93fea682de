"""Refreshing and deleting allocations: RFC 8656, section 8."""

from conformance import wire
from conformance.lab import Lab, seen
from conformance.registry import Failed, requirement
from conformance.requirements.allocate_options import dual_allocation
from conformance.wire import IPV4, IPV6, Draft

DEFAULT_LIFETIME_S, MAX_LIFETIME_S = 600, 3600


def _refreshed(lab: Lab, draft: Draft) -> int:
    """The lifetime that a Refresh of a new allocation gives."""
    client = lab.client()
    client.allocate()
    exchange = client.ask_signed(draft)
    lifetime_s = exchange.expect_success().number(wire.LIFETIME)
    if lifetime_s is None:
        raise exchange.failed("LIFETIME")
    return lifetime_s


@requirement("8656-8.2-01", "MUST", "Refresh gives a success response with LIFETIME.")
def refresh(lab: Lab) -> None:
    _refreshed(lab, Draft(wire.REFRESH).lifetime(600))


@requirement("8656-8.2-02", "MUST", "Refresh without LIFETIME gives the default, 600 s.")
def refresh_without_lifetime(lab: Lab) -> None:
    if (lifetime_s := _refreshed(lab, Draft(wire.REFRESH))) != DEFAULT_LIFETIME_S:
        raise Failed(f"sent Refresh request without LIFETIME; got {lifetime_s} s")


@requirement("8656-8.2-03", "MUST", "Refresh with a LIFETIME below the default, but not 0, gives the default.")
def refresh_with_short_lifetime(lab: Lab) -> None:
    if (lifetime_s := _refreshed(lab, Draft(wire.REFRESH).lifetime(20))) != DEFAULT_LIFETIME_S:
        raise Failed(f"sent Refresh request with LIFETIME 20; got {lifetime_s} s")


@requirement("8656-8.2-04", "MUST", "Refresh with a LIFETIME above the default gives it, or the server's maximum.")
def refresh_with_longer_lifetime(lab: Lab) -> None:
    if not DEFAULT_LIFETIME_S <= (lifetime_s := _refreshed(lab, Draft(wire.REFRESH).lifetime(1000))) <= 1000:
        raise Failed(f"sent Refresh request with LIFETIME 1000; got {lifetime_s} s")


@requirement("8656-8.2-05", "SHOULD", "Refresh never gives more than 3600 s.")
def refresh_with_longest_lifetime(lab: Lab) -> None:
    if (lifetime_s := _refreshed(lab, Draft(wire.REFRESH).lifetime(0xFFFFFFFF))) > MAX_LIFETIME_S:
        raise Failed(f"sent Refresh request with LIFETIME 4294967295; got {lifetime_s} s")


@requirement("8656-8.2-06", "MUST", "Refresh with LIFETIME 0 succeeds, and answers LIFETIME 0.")
def delete(lab: Lab) -> None:
    if lifetime_s := _refreshed(lab, Draft(wire.REFRESH).lifetime(0)):
        raise Failed(f"sent Refresh request with LIFETIME 0; got {lifetime_s} s")


@requirement("8656-8.2-07", "MUST", "After LIFETIME 0 the allocation is gone at once: Refresh is answered 437.")
def deleted_is_gone(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    client.ask_signed(Draft(wire.REFRESH).lifetime(0)).expect_success()
    client.ask_signed(Draft(wire.REFRESH).lifetime(600).because("after LIFETIME 0")).expect_error(437)


@requirement("8656-8.2-08", "MUST", "After LIFETIME 0 no peer's data comes any more.")
def deleted_relays_nothing(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    client.bind(0x4000, peer.address)
    peer.send(b"in time!", relayed)
    if client.delivery() is None:
        raise Failed("a bound peer sent 8 bytes; the client got nothing")
    client.ask_signed(Draft(wire.REFRESH).lifetime(0)).expect_success()
    peer.send(b"too late", relayed)
    if (came := client.hear()) is not None:
        raise Failed(f"a peer sent 8 bytes after LIFETIME 0; the client got {seen(came)}")


@requirement("8656-8.2-09", "MUST", "After LIFETIME 0 channel data of the client is dropped.")
def deleted_sends_nothing(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.link.send(wire.channel_data(0x4000, b"in time!"))
    if peer.receive(lab.target.answer_s) is None:
        raise Failed("sent channel data; the peer got nothing")
    client.ask_signed(Draft(wire.REFRESH).lifetime(0)).expect_success()
    client.link.send(wire.channel_data(0x4000, b"too late"))
    if (came := peer.receive(lab.silence_s)) is not None:
        raise Failed(f"sent channel data after LIFETIME 0; the peer got {seen(came)}")


@requirement("8656-8.2-10", "MUST", "After LIFETIME 0 the same 5-tuple can allocate anew, without the old channels.")
def allocate_anew(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.ask_signed(Draft(wire.REFRESH).lifetime(0)).expect_success()
    client.allocate()
    client.link.send(wire.channel_data(0x4000, b"old channel!"))
    if (came := peer.receive(lab.silence_s)) is not None:
        raise Failed(f"sent channel data on a channel of the deleted allocation; the peer got {seen(came)}")


@requirement(
    "8656-8.2-11", "MUST", "Refresh with a REQUESTED-ADDRESS-FAMILY that the allocation lacks is answered 443."
)
def refresh_of_other_family(lab: Lab) -> None:
    client = lab.client()
    other = IPV6 if client.allocate().family == IPV4 else IPV4
    client.ask_signed(Draft(wire.REFRESH).family(other).because("a family that the allocation lacks")).expect_error(443)


@requirement("8656-8.2-12", "MUST", "Refresh with the allocation's own REQUESTED-ADDRESS-FAMILY succeeds.")
def refresh_of_own_family(lab: Lab) -> None:
    client = lab.client()
    family = client.allocate().family
    client.ask_signed(Draft(wire.REFRESH).family(family)).expect_success()


@requirement("8656-8.1-01", "MUST", "Of a dual allocation one family can be deleted; the other one stays.")
def delete_one_family(lab: Lab) -> None:
    client = dual_allocation(lab)
    client.ask_signed(Draft(wire.REFRESH).lifetime(0).family(IPV6).because("delete IPv6 alone")).expect_success()
    client.ask_signed(Draft(wire.REFRESH).because("IPv4 is still there")).expect_success()
    exchange = client.ask_signed(Draft(wire.REFRESH).family(IPV6).because("IPv6 was deleted"))
    exchange.expect_error(443, 437)


@requirement(
    "8656-5-15", "MUST", "The same Refresh request with LIFETIME 0 sent again succeeds, or is answered 437.", over="udp"
)
def retransmitted_delete(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    draft = client.signed(Draft(wire.REFRESH).lifetime(0))
    client.ask(draft).expect_success()
    exchange = client.ask(draft.because("the same bytes again"))
    if exchange.answer is None or exchange.answer.message_class != wire.SUCCESS:
        exchange.expect_error(437)
