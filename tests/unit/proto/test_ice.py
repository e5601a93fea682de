"""The ICE agent alone: timeouts, checks, nomination, what it refuses; and against recorded checks of real programs."""

from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pcap import VECTORS, read_udp
from tests.unit.proto.test_turn_server_recorded import ice_passwords_of
from wardgate.errors import RemoteProtocolError
from wardgate.proto import ice
from wardgate.proto.agent import AgentEvent, Disconnected, Nominated, Pair, PairTransmit
from wardgate.proto.ice import IceAgent, IceTimers
from wardgate.wire import stun
from wardgate.wire.addresses import RandomBytes, SocketAddr
from wardgate.wire.candidates import Candidate, Kind, with_ice_priority
from wardgate.wire.stun import Attribute, Builder, Message, MessageClass, Method

HOST = SocketAddr("192.168.1.2", 52625)
RELAY = SocketAddr("203.0.113.3", 50963)
PEER_HOST = SocketAddr("10.5.0.2", 52625)
PEER_SRFLX = SocketAddr("203.0.113.31", 52625)
PEER_RELAY = SocketAddr("203.0.113.3", 52577)
DIRECT = Pair(HOST, PEER_SRFLX)
RELAYED = Pair(RELAY, PEER_RELAY)
OURS, THEIRS = ("ours", "o" * 22), ("peer", "p" * 22)
ICE_CAPTURES = [path for path in sorted((VECTORS / "relay").glob("*-ice-*.pcap")) if "client-wan" in path.name]


@pytest.mark.parametrize(
    ("timers", "timeout_s"),
    [(ice.CLIENT, 16.5), (ice.CLIENT_IDLE, 100.0), (ice.SERVER, 615.5), (ice.SERVER_IDLE, 1000.0)],
)
def test_timeouts_of_the_four_profiles(timers: IceTimers, timeout_s: float) -> None:
    assert timers.timeout_s == timeout_s


def test_every_pair_of_a_family_is_checked_at_once() -> None:
    agent = new_agent()
    agent.add_local(prepared(Candidate.host(SocketAddr("2001:db8::2", 52625))), 0.0)
    agent.handle_timeout(0.0)

    pairs = {transmit.pair for transmit in drain(agent)}

    assert pairs == {Pair(local, remote) for local in (HOST, RELAY) for remote in (PEER_HOST, PEER_SRFLX, PEER_RELAY)}


def test_check_has_its_attributes_in_order() -> None:
    agent = new_agent()
    agent.handle_timeout(0.0)
    check = request_on(agent, DIRECT)

    assert attribute_types(check.raw) == [
        Attribute.USERNAME,
        Attribute.ICE_CONTROLLING,
        Attribute.PRIORITY,
        Attribute.MESSAGE_INTEGRITY,
        Attribute.FINGERPRINT,
    ]
    assert (check.username, check.priority) == ("peer:ours", 0x6EFFFEFF)
    assert check.verify_integrity(stun.short_term_key(THEIRS[1]))


def test_first_unanswered_checks_are_repeated_soon_and_then_seldom() -> None:
    agent = new_agent()

    sent = [at for at, transmit in run(agent, until=10.0) if transmit.pair == DIRECT]

    assert [round(at, 3) for at in sent[:5]] == [0.0, 0.01, 0.03, 0.07, 0.15]
    assert sent[-1] - sent[-2] == pytest.approx(ice.CLIENT.max_rto_s)


def test_pair_that_never_answers_is_given_up() -> None:
    agent = new_agent()

    sent = run(agent, until=60.0)

    assert max(at for at, _ in sent) < ice.CLIENT.timeout_s
    assert agent.poll_timeout() is None


def test_controlling_end_uses_what_works_and_moves_to_better() -> None:
    agent = new_agent()
    agent.handle_timeout(0.0)
    sent = drain(agent)

    answer(agent, RELAYED, sent, 0.01)
    assert events(agent) == [Nominated(RELAYED)]
    assert request_on(agent, RELAYED).use_candidate
    answer(agent, DIRECT, sent, 0.02)

    assert events(agent) == [Nominated(DIRECT)]
    nominating = request_on(agent, DIRECT)
    assert nominating.use_candidate
    assert attribute_types(nominating.raw)[3] == Attribute.USE_CANDIDATE


