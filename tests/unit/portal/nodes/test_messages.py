"""What crosses the bus: sealed, total, and the same again after its journey."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import RemoteProtocolError
from wardgate.ids import AccountId, ActorId, GatewayId, RelayId, SiteId, TokenId
from wardgate.portal.cluster import messages
from wardgate.portal.cluster.bus import ALL
from wardgate.portal.cluster.directory import gateway_wins, newer_wins
from wardgate.portal.cluster.messages import ClientRecord, DeviceRecord, GatewayRecord, Message, RelayRecord
from wardgate.portal.cluster.sealing import Sealer
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.domain.subjects import Location
from wardgate.wire import portal

PLACE = Location("AT", "Vienna", 48.2, 16.4)
DEVICE = DeviceRecord("d", "laptop", "k" * 44, "100.64.0.1", "fd00::1", "UA", "1.5.0", "192.0.2.1", PLACE)
CLIENT = ClientRecord(5, AccountId("a"), ActorId("p"), TokenId("t"), DEVICE, True, replaces=3)
GATEWAY = GatewayRecord(6, AccountId("a"), SiteId("s"), TokenId("t"), DEVICE, False, True)
RELAY = RelayRecord(7, RelayId("r"), TokenId("t"), "203.0.113.1", None, 3478, Location(), "secret")
EVERY: list[Message] = [
    messages.Beat(1, 2),
    messages.Delta(1, (CLIENT, GATEWAY, RELAY), (4,)),
    messages.Hello(),
    messages.Bye(),
    messages.Wake(),
    messages.Want(),
    messages.Snapshot(3, 0, 2, (RELAY,)),
    messages.Push("client", AccountId("a"), "d", "ice_candidates", {"gateway_id": "g", "candidates": ["x"]}),
    messages.Authorize("gateway", AccountId("a"), "d", "r", "z", 1.5e9, "ref", "create_authorization", {"x": None}),
    messages.Acknowledge("ref", False),
]


@pytest.mark.parametrize("message", EVERY, ids=lambda one: one.kind)
def test_a_message_is_the_same_after_its_journey(message: Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_every_kind_of_message_is_among_those() -> None:
    assert {type(one) for one in EVERY} == set(Message.__args__)


def test_a_relays_secret_is_in_no_log() -> None:
    assert "secret'" not in repr(RELAY)
    assert "payload" not in repr(EVERY[7])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_an_error(data: bytes) -> None:
    try:
        messages.decode(data)
    except RemoteProtocolError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b'{"kind":"newer"}',
        b'{"kind":"beat","position":-1,"count":0}',
        b'{"kind":"beat","position":1e99,"count":0}',
        b'{"kind":"delta","position":1,"gone":[' + b"1," * 400 + b"1]}",
        b'{"kind":"push","topic":"relay","account_id":"a","device_id":"d","event":"e","payload":{}}',
        b'{"kind":"authorize","topic":"client","account_id":"a","device_id":"d","resource_id":"r","authorization_id":"z",'
        b'"expires_at":1e300,"ref":null,"event":"e","payload":{}}',
        b'{"kind":"push","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.decode(data)


CANDIDATES = ("candidate:1 1 udp 2130706175 10.5.0.2 52625 typ host ufrag bm7b",)
ID = "8d5b1f0e-2a6c-4b7e-9f21-0c3d4e5f6a71"
KEY = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
ICE = {"username": "ngxk", "password": "dpvlp7as5fit3dptmd2wc3"}
SUBJECT = {"actor_id": ID, "actor_name": "Mia", "actor_type": "account_user", "ip": "192.0.2.1", "user_agent": "UA"}
TO_GATEWAYS: list[portal.Message] = [
    portal.ClientIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES}),
    portal.InvalidateClientIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES}),
    portal.CreateAuthorization.model_validate(
        {
            "ref": "r" * 24,
            "resource": {
                "type": "dns",
                "id": ID,
                "name": "App",
                "address": "*.corp.example",
                "filters": [{"protocol": "tcp", "port_range_start": 80, "port_range_end": 90}, {"protocol": "icmp"}],
            },
            "client": {
                "id": ID,
                "public_key": KEY,
                "preshared_key": KEY,
                "ipv4": "100.64.0.1",
                "ipv6": "fd00:2021:1111::1",
                "version": "1.5.11",
                "device_os_name": "Debian",
            },
            "gateway_ice_credentials": ICE,
            "client_ice_credentials": ICE,
            "expires_at": 1_800_000_000,
            "use_iceless": True,
            "subject": SUBJECT,
            "flow_logs_ingest_token": "a.b.c",
        }
    ),
]
TO_CLIENTS: list[portal.Message] = [
    portal.GatewayIceCandidates.model_validate({"gateway_id": ID, "candidates": CANDIDATES}),
    portal.InvalidateGatewayIceCandidates.model_validate({"gateway_id": ID, "candidates": CANDIDATES}),
    portal.PeerIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES}),
    portal.InvalidatePeerIceCandidates.model_validate({"client_id": ID, "candidates": CANDIDATES}),
    portal.ClientDeviceAccessDenied.model_validate({"ipv4": "100.64.0.1", "reason": "forbidden"}),
    portal.ClientDeviceAccessAuthorized.model_validate(
        {
            "client_id": ID,
            "client_name": "printer",
            "client_public_key": KEY,
            "client_ipv4": "100.64.0.1",
            "client_ipv6": "fd00:2021:1111::1",
            "preshared_key": KEY,
            "local_ice_credentials": ICE,
            "remote_ice_credentials": ICE,
            "ice_role": "controlled",
            "use_iceless": True,
            "flow_logs_ingest_token": "a.b.c",
            "resource": {"type": "static_device_pool", "id": ID, "name": "Pool", "devices": [], "filters": []},
            "subject": SUBJECT,
            "expires_at": 1_800_000_000,
        }
    ),
]


@pytest.mark.parametrize("version", portal.ApiVersion)
@pytest.mark.parametrize("message", TO_GATEWAYS + TO_CLIENTS, ids=lambda one: type(one).__name__)
def test_a_device_gets_the_same_bytes_whichever_portal_it_is_connected_to(
    message: portal.Message, version: portal.ApiVersion
) -> None:
    event, payload = messages.frame_of(message)
    carried = messages.decode(messages.encode(messages.Push("client", AccountId("a"), "d", event, payload)))
    assert isinstance(carried, messages.Push)
    decode = portal.decode_to_gateway if message in TO_GATEWAYS else portal.decode_to_client

    arrived = decode(carried.event, carried.payload)

    assert isinstance(arrived, portal.Message)
    assert portal.push("client", arrived, version) == portal.push("client", message, version)


# --- sealing ----------------------------------------------------------------------------------------------------------


def sealer(node_id: str, secret: bytes = b"k" * 32) -> Sealer:
    return Sealer(node_id, Keyring(secret).derive)


def test_a_sealed_message_opens_once_for_whom_it_is_meant() -> None:
    one, other = sealer("one"), sealer("other")
    sealed = one.seal("other", b"hello")

    assert b"hello" not in sealed
    assert other.open("other", sealed) == ("one", b"hello")
    with pytest.raises(RemoteProtocolError, match="came before"):
        other.open("other", sealed)
    with pytest.raises(RemoteProtocolError, match="another key"):
        sealer("third").open("third", sealed)


def test_messages_to_one_and_to_all_may_overtake_each_other_but_not_their_own_kind() -> None:
    one, other = sealer("one"), sealer("other")
    first, second, third = one.seal(ALL, b"1"), one.seal("other", b"2"), one.seal(ALL, b"3")

    assert other.open("other", second)[1] == b"2"
    assert other.open(ALL, first)[1] == b"1"
    assert other.open(ALL, third)[1] == b"3"
    with pytest.raises(RemoteProtocolError):
        other.open(ALL, first)


def test_a_message_of_another_installation_does_not_open() -> None:
    with pytest.raises(RemoteProtocolError, match="another key"):
        sealer("one").open(ALL, sealer("other", b"x" * 32).seal(ALL, b"hello"))


@given(st.data())
def test_a_message_that_was_bent_does_not_open(data: st.DataObject) -> None:
    sealed = bytearray(sealer("one").seal(ALL, b"hello"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(RemoteProtocolError):
        sealer("other").open(ALL, bytes(sealed))


@given(st.binary(max_size=100))
def test_any_bytes_do_not_open(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        sealer("one").open(ALL, noise)


# --- who keeps a device's place -------------------------------------------------------------------------------------


@given(
    st.integers(0, 5), st.integers(0, 5), st.none() | st.integers(0, 5), st.none() | st.integers(0, 5), st.booleans()
)
def test_both_portals_come_to_the_same_end(
    order: int, other: int, replaces: int | None, other_replaces: int | None, same_key: bool
) -> None:
    if order == other or (replaces == other and other_replaces == order):
        return  # orders of one device differ, and nobody replaces what came later
    one = GatewayRecord(order, AccountId("a"), SiteId("s"), TokenId("t"), DEVICE, False, True, replaces=replaces)
    two = GatewayRecord(other, AccountId("a"), SiteId("s"), TokenId("t"), DEVICE, False, True, replaces=other_replaces)

    assert newer_wins(one, two) != newer_wins(two, one)
    assert gateway_wins(one, two, same_key=same_key) != gateway_wins(two, one, same_key=same_key)


def test_records_know_their_devices() -> None:
    assert (CLIENT.id, GATEWAY.id, RELAY.id) == ("d", GatewayId("d"), "r")
    assert RELAY.address == ("203.0.113.1", None, 3478)
