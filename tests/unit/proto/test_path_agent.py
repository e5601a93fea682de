"""The path agent alone: fan-out, duplicates, promotion, distress."""

import itertools
from collections.abc import Iterable

from wardgate.proto.agent import Nominated, Pair, PairTransmit
from wardgate.proto.path_agent import (
    ANSWER_CACHE_S,
    KEEPALIVE_S,
    LADDER_GAPS_S,
    MAX_REMOTES,
    PROBE_BUDGET,
    PathAgent,
)
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.candidates import Candidate, Kind
from wardgate.wire.probes import Probe, decode_probe, encode_probe

HOST = SocketAddr("192.168.1.2", 52625)
SRFLX = SocketAddr("203.0.113.21", 52625)
RELAY = SocketAddr("203.0.113.3", 50963)
PEER_HOST = SocketAddr("10.5.0.2", 52625)
PEER_SRFLX = SocketAddr("203.0.113.31", 52625)
PEER_RELAY = SocketAddr("203.0.113.3", 52577)
DIRECT = Pair(HOST, PEER_SRFLX)
RELAYED = Pair(RELAY, PEER_RELAY)
INIT, RESPONSE = b"\x01" * 148, b"\x02" * 92
RELAY_PAIRS = {
    Pair(HOST, PEER_RELAY),
    Pair(RELAY, PEER_HOST),
    Pair(RELAY, PEER_SRFLX),
    Pair(RELAY, PEER_RELAY),
}


def test_initiation_fans_out_to_every_relay_pair() -> None:
    agent = agent_with_candidates()

    agent.send_initiation(INIT, 0.0)

    sent = drain(agent)
    assert {transmit.pair for transmit in sent} == RELAY_PAIRS
    assert {(transmit.payload, transmit.inner) for transmit in sent} == {(INIT, False)}


def test_ladder_repeats_the_identical_bytes_and_runs_once() -> None:
    agent = agent_with_candidates()
    agent.send_initiation(INIT, 0.0)
    drain(agent)

    sent = run(agent, 0.0, until=60.0)

    copies = [at for at, transmit in sent if transmit.pair == RELAYED]
    assert [round(at, 3) for at in copies[:5]] == [0.005, 0.01, 0.02, 0.03, 0.05]
    assert len(copies) == len(LADDER_GAPS_S)
    assert {transmit.payload for _, transmit in sent} == {INIT}


def test_new_initiation_is_fanned_out_once_without_a_ladder() -> None:
    agent = agent_with_candidates()
    agent.send_initiation(INIT, 0.0)
    run(agent, 0.0, until=10.0)

    agent.send_initiation(b"\x01" + b"x" * 147, 10.0)

    assert len(drain(agent)) == len(RELAY_PAIRS)
    assert run(agent, 10.0, until=60.0) == []


def test_relay_pair_that_appears_later_gets_the_initiation_at_once() -> None:
    agent = PathAgent()
    agent.add_local(Candidate.host(HOST), 0.0)
    agent.send_initiation(INIT, 0.0)
    assert drain(agent) == []

    agent.add_remote(Candidate(Kind.RELAY, PEER_RELAY, PEER_HOST), 1.0)

    assert drain(agent) == [PairTransmit(Pair(HOST, PEER_RELAY), INIT, False)]


def test_response_stops_the_fan_out_and_seeds_the_primary() -> None:
    agent = agent_with_candidates()
    agent.send_initiation(INIT, 0.0)

    agent.handle_answered(RELAYED, 0.02)

    assert agent.primary == RELAYED
    assert agent.poll_event() == Nominated(RELAYED)
    later = run(agent, 0.02, until=5.0)
    assert later
    assert all(transmit.inner for _, transmit in later if transmit.payload != INIT)
    assert [at for at, transmit in later if transmit.payload == INIT and at > 0.02] == []