def test_worse_pair_does_not_take_over() -> None:
    agent = new_agent()
    agent.handle_timeout(0.0)
    sent = drain(agent)
    answer(agent, DIRECT, sent, 0.01)
    answer(agent, RELAYED, sent, 0.02)

    assert events(agent) == [Nominated(DIRECT)]


def test_answer_counts_only_on_its_pair_and_with_integrity_and_address() -> None:
    agent = new_agent()
    agent.handle_timeout(0.0)
    sent = drain(agent)
    request = decoded_on(sent, DIRECT)

    assert not agent.handle_stun(RELAYED, success(request), 0.01)
    assert not agent.handle_stun(DIRECT, success(request, key="wrong"), 0.01)
    assert not agent.handle_stun(DIRECT, success(request, mapped=None), 0.01)
    assert not agent.handle_stun(DIRECT, success(request, transaction_id=bytes(12)), 0.01)

    assert events(agent) == []
    assert agent.counts["answers refused"] == 4


@pytest.mark.parametrize("lacking", ["username", "priority", "integrity", "right username"])
def test_requests_that_lack_something_are_refused(lacking: str) -> None:
    agent = new_agent(controlling=False)
    builder = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12))
    if lacking != "username":
        builder.username("ours:somebody" if lacking == "right username" else "ours:peer")
    if lacking != "priority":
        builder.priority(1)
    key = stun.short_term_key("x" if lacking == "integrity" else OURS[1])

    assert not agent.handle_stun(DIRECT, stun.decode(builder.build(key)), 0.0)
    assert drain(agent) == []


def test_request_is_answered_with_the_address_it_came_from_and_triggers_a_check() -> None:
    agent = new_agent(controlling=False)
    run(agent, until=5.0)

    assert agent.handle_stun(DIRECT, check_of_peer(), 6.0)
    agent.handle_timeout(6.0)

    answered, triggered = [stun.decode(transmit.payload) for transmit in drain(agent)][:2]
    assert answered.mapped_address == PEER_SRFLX
    assert answered.verify_integrity(stun.short_term_key(OURS[1]))
    assert answered.has_fingerprint
    assert triggered.message_class is MessageClass.REQUEST


def test_controlled_end_follows_the_nomination_once_its_own_check_succeeded() -> None:
    agent = new_agent(controlling=False)
    agent.handle_timeout(0.0)
    sent = drain(agent)

    agent.handle_stun(DIRECT, check_of_peer(nominate=True), 0.01)
    assert events(agent) == []
    answer(agent, DIRECT, sent, 0.02)

    assert events(agent) == [Nominated(DIRECT)]


def test_controlled_end_takes_the_best_of_those_nominated_together_and_forgets_what_was_left() -> None:
    agent = new_agent(controlling=False)
    agent.handle_timeout(0.0)
    sent = drain(agent)
    for pair in (RELAYED, DIRECT):
        answer(agent, pair, sent, 0.02)
        agent.handle_stun(pair, check_of_peer(nominate=True), 0.03)
    assert events(agent) == [Nominated(RELAYED), Nominated(DIRECT)]

    agent.handle_stun(RELAYED, check_of_peer(nominate=True), 10.0)

    assert events(agent) == [Nominated(RELAYED)]


def test_request_from_an_unknown_source_makes_a_peer_reflexive_candidate() -> None:
    agent = new_agent()
    run(agent, until=20.0)
    pair = Pair(HOST, SocketAddr("198.51.100.9", 7000))

    agent.handle_stun(pair, check_of_peer(), 21.0)
    agent.handle_timeout(21.0)

    assert request_on(agent, pair).username == "peer:ours"


def test_withdrawn_address_is_not_learned_again_from_checks() -> None:
    agent = new_agent()
    agent.remove_remote(PEER_SRFLX, 0.0)
    run(agent, until=20.0)

    assert agent.handle_stun(DIRECT, check_of_peer(), 21.0)
    agent.handle_timeout(21.0)

    assert [stun.decode(t.payload).message_class for t in drain(agent)] == [MessageClass.SUCCESS]


