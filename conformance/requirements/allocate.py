"""Allocate requests and what is granted: RFC 8656, sections 5 and 7.2."""

from itertools import pairwise

from conformance import wire
from conformance.lab import Lab, seen
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import Draft, Message

DEFAULT_LIFETIME_S, MAX_LIFETIME_S = 600, 3600
TCP = 6


def _allocate() -> Draft:
    return Draft(wire.ALLOCATE).transport()


def _granted(lab: Lab, draft: Draft | None = None) -> Message:
    return lab.client().ask_signed(draft or _allocate()).expect_success()


@requirement("8656-7.2-01", "MUST", "Allocate without credentials is answered 401.")
def allocate_without_credentials(lab: Lab) -> None:
    lab.need_authentication()
    lab.client().ask(_allocate()).expect_error(401)


@requirement("8656-7.2-02", "MUST", "A second Allocate from the same 5-tuple is answered 437.")
def second_allocate(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    client.ask_signed(_allocate().because("while there is an allocation")).expect_error(437)


@requirement("8656-7.2-03", "MUST", "The 437 leaves the allocation as it was.")
def second_allocate_is_harmless(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    client.ask_signed(_allocate().because("while there is an allocation")).expect_error(437)
    client.ask_signed(Draft(wire.REFRESH).because("after a 437")).expect_success()


@requirement("8656-7.2-04", "MUST", "Allocate without REQUESTED-TRANSPORT is answered 400.")
def no_transport(lab: Lab) -> None:
    lab.client().ask_signed(Draft(wire.ALLOCATE).because("no REQUESTED-TRANSPORT")).expect_error(400)


@requirement("8656-7.2-05", "MUST", "A REQUESTED-TRANSPORT of one byte instead of four is answered 400.")
def malformed_transport(lab: Lab) -> None:
    draft = (
        Draft(wire.ALLOCATE).add(wire.REQUESTED_TRANSPORT, bytes((wire.UDP,))).because("REQUESTED-TRANSPORT of 1 byte")
    )
    lab.client().ask_signed(draft).expect_error(400)


@requirement("8656-7.2-06", "MUST", "A REQUESTED-TRANSPORT that the server does not relay (99) is answered 442.")
def unknown_transport(lab: Lab) -> None:
    lab.client().ask_signed(Draft(wire.ALLOCATE).transport(99).because("transport 99")).expect_error(442)


@requirement(
    "8656-7.2-07",
    "MUST",
    "REQUESTED-TRANSPORT TCP over UDP, which RFC 6062 forbids too, is answered 442 or 400.",
    over="udp",
)
def tcp_transport(lab: Lab) -> None:
    lab.client().ask_signed(Draft(wire.ALLOCATE).transport(TCP).because("transport 6")).expect_error(442, 400)


@requirement("8656-18.8-01", "MUST", "The reserved bytes of REQUESTED-TRANSPORT are ignored.")
def transport_reserved_bytes(lab: Lab) -> None:
    draft = Draft(wire.ALLOCATE).add(wire.REQUESTED_TRANSPORT, bytes((wire.UDP, 0xFF, 0xFF, 0xFF)))
    _granted(lab, draft.because("reserved bytes 0xff"))


@requirement("8656-7.2-08", "MUST", "A success response has XOR-RELAYED-ADDRESS.")
def has_relayed_address(lab: Lab) -> None:
    answer = _granted(lab)
    if len(answer.addresses(wire.XOR_RELAYED_ADDRESS)) != 1:
        raise Failed(f"sent Allocate request; expected one XOR-RELAYED-ADDRESS, got {answer}")


@requirement("8656-7.2-09", "MUST", "A success response has LIFETIME.")
def has_lifetime(lab: Lab) -> None:
    answer = _granted(lab)
    if answer.number(wire.LIFETIME) is None:
        raise Failed(f"sent Allocate request; expected LIFETIME, got {answer}")


@requirement("8656-7.2-10", "MUST", "A success response has the client's address in XOR-MAPPED-ADDRESS.")
def has_mapped_address(lab: Lab) -> None:
    client = lab.client()
    answer = client.ask_signed(_allocate()).expect_success()
    mapped = answer.address(wire.XOR_MAPPED_ADDRESS)
    if mapped is None or (client.link.local.host == "127.0.0.1" and mapped != client.link.local):
        raise Failed(f"sent Allocate request from {client.link.local}; XOR-MAPPED-ADDRESS is {mapped}")


@requirement(
    "8656-7.2-11", "MUST", "Without REQUESTED-ADDRESS-FAMILY the relayed address is IPv4, or the answer is 440."
)
def default_family(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate())
    if exchange.answer is not None and exchange.answer.error_code == 440:
        return
    exchange.expect_success()
    if [address.family for address in client.relayed] != [wire.IPV4]:
        raise exchange.failed(f"an IPv4 address, not {', '.join(map(str, client.relayed))},")


@requirement("8656-7.2-12", "SHOULD", "Relayed ports are in 49152 to 65535.")
def port_is_dynamic(lab: Lab) -> None:
    ports = [lab.client().allocate().port for _ in range(5)]
    if outside := [port for port in ports if not 49152 <= port <= 65535]:
        raise Failed(f"sent 5 Allocate requests; got ports {outside}")


@requirement("8656-7.2-13", "SHOULD", "Relayed ports are not the well-known ones up to 1023.")
def port_is_not_well_known(lab: Lab) -> None:
    port = lab.client().allocate().port
    if port < 1024:
        raise Failed(f"sent Allocate request; got port {port}")


@requirement("8656-7.2-14", "SHOULD", "Relayed ports cannot be guessed from those before (RFC 6056).")
def ports_are_random(lab: Lab) -> None:
    ports = [lab.client().allocate().port for _ in range(6)]
    steps = {abs(after - before) for before, after in pairwise(ports)}
    if len(steps) == 1 or max(steps) <= 2:
        raise Failed(f"sent 6 Allocate requests; got ports {ports}")


@requirement("8656-7.2-15", "MUST", "Without LIFETIME the allocation gets the default lifetime, 600 s.")
def default_lifetime(lab: Lab) -> None:
    _expect_lifetime(_granted(lab), DEFAULT_LIFETIME_S, "no LIFETIME")


@requirement("8656-7.2-16", "MUST", "A LIFETIME below the default gives the default.")
def short_lifetime(lab: Lab) -> None:
    _expect_lifetime(_granted(lab, _allocate().lifetime(30)), DEFAULT_LIFETIME_S, "LIFETIME 30")


@requirement("8656-7.2-17", "MUST", "A LIFETIME of 0 in Allocate gives the default.")
def no_lifetime(lab: Lab) -> None:
    _expect_lifetime(_granted(lab, _allocate().lifetime(0)), DEFAULT_LIFETIME_S, "LIFETIME 0")


@requirement("8656-7.2-18", "MUST", "A LIFETIME above the default gives it, or the server's maximum if that is less.")
def longer_lifetime(lab: Lab) -> None:
    lifetime_s = _granted(lab, _allocate().lifetime(1000)).number(wire.LIFETIME) or 0
    if not DEFAULT_LIFETIME_S <= lifetime_s <= 1000:
        raise Failed(f"sent Allocate request with LIFETIME 1000; got LIFETIME {lifetime_s}")


@requirement("8656-7.2-19", "SHOULD", "The maximum lifetime is 3600 s at most.")
def longest_lifetime(lab: Lab) -> None:
    lifetime_s = _granted(lab, _allocate().lifetime(0xFFFFFFFF)).number(wire.LIFETIME) or 0
    if lifetime_s > MAX_LIFETIME_S:
        raise Failed(f"sent Allocate request with LIFETIME 4294967295; got LIFETIME {lifetime_s}")


def _expect_lifetime(answer: Message, lifetime_s: int, sent: str) -> None:
    if answer.number(wire.LIFETIME) != lifetime_s:
        raise Failed(
            f"sent Allocate request with {sent}; expected {lifetime_s} s, got {answer.number(wire.LIFETIME)} s"
        )


@requirement(
    "8656-18.2-01", "MUST", "A LIFETIME of two bytes instead of four is refused, or ignored, but never granted."
)
def malformed_lifetime(lab: Lab) -> None:
    exchange = lab.client().ask_signed(_allocate().add(wire.LIFETIME, b"\x0e\x10").because("LIFETIME of 2 bytes"))
    if exchange.answer is None or exchange.answer.message_class != wire.SUCCESS:
        exchange.expect_error(400)
    elif exchange.answer.number(wire.LIFETIME) != DEFAULT_LIFETIME_S:
        raise exchange.failed("400 or the default lifetime")


@requirement("8656-5-06", "MUST", "The same Allocate request sent again gets the same relayed address.", over="udp")
def retransmitted_allocate(lab: Lab) -> None:
    client = lab.client()
    draft = client.signed(_allocate())
    first = client.ask(draft).expect_success().address(wire.XOR_RELAYED_ADDRESS)
    exchange = client.ask(draft.because("the same bytes again"))
    second = exchange.expect_success().address(wire.XOR_RELAYED_ADDRESS)
    if first != second:
        raise exchange.failed(f"{first}, not {second},")


@requirement("8656-5-07", "SHOULD", "Allocate responses have SOFTWARE.")
def allocate_has_software(lab: Lab) -> None:
    exchange = lab.client().ask_signed(_allocate())
    if not exchange.expect_success().has(wire.SOFTWARE):
        raise exchange.failed("SOFTWARE")


@requirement("8656-5-08", "SHOULD", "Refresh responses have SOFTWARE.")
def refresh_has_software(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    exchange = client.ask_signed(Draft(wire.REFRESH))
    if not exchange.expect_success().has(wire.SOFTWARE):
        raise exchange.failed("SOFTWARE")


@requirement("8656-5-09", "MUST", "Refresh without an allocation is answered 437.")
def refresh_without_allocation(lab: Lab) -> None:
    lab.client().ask_signed(Draft(wire.REFRESH).lifetime(600).because("no allocation")).expect_error(437)


@requirement("8656-5-10", "MUST", "CreatePermission without an allocation is answered 437.")
def permission_without_allocation(lab: Lab) -> None:
    draft = Draft(wire.CREATE_PERMISSION).peer(lab.peer().address).because("no allocation")
    lab.client().ask_signed(draft).expect_error(437)


@requirement("8656-5-11", "MUST", "ChannelBind without an allocation is answered 437.")
def channel_without_allocation(lab: Lab) -> None:
    draft = Draft(wire.CHANNEL_BIND).channel(0x4000).peer(lab.peer().address).because("no allocation")
    lab.client().ask_signed(draft).expect_error(437)


@requirement("8656-5-12", "MUST", "A Send indication without an allocation is ignored.")
def send_without_allocation(lab: Lab) -> None:
    client, peer = lab.client(), lab.peer()
    draft = client.send_to(peer.address, b"nowhere")
    came = client.hear() or peer.receive(0.05)
    if came is not None:
        raise Failed(f"sent {draft} without an allocation; got {seen(came)}")


@requirement("8656-5-13", "MUST", "Channel data without an allocation is ignored.")
def channel_data_without_allocation(lab: Lab) -> None:
    client = lab.client()
    client.link.send(wire.channel_data(0x4000, b"nowhere!"))
    if (answer := client.hear()) is not None:
        raise Failed(f"sent channel data without an allocation; got {seen(answer)}")


@requirement("8656-5-14", "SHOULD", "A challenge to a first Allocate has a new random nonce.")
def nonces_are_random(lab: Lab) -> None:
    lab.need_authentication()
    nonces = {lab.client().challenge().first(wire.NONCE) for _ in range(4)}
    if len(nonces) < 4:
        raise Failed(f"sent Allocate requests without credentials from 4 ports; got {len(nonces)} nonces")


@requirement("8656-6-01", "MUST", "The new allocation has no permissions: a stranger's datagram is dropped.")
def no_permissions_at_first(lab: Lab) -> None:
    client, peer, relayed = lab.allocated()
    peer.send(b"stranger", relayed)
    if (came := client.hear()) is not None:
        raise Failed(f"a peer without permission sent 8 bytes; the client got {seen(came)}")


@requirement("8656-6-02", "MUST", "Two clients have two relayed addresses.")
def relayed_addresses_differ(lab: Lab) -> None:
    first, second = lab.client().allocate(), lab.client().allocate()
    if first == second:
        raise Failed(f"sent Allocate requests from two ports; both got {first}")


@requirement("8656-6-05", "MUST", "An allocation is not ended by another one of the same user.")
def allocations_of_one_user(lab: Lab) -> None:
    user = lab.target.users.take()
    first, second = lab.client(user), lab.client(user)
    first.allocate()
    exchange = second.ask_signed(_allocate())
    if exchange.answer is not None and exchange.answer.error_code == 486:
        raise NotApplicable("a user may have one allocation only: 486")
    exchange.expect_success()
    first.ask_signed(Draft(wire.REFRESH).because("after another Allocate of the same user")).expect_success()


@requirement("8656-7.2-20", "MAY", "An allocation quota of the user is enforced with 486.")
def quota(lab: Lab) -> None:
    user = lab.target.users.take()
    for count in range(12):
        answer = lab.client(user).ask_signed(_allocate()).answer
        if answer is not None and answer.error_code == 486:
            return
        if answer is None or answer.message_class != wire.SUCCESS:
            raise Failed(f"sent Allocate request {count + 1} of one user; expected success or 486, got {answer}")
    raise NotApplicable("12 allocations of one user did not reach any quota")