def test_answer_goes_back_on_the_path_the_initiation_came_by() -> None:
    agent = agent_with_candidates()

    agent.send_answer(RELAYED, INIT, RESPONSE, 1.0, data_received_at=0.0)

    assert drain(agent)[0] == PairTransmit(RELAYED, RESPONSE, False)
    assert agent.poll_event() == Nominated(RELAYED)


def test_duplicate_initiation_is_answered_from_the_cache_for_ten_seconds() -> None:
    agent = agent_with_candidates()
    agent.send_answer(RELAYED, INIT, RESPONSE, 1.0, data_received_at=0.0)
    drain(agent)

    assert agent.handle_duplicate(Pair(HOST, PEER_RELAY), INIT, 1.0 + ANSWER_CACHE_S - 0.01)
    assert drain(agent) == [PairTransmit(Pair(HOST, PEER_RELAY), RESPONSE, False)]
    assert not agent.handle_duplicate(RELAYED, INIT, 1.0 + ANSWER_CACHE_S)
    assert not agent.handle_duplicate(RELAYED, INIT[:-1] + b"x", 1.5)
    assert drain(agent) == []


def test_initiation_from_nowhere_registers_a_peer_reflexive_candidate() -> None:
    agent = agent_with_candidates()
    pair = Pair(RELAY, SocketAddr("198.51.100.9", 7000))

    agent.send_answer(pair, INIT, RESPONSE, 1.0, data_received_at=0.0)
    agent.handle_timeout(1.0)

    assert probes_by_pair(drain(agent))[pair]


def test_better_tier_is_promoted_by_a_reply_and_a_worse_one_never_demotes() -> None:
    agent = established(RELAYED)
    sent = probes_by_pair(drain(agent))

    reply(agent, DIRECT, sent[DIRECT], 0.1)
    assert agent.poll_event() == Nominated(DIRECT)
    reply(agent, RELAYED, sent[RELAYED], 0.1)

    assert agent.poll_event() is None
    assert agent.primary == DIRECT


def test_own_relay_is_preferred_to_the_peers() -> None:
    agent = established(Pair(HOST, PEER_RELAY))
    agent.add_remote(Candidate(Kind.HOST, SocketAddr("198.51.100.77", 1), SocketAddr("198.51.100.77", 1)), 0.0)
    local_relay = Pair(RELAY, PEER_HOST)
    sent = probes_by_pair([*drain(agent), *(transmit for _, transmit in run(agent, 0.0, until=0.5))])

    reply(agent, Pair(HOST, PEER_RELAY), sent[Pair(HOST, PEER_RELAY)], 0.5)
    reply(agent, local_relay, sent[local_relay], 0.5)

    assert agent.primary == local_relay


def test_within_a_bucket_only_a_clearly_shorter_round_trip_promotes() -> None:
    first, second = SocketAddr("203.0.113.31", 1), SocketAddr("203.0.113.31", 2)
    agent = PathAgent()
    agent.add_local(Candidate.host(HOST), 0.0)
    for address in (first, second):
        agent.add_remote(Candidate(Kind.SRFLX, address, PEER_HOST), 0.0)
    agent.handle_answered(Pair(HOST, first), 0.0)
    agent.handle_timeout(0.0)
    sent = probes_by_pair(drain(agent))

    reply(agent, Pair(HOST, first), sent[Pair(HOST, first)], 0.100)
    reply(agent, Pair(HOST, second), sent[Pair(HOST, second)], 0.085)
    assert agent.primary == Pair(HOST, first)
    second_round = probes_by_pair(t for at, t in run(agent, 0.1, until=1.0) if at > 0.1)
    assert second_round
    agent.handle_probe(Pair(HOST, second), encoded_reply(second_round[Pair(HOST, second)]), 1.0)
    assert agent.primary == Pair(HOST, first)