def test_signalled_candidate_replaces_a_peer_reflexive_one_in_place() -> None:
    agent = IceAgent(local=OURS, remote=THEIRS, controlling=True, random_bytes=counter())
    agent.add_local(prepared(Candidate.host(HOST)), 0.0)
    agent.handle_stun(DIRECT, check_of_peer(), 0.0)
    agent.handle_timeout(0.0)
    sent = drain(agent)
    agent.add_remote(srflx(), 0.01)

    answer(agent, DIRECT, [transmit for transmit in sent if is_request(transmit)], 0.02)

    assert events(agent) == [Nominated(DIRECT)]
    assert {transmit.pair for _, transmit in run(agent, now=0.03, until=1.0)} == {DIRECT}


def test_guesses_combine_public_addresses_with_private_ports_and_are_at_most_two() -> None:
    agent = IceAgent(local=OURS, remote=THEIRS, controlling=True, random_bytes=counter())
    agent.add_local(prepared(Candidate.host(HOST)), 0.0)
    for port in (1000, 2000, 3000):
        agent.add_remote(prepared(Candidate.host(SocketAddr("10.5.0.2", port))), 0.0)
    agent.add_remote(prepared(Candidate(Kind.SRFLX, SocketAddr("203.0.113.31", 9), PEER_HOST)), 0.0)
    agent.handle_timeout(0.0)

    guessed = [t.pair.remote.port for t in drain(agent) if t.pair.remote.host == "203.0.113.31"]

    assert sorted(guessed) == [9, 1000, 2000]


def test_nothing_is_guessed_for_ipv6() -> None:
    agent = IceAgent(local=OURS, remote=THEIRS, controlling=True, random_bytes=counter())
    agent.add_local(prepared(Candidate.host(SocketAddr("2001:db8::1", 1))), 0.0)
    peer = SocketAddr("2001:db8::2", 2)
    agent.add_remote(prepared(Candidate.host(peer)), 0.0)
    agent.add_remote(prepared(Candidate(Kind.SRFLX, SocketAddr("2001:db8::3", 3), peer)), 0.0)
    agent.handle_timeout(0.0)

    assert len(drain(agent)) == 2


def test_path_that_falls_silent_is_left_while_another_answers() -> None:
    agent = new_agent()
    now = converse(agent, {DIRECT, RELAYED}, 0.0, until=5.0)
    assert events(agent)[-1] == Nominated(DIRECT)

    converse(agent, {RELAYED}, now, until=now + 5.0)

    assert events(agent)[-1] == Nominated(RELAYED)


def test_distress_finds_within_seconds_that_nobody_answers() -> None:
    agent = new_agent()
    now = converse(agent, {DIRECT, RELAYED}, 0.0, until=5.0)
    events(agent)

    agent.handle_distress(now)
    run(agent, now=now, until=now + ice.DOUBT_FAIL_S + 0.01)

    assert any(isinstance(event, Disconnected) for event in collected)


def test_distress_without_need_changes_nothing() -> None:
    agent = new_agent()
    now = converse(agent, {DIRECT, RELAYED}, 0.0, until=5.0)
    events(agent)

    agent.handle_distress(now)
    converse(agent, {DIRECT, RELAYED}, now, until=now + 20.0)

    assert events(agent) == []


def test_controlled_end_never_gives_up_in_distress() -> None:
    agent = new_agent(controlling=False)
    agent.handle_distress(0.0)

    run(agent, until=100.0)

    assert collected == []


def test_idle_agent_checks_every_25_seconds() -> None:
    agent = new_agent()
    now = converse(agent, {DIRECT}, 0.0, until=20.0)
    agent.set_idle(True, now)
    before = count_checks(agent, {DIRECT}, now, until=now + 100.0)
    agent.set_idle(False, now + 100.0)
    after = count_checks(agent, {DIRECT}, now + 100.0, until=now + 130.0)

    assert before in (3, 4)
    assert after >= 19


def test_losing_the_nominated_candidate_falls_back_at_once() -> None:
    agent = new_agent()
    now = converse(agent, {DIRECT, RELAYED}, 0.0, until=5.0)
    events(agent)

    agent.remove_remote(PEER_SRFLX, now)

    assert events(agent) == [Nominated(RELAYED)]


