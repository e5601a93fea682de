"""The fuzz targets of the Python decoders, by name: each takes any bytes and raises only on a bug.

Every decoder gives a value or `RemoteProtocolError`; where there is an encoder too, the value survives it; where the
native module decodes the same thing, both agree.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from fuzz.relay_server import check_turn_server, check_turn_stream
from wardgate._fastpath import Engine, PacketUpcall, decode_channel_data, judge_stranger
from wardgate.errors import RemoteProtocolError
from wardgate.portal.domain.flow_records import MalformedUpload, read_upload
from wardgate.wire import candidates, channel_data, control, dns, icmp_errors, ip, portal, probes, stun, turn, wireguard
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.domain_patterns import DomainPattern
from wardgate.wire.portal import ApiVersion
from wardgate.wire.portal_client import decode_from_client, decode_to_client
from wardgate.wire.portal_gateway import decode_from_gateway, decode_to_gateway
from wardgate.wire.portal_relay import decode_relay_join, decode_to_relay
from wardgate.wire.portal_secrets import read_ingest_token

Target = Callable[[bytes], None]
KEY: Final = bytes(range(32))


def check_stun(data: bytes) -> None:
    """A message of STUN, ICE or TURN; what the native relay answers by itself is one."""
    answer = judge_stranger(("198.51.100.7", 9), data, 1.0, nonce_key=KEY[:16], realm="r")
    assert answer is not True  # who would know the key
    if isinstance(answer, bytes):
        assert stun.decode(answer).transaction_id == stun.decode(data).transaction_id
    with suppress(RemoteProtocolError):
        message = stun.decode(data)
        assert message.raw == data
        assert not message.verify_integrity(KEY)
        if message.username is not None:
            check_turn(message.username.encode())


def check_turn(data: bytes) -> None:
    """A relay's user name, and the key that follows from it."""
    text = data.decode(errors="replace")
    with suppress(RemoteProtocolError):
        username = turn.Username.parse(text)
        password = turn.password_of(username, "00" * 32)
        assert len(turn.long_term_key(text, password)) == 16
        assert turn.Username.parse(str(username)) == username


def check_channel_data(data: bytes) -> None:
    """Channel data, as clients and as relays read it."""
    for exact in (False, True):
        ours: tuple[int, bytes] | None = None
        with suppress(RemoteProtocolError):
            ours = channel_data.decode(data, exact=exact)
            frame = channel_data.encode(*ours)
            assert frame == data if exact else data.startswith(frame)
        assert exact or decode_channel_data(data) == ours


def check_wireguard(data: bytes) -> None:
    """WireGuard's messages and their MACs."""
    kind = wireguard.message_type(data)
    for read in (wireguard.sender_index, wireguard.receiver_index):
        with suppress(RemoteProtocolError):
            assert 0 <= read(data) < 2**32
    with suppress(RemoteProtocolError):
        assert wireguard.encode_cookie_reply(*wireguard.decode_cookie_reply(data)) == data
    if kind in (wireguard.MessageType.INITIATION, wireguard.MessageType.RESPONSE):
        assert not wireguard.is_mac1_valid(data, KEY)
        assert not wireguard.is_mac2_valid(data, KEY[:16])
        signed = wireguard.with_macs(data, KEY, KEY[:16])
        assert wireguard.is_mac1_valid(signed, KEY)
        assert wireguard.is_mac2_valid(signed, KEY[:16])


_engine: Final = Engine()


def check_ip(data: bytes) -> None:
    """An IP packet: both parsers refuse it, or both read the same."""
    packet = None
    with suppress(RemoteProtocolError):
        packet = ip.parse(data)
        assert packet.raw == data[: len(packet.raw)]
        assert packet.transport_offset <= packet.payload_offset <= len(packet.raw) <= ip.MAX_PACKET
        assert len(packet.payload) == len(packet.raw) - packet.payload_offset
        if packet.protocol == ip.TCP:
            assert len(ip.tcp_header(packet).options) % 4 == 0
    assert _engine.handle_tun(data, 1.0) == []
    for upcall in _engine.poll_upcalls():
        assert isinstance(upcall, PacketUpcall)
        if packet is not None:
            # The native parser knows no extension headers; what it lets through has none in either.
            assert packet.raw == upcall.packet
            assert packet.version == 4 or packet.transport_offset == ip.IPV6_HEADER


