"""DNS messages: queries and responses as values, and the short answers that a client gives itself.

Parsing is dnspython's; what we send is laid out here, as local answers are compressed only where they must be short.
Source: RFC 1035, RFC 6891 (EDNS), RFC 3596 (reverse names).
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import dns.reversename

from wardgate.errors import RemoteProtocolError
from wardgate.wire.ip import IpAddress

MAX_QUERY = 4096
MAX_UDP_RESPONSE = 1212
"""1280 bytes less the largest headers of IP and UDP."""
_PLAIN_UDP_RESPONSE = 512
_HEADER = 12
_QR, _TC, _RD, _CD = 0x8000, 0x0200, 0x0100, 0x0010
_OPCODE = 0x7800
_DNSSEC_OK = 0x8000
_QUESTION_POINTER = b"\xc0\x0c"
_OPT = struct.pack("!BHHIH", 0, 41, MAX_UDP_RESPONSE, 0, 0)
"""The pseudo-record of EDNS: what we take over UDP, and nothing else."""
IN = 1


class RecordType(IntEnum):
    """The types that mean something to us."""

    A = 1
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    SVCB = 64
    HTTPS = 65
    ANY = 255


class Rcode(IntEnum):
    """What became of a query."""

    NOERROR = 0
    SERVFAIL = 2
    NXDOMAIN = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        name: Lower case, no trailing dot, unusual characters escaped as in zone files; empty for the root.
        type: The record type, known to us or not.
        class_: 1 for the internet.
        wire: Its bytes, uncompressed, in the letter case it was asked.
    """

    name: str
    type: int
    class_: int
    wire: bytes

    @property
    def is_plain(self) -> bool:
        """Whether a dot in `name` always separates labels."""
        return "\\" not in self.name

    def is_same(self, other: "Question") -> bool:
        """Whether both ask the same, letter case aside."""
        return (self.name, self.type, self.class_) == (other.name, other.type, other.class_)


