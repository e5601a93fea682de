"""Frames and messages of the portal protocol: what a receiver takes, forgives and refuses."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Filter, Frame, Json, Unknown

SITE: Json = {"id": "91c00000-0000-4000-8000-000000000001", "name": "Vienna"}
ID = "4b1e0000-0000-4000-8000-000000000001"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ICE: dict[str, Json] = {"username": "ngxk", "password": "dpvlp7as5fit3dptmd2wc3"}
FLOW_LOGS: Json = {"api_url": "https://flow.example/", "upload_interval_secs": 60, "upload_batch_size": 1000}
INTERFACE: Json = {"ipv4": "100.64.3.9", "ipv6": "fd00:2021:1111::7:21"}
CIDR: dict[str, Json] = {"id": ID, "type": "cidr", "name": "Lab", "address": "10.9.0.0/16", "sites": [SITE]}
RELAY: dict[str, Json] = {
    "id": "6e89c06a-6c1d-4475-a752-26a2c1af55c1",
    "type": "turn",
    "addr": "[2001:db8::4]:3478",
    "username": "1789000000:salt",
    "password": "secret",
    "expires_at": 1789000000,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=6),
    max_leaves=20,
)


def client_init(**fields: Any) -> portal.ClientInit:
    payload = {"interface": INTERFACE, "flow_logs": FLOW_LOGS, **fields}
    message = portal.decode_to_client("init", payload)
    assert isinstance(message, portal.ClientInit)
    return message


def test_join_payload_may_be_null_and_the_reference_is_an_integer() -> None:
    text = portal.encode_frame(portal.join("client", 0))

    assert text == '{"topic":"client","event":"phx_join","payload":null,"ref":0}'
    assert portal.decode_frame(text, complete=True) == Frame("client", "phx_join", None, 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        '{"topic":"client","event":"init","payload":{},"ref":"0"}',
        '{"topic":"client","event":"init","payload":{},"ref":true}',
        '{"topic":"client","event":"init","payload":{},"ref":1.0}',
        '{"topic":"client","event":"init","payload":{},"ref":-1}',
        '{"topic":"client","event":"init","payload":NaN,"ref":1}',
        '{"topic":1,"event":"init","payload":{},"ref":1}',
        '{"topic":"client","event":"init","payload":{}}',
        "[" * 100_000,
        "9" * 5000,
        b"{}",
    ],
)
def test_what_is_not_a_whole_frame_is_refused(text: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        portal.decode_frame(text, complete=True)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"status": "ok", "response": {}}, portal.Reply(3)),
        ({"status": "ok", "response": None}, portal.Reply(3, confirms=False)),
        ({"status": "error", "response": {"reason": "disabled"}}, portal.Reply(3, error="disabled", confirms=False)),
    ],
)
def test_replies_are_read_as_real_components_read_them(payload: Json, expected: portal.Reply) -> None:
    assert portal.decode_control(Frame("client", "phx_reply", payload, 3)) == expected


@pytest.mark.parametrize("payload", [{"status": "ok", "response": {"x": 1}}, {"status": "error"}, {}, None, "ok", 1])
def test_a_reply_of_another_shape_is_refused(payload: Json) -> None:
    with pytest.raises(RemoteProtocolError):
        portal.decode_control(Frame("client", "phx_reply", payload, 3))


def test_malformed_and_unknown_resources_are_left_out_and_the_rest_of_init_survives() -> None:
    bad: list[Json] = [
        {**CIDR, "id": "no-uuid"},
        {**CIDR, "address": "10.83.0.5"},
        {**CIDR, "address": "10.82.0.5/24"},
        {**CIDR, "address": "10.0.0.0/255.0.0.0"},
        {**CIDR, "sites": []},
        {**CIDR, "gateway_groups": [SITE]},
        {**CIDR, "filters": [{"protocol": "sctp"}]},
        {**CIDR, "type": "quantum"},
        {"id": ID, "type": "dns", "name": "n", "address": "a.example", "sites": [SITE], "ip_stack": "ipv5"},
        None,
        7,
    ]

    init = client_init(resources=[*bad, CIDR])

    assert [one.id for one in init.resources] == [ID]
    assert init.skipped == len(bad)


def test_either_name_for_sites_is_read() -> None:
    old = {key: value for key, value in CIDR.items() if key != "sites"} | {"gateway_groups": [SITE]}

    assert client_init(resources=[old]).resources == client_init(resources=[CIDR]).resources


def test_old_clients_are_sent_the_old_name_for_sites() -> None:
    init = client_init(resources=[CIDR])
    payload = init.payload(old_client=True)

    assert isinstance(payload, dict)
    resources = payload["resources"]
    assert isinstance(resources, list)
    resource = resources[0]
    assert isinstance(resource, dict)
    assert resource["gateway_groups"] == [SITE]
    assert "sites" not in resource


def test_a_reversed_port_range_matches_nothing_and_does_not_open_the_resource() -> None:
    reverse = {"protocol": "tcp", "port_range_start": 90, "port_range_end": 80}

    [resource] = client_init(resources=[{**CIDR, "filters": [reverse]}]).resources

    assert isinstance(resource, portal.CidrResource)
    assert not any(portal.is_allowed(resource.filters, "tcp", port) for port in (80, 85, 90))


@pytest.mark.parametrize(
    ("filters", "protocol", "port", "allowed"),
    [
        ((), "tcp", 1, True),
        ((Filter(protocol="tcp", port_range_start=80, port_range_end=80),), "tcp", 80, True),
        ((Filter(protocol="tcp", port_range_start=80, port_range_end=80),), "tcp", 81, False),
        ((Filter(protocol="tcp", port_range_start=80, port_range_end=80),), "udp", 80, False),
        ((Filter(protocol="icmp"),), "icmp", 0, True),
        ((Filter(protocol="udp"),), "icmp", 0, False),
        ((Filter(protocol="udp"),), "udp", 65535, True),
    ],
)
def test_filters_allow_what_they_name(filters: tuple[Filter, ...], protocol: str, port: int, allowed: bool) -> None:
    assert portal.is_allowed(filters, protocol, port) is allowed


def test_stun_and_malformed_relays_are_left_out() -> None:
    stun = {"id": RELAY["id"], "type": "stun", "addr": "198.51.100.4:3478"}

    init = client_init(relays=[stun, {**RELAY, "addr": "198.51.100.4"}, RELAY])

    assert [str(one.addr) for one in init.relays] == ["[2001:db8::4]:3478"]
    assert init.skipped == 2


def test_v2_needs_the_flow_log_settings_and_v1_does_not() -> None:
    payload: Json = {"interface": INTERFACE}

    with pytest.raises(RemoteProtocolError, match="flow_logs"):
        portal.decode_to_client("init", payload, ApiVersion.V2)
    assert isinstance(portal.decode_to_client("init", payload, ApiVersion.V1), portal.ClientInit)


def test_the_payload_of_resource_deleted_is_a_bare_id() -> None:
    frame = portal.push("client", portal.ResourceDeleted(resource_id=portal_resource_id()))

    assert frame.payload == ID
    assert portal.decode_to_client(frame.event, frame.payload) == portal.ResourceDeleted(
        resource_id=portal_resource_id()
    )


def test_the_ask_of_the_other_version_is_unknown() -> None:
    payload: Json = {"resource_id": ID, "connected_gateway_ids": []}

    assert portal.decode_from_client("create_flow", payload, ApiVersion.V2) == Unknown(event="create_flow")
    assert isinstance(portal.decode_from_client("create_flow", payload, ApiVersion.V1), portal.RequestAuthorization)
    assert portal.decode_from_client("request_authorization", payload, ApiVersion.V1) == Unknown(
        event="request_authorization"
    )


@pytest.mark.parametrize("event", ["ice_candidates", "gateway_ice_candidates"])
def test_candidates_that_are_none_are_left_out(event: str) -> None:
    good = "candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b"
    bad: list[Json] = [
        "garbage",
        "candidate:1 1 udp x 10.5.0.2 1 typ host",
        7,
        good.replace("2130706175", "4294967296"),
    ]

    message = portal.decode_to_client(event, {"gateway_id": ID, "candidates": [*bad, good]})

    assert isinstance(message, portal.GatewayIceCandidates)
    assert message.candidates == (good,)


def test_a_resource_of_an_unknown_type_is_ignored_in_an_update() -> None:
    assert portal.decode_to_client("resource_created_or_updated", {"type": "quantum"}) == Unknown(
        event="resource_created_or_updated"
    )


def test_secrets_do_not_show_in_a_representation() -> None:
    message = portal.decode_to_client(
        "authorization_created",
        {
            "resource_id": ID,
            "gateway_id": ID,
            "gateway_public_key": KEY,
            "gateway_ipv4": "100.64.0.2",
            "gateway_ipv6": "fd00:2021:1111::2",
            "gateway_group_id": ID,
            "preshared_key": KEY,
            "client_ice_credentials": ICE,
            "gateway_ice_credentials": ICE,
            "flow_logs_ingest_token": "a.b.c",
        },
    )

    assert isinstance(message, portal.AuthorizationCreated)
    assert message.site_id == ID
    assert str(ICE["password"]) not in repr(message)
    assert "preshared_key" not in repr(message)


@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_a_frame_or_a_protocol_error(text: str | bytes) -> None:
    try:
        frame = portal.decode_frame(text)
    except RemoteProtocolError:
        return
    assert portal.decode_frame(portal.encode_frame(frame)) == frame


KNOWN_EVENTS = sorted(
    {
        name
        for kind in (*portal.ToClient.__args__, *portal.ToGateway.__args__, *portal.FromClient.__args__)
        if kind is not Unknown
        for name in kind.event_names(ApiVersion.V2)
    }
    | {"broadcast_ice_candidates", "phx_reply", "phx_close"}
)
FIELD_NAMES = ["interface", "resources", "relays", "ref", "resource", "client", "candidates", "gateway_id", "client_id"]
shaped = st.dictionaries(st.sampled_from(FIELD_NAMES), json_values, max_size=5)


@given(st.sampled_from(KNOWN_EVENTS), st.one_of(json_values, shaped))
def test_any_payload_is_a_message_or_a_protocol_error(event: str, payload: Json) -> None:
    for version in ApiVersion:
        for decode in (
            portal.decode_to_client,
            portal.decode_from_client,
            portal.decode_to_gateway,
            portal.decode_from_gateway,
        ):
            try:
                decode(event, payload, version)
            except RemoteProtocolError:
                continue
    for total in (portal.decode_to_relay, lambda _, data: portal.decode_relay_join(data)):
        try:
            total(event, payload)
        except RemoteProtocolError:
            continue
    try:
        portal.decode_control(Frame("client", event, payload, 1))
    except RemoteProtocolError:
        return


def portal_resource_id() -> Any:
    return ID