def check_icmp_errors(data: bytes) -> None:
    """An ICMP error, its quote, its translation, and the error that would answer it."""
    with suppress(RemoteProtocolError):
        packet = ip.parse(data)
        for why in icmp_errors.Unreachable:
            answer = icmp_errors.unreachable(packet, why)
            if answer is not None:
                error = ip.parse(answer)
                assert error.is_icmp_error
                assert error.destination == packet.source
        quote = icmp_errors.quoted(packet)
        new = ("192.0.2.1", "192.0.2.2") if packet.version == 4 else ("2001:db8::1", "2001:db8::2")
        own, other = SocketAddr(new[0], 1), SocketAddr(new[1], 1)
        translated = icmp_errors.translate_error(
            packet, quote, source=other.ip, destination=own.ip, quoted_source=own, quoted_destination=other
        )
        error = ip.parse(translated)
        assert ip.transport_checksum(error.source, error.destination, error.protocol, _unsummed(error)) == _sum(error)
        key = icmp_errors.quoted(error).key
        assert (key.source.host, key.destination.host) == (own.host, other.host)


def _unsummed(packet: ip.Packet) -> bytes:
    at = packet.transport_offset
    return packet.raw[at : at + 2] + bytes(2) + packet.raw[at + 4 :]


def _sum(packet: ip.Packet) -> int:
    return int.from_bytes(packet.raw[packet.transport_offset + 2 : packet.transport_offset + 4], "big")


