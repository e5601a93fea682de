"""What ends by itself, after minutes: RFC 8656, sections 6, 7.2, 9 and 12. All of it waits at the same time."""

import time

from conformance import wire
from conformance.lab import Client, Lab, seen
from conformance.links import Peer
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import Address, Draft, channel_data

PERMISSION_S, CHANNEL_S, ALLOCATION_S = 300, 600, 600
EARLY_S, LATE_S = 10, 10  # how far from the end we look, before and after


def _wait(lab: Lab, client: Client, seconds: float, *, refresh: bool = True) -> None:
    """Waits, and keeps the allocation meanwhile where `refresh` says so."""
    until = time.monotonic() + seconds
    while (remaining := until - time.monotonic()) > 0:
        lab.sleep(min(remaining, 120))
        if refresh:
            client.ask_signed(Draft(wire.REFRESH).lifetime(ALLOCATION_S)).expect_success()


def _hears(client: Client, peer: Peer, relayed: Address) -> bool:
    while client.hear(0.01) is not None:
        pass
    peer.send(b"still there?", relayed)
    return client.delivery() is not None


def _permitted(lab: Lab) -> tuple[Client, Peer, Address]:
    """A permission of this moment, and it works; else its end would prove nothing."""
    client, peer, relayed = lab.allocated()
    client.permit(peer.address)
    if not _hears(client, peer, relayed):
        raise Failed("a peer sent data at once after CreatePermission; nothing came")
    return client, peer, relayed


@requirement("8656-9-06", "MUST", "A permission lasts 300 s.", slow=True)
def permission_lasts(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    _wait(lab, client, PERMISSION_S - EARLY_S)
    if not _hears(client, peer, relayed):
        raise Failed(f"a peer sent data {PERMISSION_S - EARLY_S} s after CreatePermission; nothing came")


@requirement("8656-9-07", "MUST", "A permission ends after 300 s, and traffic does not prolong it.", slow=True)
def permission_ends(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    _wait(lab, client, PERMISSION_S - EARLY_S)
    client.send_to(peer.address, b"traffic")
    _hears(client, peer, relayed)
    _wait(lab, client, EARLY_S + LATE_S)
    if _hears(client, peer, relayed):
        raise Failed(f"a peer sent data {PERMISSION_S + LATE_S} s after CreatePermission; it was relayed")


@requirement("8656-9-08", "MUST", "A permission that is created again lasts 300 s from then.", slow=True)
def permission_is_refreshed(lab: Lab) -> None:
    client, peer, relayed = _permitted(lab)
    _wait(lab, client, PERMISSION_S / 2)
    client.permit(peer.address)
    _wait(lab, client, PERMISSION_S - EARLY_S)
    if not _hears(client, peer, relayed):
        raise Failed("a peer sent data 290 s after the second CreatePermission, 440 s after the first; nothing came")


@requirement("8656-12-03", "MUST", "A channel lasts 600 s, if its permission is kept.", slow=True)
def channel_lasts(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    _wait(lab, client, CHANNEL_S / 2 - EARLY_S)
    client.permit(peer.address)
    _wait(lab, client, CHANNEL_S / 2 - EARLY_S)
    client.link.send(channel_data(0x4000, b"still there?"))
    if (came := peer.receive(lab.target.answer_s)) is None:
        raise Failed(f"sent channel data {CHANNEL_S - 2 * EARLY_S} s after ChannelBind; the peer got {seen(came)}")


@requirement("8656-12-04", "MUST", "A channel ends after 600 s, and traffic does not prolong it.", slow=True)
def channel_ends(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.bind(0x4000, peer.address)
    client.link.send(channel_data(0x4000, b"at first"))
    if peer.receive(lab.target.answer_s) is None:
        raise Failed("sent channel data at once after ChannelBind; nothing came")
    _wait(lab, client, CHANNEL_S - EARLY_S)
    client.permit(peer.address)
    client.link.send(channel_data(0x4000, b"traffic!"))
    peer.receive(lab.target.answer_s)
    _wait(lab, client, EARLY_S + LATE_S)
    client.link.send(channel_data(0x4000, b"too late"))
    if (came := peer.receive(lab.silence_s)) is not None:
        raise Failed(f"sent channel data {CHANNEL_S + LATE_S} s after ChannelBind; the peer got {seen(came)}")


@requirement("8656-6-03", "MUST", "An allocation lasts as long as LIFETIME said.", slow=True)
def allocation_lasts(lab: Lab) -> None:
    client = lab.client()
    client.allocate()
    _wait(lab, client, ALLOCATION_S - EARLY_S, refresh=False)
    client.ask_signed(Draft(wire.REFRESH).because(f"{ALLOCATION_S - EARLY_S} s after Allocate")).expect_success()


@requirement(
    "8656-6-04", "MUST", "An allocation ends when its LIFETIME is over, and traffic does not prolong it.", slow=True
)
def allocation_ends(lab: Lab) -> None:
    client, peer, _ = lab.allocated()
    client.permit(peer.address)
    _wait(lab, client, ALLOCATION_S - EARLY_S, refresh=False)
    client.send_to(peer.address, b"traffic")
    _wait(lab, client, EARLY_S + LATE_S, refresh=False)
    client.ask_signed(Draft(wire.REFRESH).because(f"{ALLOCATION_S + LATE_S} s after Allocate")).expect_error(437)


@requirement("8656-7.2-39", "MUST", "A reservation is held for 30 s at least.", slow=True)
def reservation_is_held(lab: Lab) -> None:
    first, second = lab.client(), lab.client()
    exchange = first.ask_signed(Draft(wire.ALLOCATE).transport().even_port(reserve=True))
    if exchange.answer is not None and exchange.answer.error_code == 508:
        raise NotApplicable("the server reserves no ports: 508")
    token = exchange.expect_success().first(wire.RESERVATION_TOKEN)
    if token is None:
        raise exchange.failed("RESERVATION-TOKEN")
    lab.sleep(28)
    draft = Draft(wire.ALLOCATE).transport().add(wire.RESERVATION_TOKEN, token)
    second.ask_signed(draft.because("a token of 28 s")).expect_success()