def test_pairs_go_quiet_after_their_budget_and_the_primary_keeps_alive() -> None:
    agent = established(RELAYED)
    sent = [(0.0, transmit) for transmit in drain(agent)]

    at, answered = 0.0, 0
    while at < 100.0:
        agent.handle_timeout(at)
        for transmit in drain(agent):
            sent.append((at, transmit))
            if transmit.pair == RELAYED:
                agent.handle_probe(RELAYED, encoded_reply(transmit.payload), at)
                answered += 1
        at = max(at + 0.001, agent.poll_timeout() or 1000.0)

    assert len([1 for _, transmit in sent if transmit.pair == DIRECT]) == PROBE_BUDGET
    late = [at for at, transmit in sent if at > 20.0]
    assert {transmit.pair for at, transmit in sent if at > 20.0} == {RELAYED}
    assert all(abs(b - a - KEEPALIVE_S) < 0.1 for a, b in itertools.pairwise(late))


def test_without_a_primary_every_pair_is_probed_for_ever() -> None:
    agent = established(RELAYED)
    agent.handle_distress(0.0)

    sent = run(agent, 0.0, until=120.0)

    assert {transmit.pair for at, transmit in sent if at > 118.0} == RELAY_PAIRS | {DIRECT, Pair(HOST, PEER_HOST)}


def test_outstanding_probes_are_bounded_and_old_numbers_are_ignored() -> None:
    agent = established(RELAYED)
    first = probes_by_pair(drain(agent))[DIRECT]
    keep_up(agent, until=30.0)

    reply(agent, DIRECT, first, 30.0)

    assert agent.primary == RELAYED
    assert agent.counts["stale probe replies"] == 1


def test_reply_counts_only_on_its_pair_with_its_current_number() -> None:
    agent = established(RELAYED)
    sent = probes_by_pair(drain(agent))

    agent.handle_probe(DIRECT, encoded_reply(sent[RELAYED]), 0.1)
    agent.add_local(Candidate(Kind.SRFLX, SRFLX, HOST), 0.1)
    agent.handle_probe(DIRECT, encoded_reply(sent[DIRECT]), 0.2)

    assert agent.primary == RELAYED
    assert agent.counts["stale probe replies"] == 2


def test_request_is_answered_on_its_pair_and_wakes_a_quiet_one() -> None:
    agent = established(RELAYED)
    keep_up(agent, until=30.0)
    request = encode_probe(Probe(False, 99, 5))

    assert agent.handle_probe(DIRECT, request, 40.0)
    agent.handle_timeout(40.0)

    answer, own = drain(agent)[:2]
    assert answer == PairTransmit(DIRECT, encode_probe(Probe(True, 99, 5)), True, is_answer=True)
    assert own.pair == DIRECT


def test_other_packets_and_damaged_probes_change_nothing() -> None:
    agent = established(RELAYED)
    drain(agent)
    damaged = encode_probe(Probe(False, 9, 9))[:-1] + b"\xff"

    assert not agent.handle_probe(DIRECT, bytes(48), 0.1)
    assert not agent.handle_probe(DIRECT, damaged, 0.1)
    assert drain(agent) == []


def test_one_unanswered_rekey_is_ordinary_and_two_clear_the_primary() -> None:
    agent = established(RELAYED)

    agent.handle_unanswered(1.0)
    assert agent.primary == RELAYED
    agent.handle_unanswered(3.0)

    assert agent.primary is None


def test_an_answer_between_resets_the_count() -> None:
    agent = established(RELAYED)

    agent.handle_unanswered(1.0)
    agent.handle_answered(RELAYED, 2.0)
    agent.handle_unanswered(3.0)

    assert agent.primary == RELAYED


def test_rekey_never_moves_the_primary() -> None:
    agent = established(RELAYED)

    agent.handle_answered(DIRECT, 120.0)
    agent.send_answer(DIRECT, INIT, RESPONSE, 121.0, data_received_at=0.0)

    assert agent.primary == RELAYED


def test_initiation_by_another_path_has_the_primary_checked() -> None:
    agent = established(RELAYED)
    keep_up(agent, until=30.0)

    agent.send_answer(DIRECT, INIT, RESPONSE, 30.0, data_received_at=0.0)
    answered, checked = drain(agent)
    assert (answered.pair, checked.pair) == (DIRECT, RELAYED)
    run(agent, 30.0, until=30.6)

    assert agent.primary is None