def test_remote_candidates_and_pairs_are_bounded() -> None:
    agent = new_agent()
    for port in range(1, 200):
        agent.add_remote(prepared(Candidate(Kind.RELAY, SocketAddr("198.51.100.9", port), PEER_HOST)), 0.0)
    agent.handle_timeout(0.0)

    assert len({transmit.pair for transmit in drain(agent)}) <= ice.MAX_PAIRS
    assert agent.counts["remotes refused"] > 0


@given(st.data())
def test_no_message_upsets_the_agent(data: st.DataObject) -> None:
    agent = new_agent(controlling=data.draw(st.booleans()))
    agent.handle_timeout(0.0)
    known = [stun.decode(transmit.payload).transaction_id for transmit in drain(agent)]
    builder = Builder(
        data.draw(st.sampled_from([1, 3])),
        data.draw(st.sampled_from(list(MessageClass))),
        data.draw(st.sampled_from([*known, bytes(12)])),
    )
    types = st.sampled_from([type_ for type_ in Attribute if type_ is not Attribute.FINGERPRINT])
    for type_, value in data.draw(st.lists(st.tuples(types, st.binary(max_size=20)))):
        builder.attribute(type_, value)
    key = data.draw(st.sampled_from([None, *(stun.short_term_key(password) for _, password in (OURS, THEIRS))]))

    agent.handle_stun(data.draw(st.sampled_from([DIRECT, RELAYED])), stun.decode(builder.build(key)), 0.1)
    run(agent, now=0.1, until=20.0)


@pytest.mark.parametrize("path", [path for path in ICE_CAPTURES if "-direct" in path.name], ids=lambda path: path.name)
def test_answers_are_those_that_a_real_client_gave(path: Path) -> None:
    passwords = ice_passwords_of(path)
    captured = [(one.source, one.payload) for one in read_udp(path) if stun.is_stun(one.payload)]
    messages = [(source, message) for source, payload in captured if (message := readable(payload)).username]
    compared = 0
    recorded = {message.transaction_id: message.raw for _, message in answers_in(captured)}
    for source, message in messages:
        if message.controlled is None or message.transaction_id not in recorded:
            continue
        ours, _, theirs = (message.username or "").partition(":")
        agent = IceAgent(
            local=(ours, passwords[ours]), remote=(theirs, passwords[theirs]), controlling=True, random_bytes=counter()
        )
        agent.add_local(prepared(Candidate.host(HOST)), 0.0)

        assert agent.handle_stun(Pair(HOST, source), message, 0.0)

        reply = agent.poll_transmit()
        assert reply
        assert reply.payload == recorded[message.transaction_id]
        compared += 1
    assert compared >= 1


@pytest.mark.parametrize("path", ICE_CAPTURES, ids=lambda path: path.name)
def test_checks_are_those_that_a_real_client_sent(path: Path) -> None:
    passwords = ice_passwords_of(path)
    compared = 0
    for one in read_udp(path):
        message = readable(one.payload)
        if message.controlling is None or message.use_candidate or message.priority != 0x6EFFFEFF:
            continue
        theirs, _, ours = (message.username or "").partition(":")
        scripted = iter([message.controlling.to_bytes(8, "big"), message.transaction_id])
        agent = IceAgent(
            local=(ours, passwords[ours]),
            remote=(theirs, passwords[theirs]),
            controlling=True,
            random_bytes=lambda _, scripted=scripted: next(scripted),  # type: ignore[misc]
        )
        agent.add_local(prepared(Candidate.host(HOST)), 0.0)
        agent.add_remote(prepared(Candidate(Kind.RELAY, one.destination, PEER_HOST)), 0.0)
        agent.handle_timeout(0.0)

        sent = agent.poll_transmit()
        assert sent
        assert sent.payload == one.payload
        compared += 1
    assert compared >= 1


collected: list[AgentEvent] = []


@pytest.fixture(autouse=True)
def _nothing_collected() -> None:
    collected.clear()


def new_agent(*, controlling: bool = True) -> IceAgent:
    agent = IceAgent(local=OURS, remote=THEIRS, controlling=controlling, random_bytes=counter())
    agent.add_local(prepared(Candidate.host(HOST)), 0.0)
    agent.add_local(prepared(Candidate(Kind.RELAY, RELAY, HOST)), 0.0)
    agent.add_remote(prepared(Candidate.host(PEER_HOST)), 0.0)
    agent.add_remote(srflx(), 0.0)
    agent.add_remote(prepared(Candidate(Kind.RELAY, PEER_RELAY, PEER_HOST)), 0.0)
    return agent


