"""Whatever a connect request says is parameters or a refusal."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from wardgate.portal.domain.subjects import Location
from wardgate.portal.sockets.connect import Origin, Pressure, read_device_params, read_relay_params, remote_ip
from wardgate.portal.sockets.refusal import Refused

NAMES = ["external_id", "firezone_id", "public_key", "name", "ipv4", "ipv6", "port", "device_serial", "device_uuid"]
queries = st.dictionaries(st.sampled_from(NAMES), st.text(max_size=300))


@given(queries, st.booleans(), st.booleans(), st.sampled_from([None, "1.5.0"]))
def test_any_query_is_device_parameters_or_a_refusal(
    query: dict[str, str], needs_version: bool, needs_id: bool, version: str | None
) -> None:
    origin = Origin("192.0.2.1", Location(), "", version)
    try:
        params = read_device_params(query, origin, needs_version=needs_version, needs_id=needs_id)
    except Refused:
        return
    assert len(params.public_key) == 44
    assert params.external_id or not needs_id


@given(queries)
def test_any_query_is_relay_parameters_or_a_refusal(query: dict[str, str]) -> None:
    try:
        params = read_relay_params(query)
    except Refused:
        return
    assert params.ipv4 or params.ipv6
    assert 1 <= params.port <= 65535


@given(st.text(alphabet="0123456789.:,abcdef[]% ", max_size=60))
def test_any_forwarding_header_leaves_an_address(header: str) -> None:
    scope = {"type": "http", "headers": [(b"x-forwarded-for", header.encode())], "client": ("127.0.0.1", 1)}

    found = remote_ip(HTTPConnection(scope), [ip_network("127.0.0.0/8")])

    assert found is not None
    ip_address(found)


def test_the_more_are_turned_away_the_longer_they_wait() -> None:
    pressure = Pressure()

    assert [pressure.retry_after_s(0.0, chance) for chance in (0.0, 1.0)] == [2, 8]
    for _ in range(5000):
        waits = pressure.retry_after_s(1.0, 1.0)
    assert 20 <= waits <= 30
    assert pressure.retry_after_s(100.0, 1.0) == 8