def check_dns(data: bytes) -> None:
    """Queries, responses, and what is made of them."""
    with suppress(RemoteProtocolError):
        query = dns.decode_query(data)
        dns.address_of_reverse_name(query.question.name)
        address = IPv6Address("fd00::1") if query.question.type == dns.RecordType.AAAA else IPv4Address("10.0.0.1")
        answer = dns.encode_answer(query, dns.Rcode.NOERROR, [dns.address_record(query, address, 5)], query.udp_size)
        response = dns.decode_response(answer)
        assert len(answer) <= query.udp_size
        assert response.question is not None
        assert response.question.is_same(query.question)
    with suppress(RemoteProtocolError):
        response = dns.decode_response(data)
        assert dns.with_id(data, response.id) == data
        asked = dns.decode_query(b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01a\x00\x00\x01\x00\x01")
        for limit in (512, None):
            relayed = dns.relay_answer(asked, response, limit)
            assert limit is None or len(relayed) <= limit
            assert relayed[:2] == b"\x12\x34"


def check_control(data: bytes) -> None:
    """An in-band control packet, whole or its payload alone."""
    for packet in (data, _control_packet(data)):
        with suppress(RemoteProtocolError):
            message = control.decode_control(packet)
            assert control.decode_control(control.encode_control(message)) == message


def _control_packet(payload: bytes) -> bytes:
    nobody = IPv6Address("::")
    padded = payload[: ip.MAX_PACKET - ip.IPV6_HEADER].ljust(8, b"\0")
    return ip.ip_packet(nobody, nobody, control.CONTROL_PROTOCOL, padded, hop_limit=0)


def check_probe(data: bytes) -> None:
    """A path probe."""
    probe = probes.decode_probe(data)
    assert probe is None or probes.decode_probe(probes.encode_probe(probe)) == probe


def check_candidate(data: bytes) -> None:
    """A candidate line."""
    with suppress(RemoteProtocolError):
        candidate = candidates.decode(data.decode(errors="replace"))
        again = candidates.decode(candidates.encode_iceless(candidate))
        assert (again.kind, again.address) == (candidate.kind, candidate.address)
        assert candidates.decode(candidates.encode_ice(candidate, "ufrag")).address == candidate.address


_DECODERS: Final = (decode_to_client, decode_from_client, decode_to_gateway, decode_from_gateway)


def check_portal_message(data: bytes) -> None:
    """A message of one of the portal's topics: a byte that chooses, the event, a line feed, JSON."""
    choice = data[0] if data else 0
    event, _, body = data[1:].decode(errors="replace").partition("\n")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return
    version = ApiVersion.V1 if choice & 4 else ApiVersion.V2
    with suppress(RemoteProtocolError):
        message = _DECODERS[choice & 3](event, payload, version)
        if isinstance(message, portal.Message):
            text = portal.encode_frame(portal.Frame("client", event, message.payload()))
            again = _DECODERS[choice & 3](event, portal.decode_frame(text).payload, version)
            assert again == message
    with suppress(RemoteProtocolError):
        decode_to_relay(event, payload)
    with suppress(RemoteProtocolError):
        decode_relay_join(payload)


def check_portal_frame(data: bytes) -> None:
    """A websocket message of the portal."""
    text = data.decode(errors="replace")
    with suppress(RemoteProtocolError):
        portal.decode_frame(text, complete=True)
    with suppress(RemoteProtocolError):
        frame = portal.decode_frame(text)
        assert portal.decode_frame(portal.encode_frame(frame)) == frame
        portal.decode_control(frame)


def check_domain_pattern(data: bytes) -> None:
    """A pattern, a line feed, and a name: matched as the same regular expression matches."""
    text, _, name = data.decode(errors="replace").partition("\n")
    pattern = DomainPattern.parse(text)
    if pattern is None:
        return
    assert DomainPattern.parse(text.upper().lower()) is not None or not text.isascii()
    is_name = len(name) <= 255 and all(name.lower().removesuffix(".").split("."))
    if len(text) <= 24 and len(name) <= 48:  # longer ones could take the expression for ever
        assert pattern.matches(name) == (is_name and _matches_slowly(pattern.labels, name))
    else:
        assert is_name or not pattern.matches(name)


def _matches_slowly(labels: tuple[str, ...], name: str) -> bool:
    wanted = name.lower().removesuffix(".").split(".")
    bare_parent = labels[0] == "*" and len(labels) > 1 and _is_cover(labels[1:], wanted)
    return bare_parent or _is_cover(labels, wanted)


def _is_cover(labels: tuple[str, ...], name: list[str]) -> bool:
    if not labels:
        return not name
    if labels[0] == "**":
        return any(_is_cover(labels[1:], name[taken:]) for taken in range(len(name) + 1))
    if not name:
        return False
    expression = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in labels[0])
    return re.fullmatch(expression, name[0], re.DOTALL) is not None and _is_cover(labels[1:], name[1:])


def check_flow_upload(data: bytes) -> None:
    """A flow-log token, a line feed, and the body of an upload."""
    token, _, body = data.partition(b"\n")
    with suppress(RemoteProtocolError):
        read_ingest_token(token.decode("latin-1"))
    with suppress(MalformedUpload):
        upload = read_upload(body)
        json.dumps(upload.errors)
        for record in upload.records:
            assert 0 <= record.inner_src_port <= 65535
            assert record.flow_start.tzinfo is UTC
            assert (record.flow_end is None) == (record.rx_packets is None)
            json.dumps(record.outers)
            (record.inner_domain or "").encode()


TARGETS: Final[dict[str, Target]] = {
    "stun": check_stun,
    "turn": check_turn,
    "turn-server": check_turn_server,
    "turn-stream": check_turn_stream,
    "channel-data": check_channel_data,
    "wireguard": check_wireguard,
    "ip": check_ip,
    "icmp-errors": check_icmp_errors,
    "dns": check_dns,
    "control": check_control,
    "probe": check_probe,
    "candidate": check_candidate,
    "portal-message": check_portal_message,
    "portal-frame": check_portal_frame,
    "domain-pattern": check_domain_pattern,
    "flow-upload": check_flow_upload,
}
"""All targets; the names are those of their corpora."""