def test_primary_that_answers_its_check_stays() -> None:
    agent = established(RELAYED)
    keep_up(agent, until=30.0)

    agent.check_primary(30.0)
    reply(agent, RELAYED, probes_by_pair(drain(agent))[RELAYED], 30.1)
    run(agent, 30.1, until=32.0)

    assert agent.primary == RELAYED


def test_keepalive_of_the_primary_that_stays_unanswered_clears_it() -> None:
    agent = established(RELAYED)
    keep_up(agent, until=30.0)

    run(agent, 30.0, until=30.0 + KEEPALIVE_S + 1.0)

    assert agent.primary is None


def test_two_initiations_without_data_between_clear_the_primary() -> None:
    agent = agent_with_candidates()
    agent.send_answer(RELAYED, INIT, RESPONSE, 1.0, data_received_at=0.0)

    agent.send_answer(RELAYED, INIT[:-1] + b"x", RESPONSE, 3.0, data_received_at=0.0)

    assert agent.primary is None


def test_data_between_two_initiations_keeps_the_primary() -> None:
    agent = agent_with_candidates()
    agent.send_answer(RELAYED, INIT, RESPONSE, 1.0, data_received_at=0.0)

    agent.send_answer(RELAYED, INIT[:-1] + b"x", RESPONSE, 121.0, data_received_at=100.0)

    assert agent.primary == RELAYED


def test_new_candidate_starts_the_probing_again() -> None:
    agent = established(RELAYED)
    run(agent, 0.0, until=30.0)

    agent.add_remote(Candidate(Kind.SRFLX, SocketAddr("203.0.113.31", 9), PEER_HOST), 30.0)
    agent.handle_timeout(30.0)

    assert len(probes_by_pair(drain(agent))) == len(RELAY_PAIRS) + 4


def test_roam_recovers_by_probes_alone() -> None:
    agent = established(RELAYED)
    drain(agent)
    moved = SocketAddr("192.168.9.9", 52625)

    agent.reset(10.0)
    assert agent.primary is None
    agent.add_local(Candidate.host(moved), 11.0)
    agent.handle_timeout(11.0)
    sent = drain(agent)
    assert all(transmit.inner for transmit in sent)
    reply(agent, Pair(moved, PEER_SRFLX), probes_by_pair(sent)[Pair(moved, PEER_SRFLX)], 11.05)

    assert agent.poll_event() == Nominated(Pair(moved, PEER_SRFLX))


def test_losing_a_relay_fails_over_at_once_and_back() -> None:
    agent = established(RELAYED)
    agent.add_remote(Candidate(Kind.RELAY, SocketAddr("203.0.113.99", 7), PEER_HOST), 0.0)
    sent = probes_by_pair([*drain(agent), *(transmit for _, transmit in run(agent, 0.0, until=0.2))])
    other = Pair(HOST, PEER_RELAY)
    reply(agent, RELAYED, sent[RELAYED], 0.2)
    reply(agent, other, sent[other], 0.2)
    assert agent.primary == other
    while agent.poll_event():
        pass

    agent.remove_remote(PEER_RELAY, 1.0)
    assert agent.primary is None
    agent.add_remote(Candidate(Kind.RELAY, PEER_RELAY, PEER_HOST), 2.0)
    agent.handle_timeout(2.0)
    again = probes_by_pair(drain(agent))
    reply(agent, other, again[other], 2.05)

    assert agent.poll_event() == Nominated(other)


def test_signalled_candidate_replaces_a_peer_reflexive_one_in_place() -> None:
    agent = PathAgent()
    agent.add_local(Candidate.host(HOST), 0.0)
    agent.send_answer(Pair(HOST, PEER_HOST), INIT, RESPONSE, 0.0, data_received_at=0.0)
    agent.handle_timeout(0.0)
    sent = probes_by_pair(drain(agent))

    agent.add_remote(Candidate.host(PEER_HOST), 0.1)
    reply(agent, Pair(HOST, PEER_HOST), sent[Pair(HOST, PEER_HOST)], 0.2)

    assert agent.primary == Pair(HOST, PEER_HOST)
    assert agent.rtt_s() == 0.2


