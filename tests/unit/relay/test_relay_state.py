"""A relay as a whole, without sockets."""

from tests.unit.proto.turn_client import Counting
from wardgate.proto.turn_auth import StaticUsers
from wardgate.proto.turn_config import TurnConfig
from wardgate.relay import metrics
from wardgate.relay.state import RelaySnapshot, RelayState
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal_secrets import relay_id
from wardgate.wire.stun import Builder, MessageClass, Method

CLIENT = SocketAddr("198.51.100.7", 40000)


def test_it_joins_with_a_secret_from_which_its_id_follows() -> None:
    state = RelayState(TurnConfig("203.0.113.3"), 0.0, Counting())

    payload = state.join_payload()

    assert isinstance(payload, dict)
    secret = payload["stamp_secret"]
    assert isinstance(secret, str)
    assert len(secret) == 64
    assert state.relay_id == relay_id(secret)


def test_readiness_follows_the_portal_and_relaying_does_not() -> None:
    state = RelayState(TurnConfig("203.0.113.3"), 0.0, Counting())
    request = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).build()
    joined = []
    for change in (None, state.handle_portal_up, lambda: state.handle_portal_down("a storm")):
        if change is not None:
            change()
        joined.append(state.snapshot().joined)
        state.handle_upcall(3478, CLIENT, request, 0.0)
        assert state.poll_transmit() is not None

    assert joined == [False, True, False]
    assert state.snapshot().counters == {"responses_success_binding": 3}


def test_peer_datagrams_without_a_channel_are_counted() -> None:
    state = RelayState(TurnConfig("203.0.113.3"), 0.0, Counting())

    state.handle_upcall(50000, CLIENT, b"x", 0.0)

    assert state.snapshot().counters == {"dropped_peer": 1}


def test_metrics_name_every_response() -> None:
    counters = {"responses_success_channel_bind": 2, "responses_error_allocate_401": 3, "dropped_unknown": 4}

    snapshot = RelaySnapshot(True, 5, 6, 9, False, counters)
    text = metrics.render(snapshot, {"send_calls": 7}, {"streams_opened": 2}, {"lines_lost": 8}).decode()

    success = 'error_code="",message_type="channelbind",response_class="success"'
    assert f"wardgate_relay_responses_total{{{success}}} 2.0" in text
    error = 'error_code="401",message_type="allocate",response_class="error"'
    assert f"wardgate_relay_responses_total{{{error}}} 3.0" in text
    assert 'wardgate_relay_events_total{event="dropped_unknown"} 4.0' in text
    assert 'wardgate_relay_forwarder_total{event="send_calls"} 7.0' in text
    assert "wardgate_relay_allocations 5.0" in text
    assert "wardgate_relay_channels 6.0" in text
    assert "wardgate_relay_permissions 9.0" in text
    assert "wardgate_relay_draining 0.0" in text
    assert 'wardgate_relay_streams_total{event="streams_opened"} 2.0' in text


def test_it_says_why_it_is_not_ready() -> None:
    state = RelayState(TurnConfig("203.0.113.3"), 0.0, Counting())

    problems = [state.problem()]
    state.handle_portal_up()
    problems.append(state.problem())
    state.handle_portal_down("a storm")
    problems.append(state.problem())
    state.handle_portal_up()
    state.drain()
    problems.append(state.problem())

    assert problems == [
        "the portal has not confirmed the join yet",
        None,
        "the portal is away: a storm",
        "it ends, 0 allocations are still served",
    ]


def test_a_relay_by_itself_is_ready_and_lets_no_device_in() -> None:
    state = RelayState(TurnConfig("203.0.113.3"), 0.0, Counting(), (StaticUsers({"a": "b"}),), is_alone=True)

    assert state.problem() is None
