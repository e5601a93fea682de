"""Relaying between the families: RFC 8656, sections 7.2 and 13. What stands in IP headers is not looked at."""

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.links import Peer
from conformance.registry import Failed, NotApplicable, NotTested, requirement
from conformance.requirements.allocate_options import dual_allocation, ipv6_allocation
from conformance.wire import IPV6, Address, Draft

FAR_IPV6 = "our IPv6 peers are on ::1, which only a server on this host reaches"


@requirement("8656-13-01", "MUST", "A client on IPv4 with an IPv6 allocation reaches IPv6 peers, both ways.")
def ipv6_relay(lab: Lab) -> None:
    client, relayed = ipv6_allocation(lab)
    if not lab.target.peer_host.startswith("127."):
        raise NotTested(FAR_IPV6)
    _both_ways(lab, client, lab.peer("::1"), relayed)


@requirement("8656-13-02", "MUST", "A client on IPv6 with an IPv4 allocation reaches IPv4 peers, both ways.")
def ipv4_relay_over_ipv6(lab: Lab) -> None:
    if lab.target.server6 is None:
        raise NotTested("needs the server's IPv6 address: --server6")
    client = lab.client(server=lab.target.server6)
    if client.ask(Draft(wire.BINDING)).answer is None:
        raise NotApplicable(f"the server does not answer at {lab.target.server6}")
    relayed = client.allocate()
    _both_ways(lab, client, lab.peer(), relayed)


@requirement("8656-7.2-38", "MUST", "Both addresses of a dual allocation relay, each for its own family.")
def dual_relay(lab: Lab) -> None:
    client = dual_allocation(lab)
    for relayed in client.relayed:
        if not lab.target.peer_host.startswith("127."):
            raise NotTested(FAR_IPV6)
        _both_ways(lab, client, lab.peer("::1" if relayed.family == IPV6 else None), relayed)


def _both_ways(lab: Lab, client: Client, peer: Peer, relayed: Address) -> None:
    """Over a channel, so that this is about families and nothing else."""
    number = 0x4000 + relayed.family
    client.bind(number, peer.address)
    client.link.send(wire.channel_data(number, b"there..."))
    came = peer.receive(lab.target.answer_s)
    if came is None or came != (b"there...", relayed):
        raise Failed(f"sent channel data of 8 bytes from {relayed} to {peer.address}; the peer got {seen(came)}")
    peer.send(b"and back", relayed)
    back = client.delivery()
    if back is None or back.channel != number or back.payload != b"and back":
        raise Failed(f"{peer.address} sent 8 bytes to {relayed}; the client got {seen(back)}")
