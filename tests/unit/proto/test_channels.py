"""Channel numbers and their times."""

from wardgate.proto.channels import FIRST_NUMBER, LAST_NUMBER, LIFETIME_S, REFRESH_AFTER_S, REUSE_AFTER_S, Channels
from wardgate.wire.addresses import SocketAddr


def peer(port: int) -> SocketAddr:
    return SocketAddr("203.0.113.31", port)


def test_first_number_is_the_lowest_and_numbers_go_round() -> None:
    channels = Channels()

    assert [assigned(channels, port, 0.0) for port in (1, 2, 3)] == [FIRST_NUMBER, FIRST_NUMBER + 1, FIRST_NUMBER + 2]


def test_unused_numbers_come_before_those_that_ended() -> None:
    channels = Channels()
    assigned(channels, 1, 0.0)

    assert assigned(channels, 2, REUSE_AFTER_S + 1) == FIRST_NUMBER + 1


def test_number_is_used_again_only_after_its_rest() -> None:
    channels = Channels()
    for port in range(1, LAST_NUMBER - FIRST_NUMBER + 2):
        assigned(channels, port, 0.0)

    assert channels.assign(peer(5000), REUSE_AFTER_S - 1) is None
    assert assigned(channels, 5000, REUSE_AFTER_S) == FIRST_NUMBER


def test_same_peer_keeps_its_number_while_that_rests() -> None:
    channels = Channels()
    number = assigned(channels, 1, 0.0)
    assigned(channels, 2, 0.0)

    assert channels.sending_to(peer(1), LIFETIME_S) is None
    assert assigned(channels, 1, LIFETIME_S + 1) == number


def test_refresh_needs_age_and_received_data() -> None:
    channels = Channels()
    for port in (1, 2):
        confirm(channels, port, 0.0)
    channels.receiving_on(FIRST_NUMBER, 1.0)
    known = channels.get(FIRST_NUMBER)
    assert known
    known.received = True

    assert channels.due(REFRESH_AFTER_S - 1) == []
    assert [channel.number for channel in channels.due(REFRESH_AFTER_S)] == [FIRST_NUMBER]


def test_in_flight_channel_sends_but_does_not_receive() -> None:
    channels = Channels()
    number = assigned(channels, 1, 0.0)

    assert channels.sending_to(peer(1), 0.0)
    assert channels.receiving_on(number, 0.0) is None


def test_ended_channels_are_told_once() -> None:
    channels = Channels()
    confirm(channels, 1, 0.0)

    assert [channel.peer for channel in channels.expire(LIFETIME_S)] == [peer(1)]
    assert channels.expire(LIFETIME_S) == []
    assert channels.receiving_on(FIRST_NUMBER, LIFETIME_S) is None


def assigned(channels: Channels, port: int, now: float) -> int:
    channel = channels.assign(peer(port), now)
    assert channel
    return channel.number


def confirm(channels: Channels, port: int, now: float) -> None:
    channel = channels.assign(peer(port), now)
    assert channel
    channel.confirmed, channel.pending = True, False