@dataclass(frozen=True, slots=True)
class Query:
    """One question to a resolver.

    Attributes:
        flags: The header's second 16 bits.
        udp_size: What the asker can take over UDP.
        has_edns: It says so, and is answered likewise.
        wants_dnssec: It asks for signatures or for unchecked data.
        raw: The whole message.
    """

    id: int
    flags: int
    question: Question
    udp_size: int
    has_edns: bool
    wants_dnssec: bool
    raw: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of an answer section; owner and data uncompressed."""

    owner: bytes
    type: int
    class_: int
    ttl_s: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """What a resolver said.

    Attributes:
        question: `None` if the resolver left it out.
        answers: Only the answer section.
    """

    id: int
    rcode: int
    is_truncated: bool
    question: Question | None
    answers: tuple[Record, ...]
    raw: bytes


def decode_query(payload: bytes) -> Query:
    """Reads a standard query with one question.

    Raises:
        RemoteProtocolError: It is malformed, a response, of another opcode, or asks none or several things.
    """
    if not _HEADER <= len(payload) <= MAX_QUERY:
        raise RemoteProtocolError("DNS query of a wrong size")
    flags: int = struct.unpack_from("!H", payload, 2)[0]
    if flags & (_QR | _OPCODE):
        raise RemoteProtocolError("not a standard DNS query")
    message = _parse(payload)
    if len(message.question) != 1:
        raise RemoteProtocolError("a DNS query has one question")
    edns = message.edns >= 0
    size = message.payload if edns else _PLAIN_UDP_RESPONSE
    return Query(
        id=message.id,
        flags=flags,
        question=_question(message),
        udp_size=max(_PLAIN_UDP_RESPONSE, min(size, MAX_UDP_RESPONSE)),
        has_edns=edns,
        wants_dnssec=bool(flags & _CD) or (edns and bool(message.ednsflags & _DNSSEC_OK)),
        raw=bytes(payload),
    )


def decode_response(payload: bytes) -> Response:
    """Reads a response.

    Raises:
        RemoteProtocolError: It is malformed or no response.
    """
    if len(payload) < _HEADER:
        raise RemoteProtocolError("DNS response is truncated")
    flags: int = struct.unpack_from("!H", payload, 2)[0]
    if not flags & _QR or flags & _OPCODE:
        raise RemoteProtocolError("not a response to a standard DNS query")
    message = _parse(payload)
    if len(message.question) > 1:
        raise RemoteProtocolError("DNS response with several questions")
    try:
        records = tuple(
            Record(
                rrset.name.to_wire() or b"", int(rrset.rdtype), int(rrset.rdclass), rrset.ttl, rdata.to_wire() or b""
            )
            for rrset in message.answer
            for rdata in rrset
        )
    except Exception:  # dnspython raises more than its own errors on records that it took before
        raise RemoteProtocolError("DNS response with an odd record") from None
    return Response(
        id=message.id,
        rcode=int(message.rcode()),
        is_truncated=bool(flags & _TC),
        question=_question(message) if message.question else None,
        answers=records,
        raw=bytes(payload),
    )


def _parse(payload: bytes) -> dns.message.Message:
    try:
        return dns.message.from_wire(payload, one_rr_per_rrset=True)
    except Exception:  # dnspython's readers of single records raise ValueError, struct.error and others besides its own
        raise RemoteProtocolError("DNS message is malformed") from None


def _question(message: dns.message.Message) -> Question:
    asked = message.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    wire = asked.name.to_wire() or b""
    kind, class_ = int(asked.rdtype), int(asked.rdclass)
    return Question("" if name == "." else name, kind, class_, wire + struct.pack("!HH", kind, class_))


def encode_answer(query: Query, rcode: Rcode, records: Iterable[Record] = (), limit: int | None = None) -> bytes:
    """A response of our own: the query's `rd`, nothing authoritative, EDNS if the query has it.

    Args:
        query: What it answers.
        rcode: What became of it.
        records: The answer section.
        limit: How long it may be: the asker's UDP size, or `None` over TCP. Owners are compressed if that helps, else
            the answer is empty and marked truncated.
    """
    answers = tuple(records)
    flags = _QR | (query.flags & _RD) | rcode
    response = _layout(query, flags, answers, compressed=False)
    if limit is None or len(response) <= limit:
        return response
    response = _layout(query, flags, answers, compressed=True)
    return response if len(response) <= limit else _layout(query, flags | _TC, (), compressed=False)


def _layout(query: Query, flags: int, records: tuple[Record, ...], compressed: bool) -> bytes:
    extra = (_OPT,) if query.has_edns else ()
    parts = [struct.pack("!HHHHHH", query.id, flags, 1, len(records), 0, len(extra)), query.question.wire]
    asked = query.question.wire[:-4].lower()
    for record in records:
        is_asked = compressed and record.owner.lower() == asked
        parts.append(_QUESTION_POINTER if is_asked else record.owner)
        parts.append(struct.pack("!HHIH", record.type, record.class_, record.ttl_s, len(record.data)) + record.data)
    return b"".join((*parts, *extra))


def relay_answer(query: Query, response: Response, limit: int | None) -> bytes:
    """A resolver's response for the asker: with its id and its question in its letter case, else unchanged.

    What is longer than `limit` is empty and truncated instead, so that it is asked for over TCP.
    """
    if limit is not None and len(response.raw) > limit:
        flags: int = struct.unpack_from("!H", response.raw, 2)[0] | _TC
        return _layout(query, flags, (), compressed=False)
    asked, end = query.question.wire, _HEADER + len(query.question.wire)
    if response.raw[_HEADER:end].lower() == asked.lower():
        return query.id.to_bytes(2, "big") + response.raw[2:_HEADER] + asked + response.raw[end:]
    return with_id(response.raw, query.id)


def rcode_of(message: bytes) -> int:
    """What became of a query, by the header of its response alone."""
    return message[3] & 0x0F if len(message) >= _HEADER else Rcode.SERVFAIL


def with_id(message: bytes, message_id: int) -> bytes:
    """The same message under another id."""
    return struct.pack("!H", message_id) + message[2:]


def address_record(query: Query, address: IpAddress, ttl_s: int) -> Record:
    """An A or AAAA record of the name that was asked."""
    kind = RecordType.A if address.version == 4 else RecordType.AAAA
    return Record(query.question.wire[:-4], kind, IN, ttl_s, address.packed)


def pointer_record(query: Query, domain: str, ttl_s: int) -> Record:
    """A PTR record of the reverse name that was asked."""
    return Record(query.question.wire[:-4], RecordType.PTR, IN, ttl_s, dns.name.from_text(domain).to_wire() or b"")


def address_of_reverse_name(name: str) -> IpAddress | None:
    """The address that a name under `in-addr.arpa` or `ip6.arpa` stands for; `None` if it stands for none."""
    try:
        parsed = dns.name.from_text(name)
        text = dns.reversename.to_address(parsed)
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
        return address if dns.reversename.from_address(text) == parsed else None
    except (dns.exception.DNSException, ValueError):
        return None