def srflx() -> Candidate:
    return prepared(Candidate(Kind.SRFLX, PEER_SRFLX, PEER_HOST))


def prepared(candidate: Candidate) -> Candidate:
    return with_ice_priority(candidate, 0)


def counter() -> RandomBytes:
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def drain(agent: IceAgent) -> list[PairTransmit]:
    return list(iter(agent.poll_transmit, None))


def events(agent: IceAgent) -> list[AgentEvent]:
    new = list(collected)
    while event := agent.poll_event():
        new.append(event)
    collected.clear()
    return new


def run(agent: IceAgent, *, until: float, now: float = 0.0) -> list[tuple[float, PairTransmit]]:
    """Lets time pass with nobody answering."""
    sent: list[tuple[float, PairTransmit]] = [(now, transmit) for transmit in drain(agent)]
    collected.extend(iter(agent.poll_event, None))
    for _ in range(20_000):
        at = agent.poll_timeout()
        if at is None or at > until:
            return sent
        now = max(now, at)
        agent.handle_timeout(now)
        collected.extend(iter(agent.poll_event, None))
        sent += [(now, transmit) for transmit in drain(agent)]
    raise AssertionError("always due")


def converse(agent: IceAgent, working: set[Pair], now: float, *, until: float) -> float:
    """Lets time pass while the peer answers on some pairs, after 10 ms."""
    count_checks(agent, working, now, until=until)
    return until


def count_checks(agent: IceAgent, working: set[Pair], now: float, *, until: float) -> int:
    total = 0
    while (at := agent.poll_timeout()) is not None and at <= until:
        now = max(now, at)
        agent.handle_timeout(now)
        collected.extend(iter(agent.poll_event, None))
        for transmit in drain(agent):
            total += transmit.pair in working
            if transmit.pair in working and is_request(transmit):
                agent.handle_stun(transmit.pair, success(stun.decode(transmit.payload)), now + 0.01)
                now += 0.01
    return total


def is_request(transmit: PairTransmit) -> bool:
    return stun.decode(transmit.payload).message_class is MessageClass.REQUEST


def decoded_on(sent: list[PairTransmit], pair: Pair) -> Message:
    return next(stun.decode(transmit.payload) for transmit in sent if transmit.pair == pair)


def request_on(agent: IceAgent, pair: Pair) -> Message:
    return decoded_on([transmit for transmit in drain(agent) if is_request(transmit)], pair)


def success(
    request: Message,
    *,
    key: str = THEIRS[1],
    mapped: SocketAddr | None = HOST,
    transaction_id: bytes | None = None,
) -> Message:
    builder = Builder(Method.BINDING, MessageClass.SUCCESS, transaction_id or request.transaction_id)
    if mapped:
        builder.mapped_address(mapped)
    return stun.decode(builder.build(stun.short_term_key(key), fingerprint=True))


def answer(agent: IceAgent, pair: Pair, sent: list[PairTransmit], now: float) -> None:
    assert agent.handle_stun(pair, success(decoded_on(sent, pair)), now)


def check_of_peer(*, nominate: bool = False) -> Message:
    builder = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).username("ours:peer").priority(1)
    if nominate:
        builder.use_candidate()
    return stun.decode(builder.build(stun.short_term_key(OURS[1]), fingerprint=True))


def attribute_types(raw: bytes) -> list[int]:
    types, at = [], stun.HEADER_SIZE
    while at < len(raw):
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        types.append(int.from_bytes(raw[at : at + 2], "big"))
        at += 4 + length + -length % 4
    return types


def readable(payload: bytes) -> Message:
    """The message; an empty one if it is none."""
    try:
        return stun.decode(payload)
    except RemoteProtocolError:
        return Message(0, MessageClass.INDICATION, bytes(12))


def answers_in(captured: list[tuple[SocketAddr, bytes]]) -> list[tuple[SocketAddr, Message]]:
    """What the client answered to checks that reached it directly."""
    decoded = [(source, readable(payload)) for source, payload in captured]
    return [
        (source, message)
        for source, message in decoded
        if message.message_class is MessageClass.SUCCESS and message.has_fingerprint and source.host == "203.0.113.21"
    ]
