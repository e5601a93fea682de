"""Which relay a new connection uses, and which announcements change anything."""

from collections import Counter

from tests.unit.proto.turn_client import SECRET, Counting
from wardgate._fastpath import Engine
from wardgate.ids import RelayId
from wardgate.proto.allocation import Allocation
from wardgate.tunnel.connections_relays import MAX_FORMER, MAX_RELAYS, Relays, _threshold
from wardgate.wire import stun, turn
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import Relay
from wardgate.wire.stun import Builder, MessageClass, Method
from wardgate.wire.turn import Username

HOST = SocketAddr("192.168.1.2", 52625)
USER = Username(1_800_000_000, "salt")


def test_only_relays_whose_distance_is_known_are_chosen() -> None:
    relays = new_relays({1: None, 2: 0.5})

    assert chosen(relays) == {2}


def test_distant_relay_of_two_is_left_out() -> None:
    assert chosen(new_relays({1: 0.010, 2: 0.016})) == {1}


def test_similar_relays_share_the_connections() -> None:
    assert chosen(new_relays({1: 0.010, 2: 0.014})) == {1, 2}


def test_outliers_of_many_are_left_out() -> None:
    assert chosen(new_relays({1: 0.010, 2: 0.011, 3: 0.012, 4: 0.200})) == {1, 2, 3}


def test_near_relays_count_as_similar_whatever_their_spread() -> None:
    assert _threshold([0.001, 0.001, 0.001]) == 0.001 + 3 * 0.002


def test_relay_that_did_not_answer_yet_is_better_than_none() -> None:
    assert chosen(new_relays({1: None})) == {1}
    assert new_relays({}).choose() is None


def test_same_announcement_changes_nothing() -> None:
    relays = new_relays({1: 0.01})
    before = relays.get(relay_id(1))

    assert relays.update((), [announcement(1)], 1.0) == []
    assert relays.get(relay_id(1)) is before


def test_other_credentials_or_addresses_make_a_new_allocation() -> None:
    relays = new_relays({1: 0.01})
    before = relays.get(relay_id(1))

    gone = relays.update((), [announcement(1, salt="other")], 1.0)

    assert gone == [before]
    assert relays.get(relay_id(1)) is not before


def test_another_relay_at_the_same_address_takes_the_place_of_the_former() -> None:
    relays = new_relays({1: 0.01, 2: 0.01})
    before = relays.get(relay_id(1))
    again = announcement(3, salt="other").model_copy(update={"addr": server(1)})

    gone = relays.update((), [again], 1.0)

    assert gone == [before]
    assert relays.get(relay_id(1)) is None
    assert relays.at(server(1)) is relays.get(relay_id(3))
    assert len(relays) == 2


def test_a_silent_relay_is_left_for_one_that_answered() -> None:
    relays = new_relays({1: 0.01, 2: 0.01})
    relays.check(10.0)
    assert relays.instead_of(relay_id(1), 10.0) is None

    answer_checks(relays, {2}, 10.02)

    assert relays.instead_of(relay_id(1), 10.0) is relays.get(relay_id(2))
    assert relays.instead_of(relay_id(2), 10.0) is None


def test_both_families_of_a_relay_are_one_allocation() -> None:
    relays = new_relays({})
    v6 = announcement(1).model_copy(update={"addr": SocketAddr("2001:db8::3", 3478)})

    relays.update((), [announcement(1), v6], 0.0)

    assert len(relays) == 1
    allocation = relays.at(SocketAddr("2001:db8::3", 3478))
    assert allocation is relays.at(server(1))
    assert allocation
    assert allocation.servers == (server(1), SocketAddr("2001:db8::3", 3478))


def test_relays_are_bounded_and_former_ones_are_remembered_for_a_while() -> None:
    relays = new_relays({})
    for number in range(1, MAX_RELAYS + 5):
        relays.update((), [announcement(number)], 0.0)
    assert len(relays) == MAX_RELAYS

    for number in range(1, MAX_RELAYS + 5):
        relays.update([relay_id(number)], [], 0.0)
    for number in range(100, 100 + MAX_FORMER):
        relays.update((), [announcement(number)], 0.0)
        relays.update([relay_id(number)], [], 0.0)

    assert len(relays) == 0
    assert relays.is_former(server(100 + MAX_FORMER - 1))
    assert not relays.is_former(server(1))


def test_announced_again_is_no_longer_former() -> None:
    relays = new_relays({1: 0.01})
    relays.update([relay_id(1)], [], 1.0)
    relays.update((), [announcement(1)], 2.0)

    assert not relays.is_former(server(1))


def test_removed_relay_gets_its_allocation_back() -> None:
    relays = new_relays({1: 0.01})

    relays.update([relay_id(1)], [], 1.0)

    farewells = [stun.decode(transmit.payload) for transmit in iter(relays.poll_transmit, None)]
    assert [(message.method, message.lifetime_s) for message in farewells if message.method == 4] == [(4, 0)]


def new_relays(rtt_by_number: dict[int, float | None]) -> Relays:
    """Relays at these distances; `None` has not answered yet."""
    relays = Relays(Engine(), Counting(), Counter())
    relays.update((), [announcement(number) for number in rtt_by_number], 0.0)
    for number, rtt_s in rtt_by_number.items():
        allocation = relays.get(relay_id(number))
        assert allocation
        if rtt_s is not None:
            answer_all(allocation, number, rtt_s)
    return relays


def answer_all(allocation: Allocation, number: int, rtt_s: float) -> None:
    now, key = 0.0, turn.long_term_key(str(USER), turn.password_of(USER, SECRET))
    while transmit := allocation.poll_transmit():
        request = stun.decode(transmit.payload)
        now += rtt_s
        answer = Builder(request.method, MessageClass.SUCCESS, request.transaction_id).mapped_address(HOST)
        if request.method == Method.BINDING:
            payload = answer.build()
        else:
            payload = answer.relayed_address(SocketAddr(f"203.0.113.{number}", 50_000)).build(key)
        allocation.handle_input(HOST, transmit.remote, stun.decode(payload), now)


def answer_checks(relays: Relays, numbers: set[int], now: float) -> None:
    while transmit := relays.poll_transmit():
        allocation = relays.at(transmit.remote)
        request = stun.decode(transmit.payload)
        if allocation and any(allocation.relay_id == relay_id(number) for number in numbers):
            answer = Builder(request.method, MessageClass.SUCCESS, request.transaction_id).mapped_address(HOST)
            allocation.handle_input(HOST, transmit.remote, stun.decode(answer.build()), now)


def chosen(relays: Relays) -> set[int]:
    """Which ones a number of connections would use."""
    picks = [relays.choose() for _ in range(60)]
    return {int(pick.relay_id[-4:]) for pick in picks if pick}


def relay_id(number: int) -> RelayId:
    return RelayId(f"00000000-0000-4000-8000-{number:012}")


def server(number: int) -> SocketAddr:
    return SocketAddr(f"203.0.113.{number}", 3478)


def announcement(number: int, salt: str = "salt") -> Relay:
    user = Username(USER.expires_at, salt)
    return Relay(
        id=relay_id(number),
        addr=server(number),
        username=str(user),
        password=turn.password_of(user, SECRET),
        expires_at=USER.expires_at,
    )