def test_confirmed_session_probes_again_at_once() -> None:
    agent = agent_with_candidates()
    agent.send_answer(RELAYED, INIT, RESPONSE, 0.0, data_received_at=0.0)
    agent.handle_timeout(0.0)
    drain(agent)

    agent.handle_confirmed(0.03)
    agent.handle_timeout(0.03)

    assert DIRECT in probes_by_pair(drain(agent))


def test_families_are_never_mixed() -> None:
    agent = agent_with_candidates()
    agent.add_local(Candidate.host(SocketAddr("2001:db8::2", 52625)), 0.0)
    agent.send_initiation(INIT, 0.0)

    assert {transmit.pair for transmit in drain(agent)} == RELAY_PAIRS


def test_remote_candidates_are_bounded_by_kind() -> None:
    agent = PathAgent()
    agent.add_local(Candidate.host(HOST), 0.0)
    for port in range(1, 20):
        agent.add_remote(Candidate(Kind.SRFLX, SocketAddr("203.0.113.31", port), PEER_HOST), 0.0)
    agent.start_probing(0.0)
    agent.handle_timeout(0.0)

    probed = probes_by_pair(drain(agent))
    assert [pair.remote.port for pair in probed] == list(range(20 - MAX_REMOTES[Kind.SRFLX], 20))


def agent_with_candidates() -> PathAgent:
    agent = PathAgent()
    agent.add_local(Candidate.host(HOST), 0.0)
    agent.add_local(Candidate(Kind.RELAY, RELAY, HOST), 0.0)
    agent.add_remote(Candidate.host(PEER_HOST), 0.0)
    agent.add_remote(Candidate(Kind.SRFLX, PEER_SRFLX, PEER_HOST), 0.0)
    agent.add_remote(Candidate(Kind.RELAY, PEER_RELAY, PEER_HOST), 0.0)
    return agent


def established(pair: Pair) -> PathAgent:
    """An agent whose first session came by `pair` at 0.0, its first probes queued."""
    agent = agent_with_candidates()
    agent.handle_answered(pair, 0.0)
    agent.handle_timeout(0.0)
    assert agent.poll_event() == Nominated(pair)
    return agent


def drain(agent: PathAgent) -> list[PairTransmit]:
    return list(iter(agent.poll_transmit, None))


def run(agent: PathAgent, now: float, until: float) -> list[tuple[float, PairTransmit]]:
    """Everything sent until then, with its time."""
    sent = [(now, transmit) for transmit in drain(agent)]
    while agent.poll_event():
        pass
    while (at := agent.poll_timeout()) is not None and at <= until:
        now = max(now, at)
        agent.handle_timeout(now)
        sent += [(now, transmit) for transmit in drain(agent)]
    return sent


def keep_up(agent: PathAgent, *, until: float) -> None:
    """Lets time pass while the peer answers on the relayed pair alone."""
    now = 0.0
    while (at := agent.poll_timeout()) is not None and at <= until:
        now = max(now, at)
        agent.handle_timeout(now)
        for transmit in drain(agent):
            if transmit.pair == RELAYED:
                reply(agent, RELAYED, transmit.payload, now)
        while agent.poll_event():
            pass


def probes_by_pair(sent: Iterable[PairTransmit]) -> dict[Pair, bytes]:
    """The last probe request of each pair."""
    probes = [(transmit, decode_probe(transmit.payload)) for transmit in sent if transmit.inner]
    return {transmit.pair: transmit.payload for transmit, probe in probes if probe and not probe.is_reply}


def encoded_reply(request: bytes) -> bytes:
    decoded = decode_probe(request)
    assert decoded
    return encode_probe(decoded.answer())


def reply(agent: PathAgent, pair: Pair, request: bytes, now: float) -> None:
    agent.handle_probe(pair, encoded_reply(request), now)
