"""What a client may ask of an allocation: families, even ports, reservations, DF; RFC 8656, 7.2 and 18.6 to 18.12."""

from conformance import wire
from conformance.lab import Client, Exchange, Lab
from conformance.registry import Failed, NotApplicable, requirement
from conformance.wire import IPV4, IPV6, Address, Draft


def _allocate() -> Draft:
    return Draft(wire.ALLOCATE).transport()


def _families(client: Client) -> list[int]:
    return [address.family for address in client.relayed]


def ipv6_allocation(lab: Lab) -> tuple[Client, Address]:
    """A client with an IPv6 relayed address, where the server has any."""
    client = lab.client()
    exchange = client.ask_signed(_allocate().family(IPV6))
    if exchange.answer is not None and exchange.answer.error_code == 440:
        raise NotApplicable("the server relays no IPv6: 440")
    exchange.expect_success()
    return client, client.relayed[0]


def dual_allocation(lab: Lab) -> Client:
    """A client with relayed addresses of both families, where the server has them."""
    client = lab.client()
    exchange = client.ask_signed(_allocate().additional_family(IPV6))
    exchange.expect_success()
    if len(client.relayed) == 1:
        raise NotApplicable("asked for two addresses the server gives one")
    return client


@requirement("8656-7.2-21", "MUST", "REQUESTED-ADDRESS-FAMILY IPv4 gives an IPv4 address, or 440.")
def requested_ipv4(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate().family(IPV4))
    if exchange.answer is not None and exchange.answer.error_code == 440:
        return
    exchange.expect_success()
    if _families(client) != [IPV4]:
        raise exchange.failed("one IPv4 address")


@requirement("8656-7.2-22", "MUST", "REQUESTED-ADDRESS-FAMILY IPv6 gives an IPv6 address, or 440.")
def requested_ipv6(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate().family(IPV6))
    if exchange.answer is not None and exchange.answer.error_code == 440:
        return
    exchange.expect_success()
    if _families(client) != [IPV6]:
        raise exchange.failed("one IPv6 address")


@requirement("8656-7.2-23", "MUST", "A family that nobody knows is answered 440, or 400 as malformed.")
def unknown_family(lab: Lab) -> None:
    lab.client().ask_signed(_allocate().family(9).because("address family 9")).expect_error(440, 400)


@requirement("8656-7.2-24", "MUST", "REQUESTED- and ADDITIONAL-ADDRESS-FAMILY together are answered 400.")
def both_families(lab: Lab) -> None:
    lab.client().ask_signed(_allocate().family(IPV4).additional_family(IPV6)).expect_error(400)


@requirement("8656-7.2-25", "MUST", "ADDITIONAL-ADDRESS-FAMILY IPv4 is answered 400.")
def additional_ipv4(lab: Lab) -> None:
    draft = _allocate().additional_family(IPV4).because("ADDITIONAL-ADDRESS-FAMILY IPv4")
    lab.client().ask_signed(draft).expect_error(400)


@requirement(
    "8656-7.2-26", "MUST", "ADDITIONAL-ADDRESS-FAMILY IPv6 gives two addresses, or one and ADDRESS-ERROR-CODE, or 508."
)
def additional_ipv6(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate().additional_family(IPV6))
    if exchange.answer is not None and exchange.answer.error_code in (440, 508):
        return
    answer = exchange.expect_success()
    if len(client.relayed) == 1 and not answer.has(wire.ADDRESS_ERROR_CODE):
        raise exchange.failed("a second XOR-RELAYED-ADDRESS or ADDRESS-ERROR-CODE")
    if len(client.relayed) > 1 and sorted(_families(client)) != [IPV4, IPV6]:
        raise exchange.failed("an IPv4 and an IPv6 address")


@requirement("8656-18.12-01", "MUST", "ADDRESS-ERROR-CODE names the missing family, and 440 or 508.")
def address_error_code(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate().additional_family(IPV6))
    value = exchange.expect_success().first(wire.ADDRESS_ERROR_CODE)
    if value is None:
        given = (
            "both addresses, so nothing is missing" if len(client.relayed) > 1 else "one, without ADDRESS-ERROR-CODE"
        )
        raise NotApplicable(f"asked for two addresses the server gives {given}")
    code = (value[2] & 7) * 100 + value[3] if len(value) >= 4 else 0
    if code not in (440, 508) or value[0] not in (IPV4, IPV6) or value[0] in _families(client):
        raise exchange.failed(f"the missing family and 440 or 508 in ADDRESS-ERROR-CODE, not {value.hex()},")


@requirement("8656-18.6-01", "MUST", "The reserved bytes of REQUESTED-ADDRESS-FAMILY are ignored.")
def family_reserved_bytes(lab: Lab) -> None:
    draft = _allocate().add(wire.REQUESTED_ADDRESS_FAMILY, b"\x01\xff\xff\xff").because("reserved bytes 0xff")
    lab.client().ask_signed(draft).expect_success()


# ports


@requirement("8656-7.2-27", "MUST", "EVEN-PORT without the R bit gives an even port, or 508.")
def even_port(lab: Lab) -> None:
    odd = []
    for _ in range(8):
        client = lab.client()
        exchange = client.ask_signed(_allocate().even_port(reserve=False))
        if exchange.answer is not None and exchange.answer.error_code == 508:
            return
        exchange.expect_success()
        odd += [address.port for address in client.relayed if address.port % 2]
    if odd:
        raise Failed(f"sent 8 Allocate requests with EVEN-PORT; {len(odd)} of the ports are odd")


def _reserve(client: Client) -> tuple[Exchange, bytes]:
    """The request for a pair of ports and its token."""
    exchange = client.ask_signed(_allocate().even_port(reserve=True).because("EVEN-PORT with the R bit"))
    if exchange.answer is not None and exchange.answer.error_code == 508:
        raise NotApplicable("the server reserves no ports: 508")
    token = exchange.expect_success().first(wire.RESERVATION_TOKEN)
    if token is None:
        raise exchange.failed("RESERVATION-TOKEN")
    return exchange, token


@requirement("8656-7.2-28", "MUST", "EVEN-PORT with the R bit gives RESERVATION-TOKEN, or 508.")
def reservation(lab: Lab) -> None:
    client = lab.client()
    exchange = client.ask_signed(_allocate().even_port(reserve=True).because("EVEN-PORT with the R bit"))
    if exchange.answer is not None and exchange.answer.error_code == 508:
        return
    token = exchange.expect_success().first(wire.RESERVATION_TOKEN)
    if token is None or len(token) != 8:
        raise exchange.failed("RESERVATION-TOKEN of 8 bytes")


@requirement("8656-7.2-29", "MUST", "The port of a reserving allocation is even.")
def reserving_port_is_even(lab: Lab) -> None:
    client = lab.client()
    _reserve(client)
    if client.relayed[0].port % 2:
        raise Failed(f"sent Allocate request with EVEN-PORT and the R bit; got port {client.relayed[0].port}")


@requirement("8656-7.2-30", "MUST", "RESERVATION-TOKEN gives the next port on the same address.")
def reserved_port(lab: Lab) -> None:
    first, second = lab.client(), lab.client()
    _, token = _reserve(first)
    exchange = second.ask_signed(_allocate().add(wire.RESERVATION_TOKEN, token))
    exchange.expect_success()
    wanted = Address(first.relayed[0].host, first.relayed[0].port + 1)
    if second.relayed != [wanted]:
        raise exchange.failed(f"{wanted}, not {', '.join(map(str, second.relayed))},")


@requirement("8656-7.2-31", "MUST", "A RESERVATION-TOKEN works once; then it is answered 508.")
def token_works_once(lab: Lab) -> None:
    first, second, third = lab.client(), lab.client(), lab.client()
    _, token = _reserve(first)
    second.ask_signed(_allocate().add(wire.RESERVATION_TOKEN, token)).expect_success()
    third.ask_signed(_allocate().add(wire.RESERVATION_TOKEN, token).because("a used token")).expect_error(508)


@requirement("8656-7.2-32", "MUST", "A RESERVATION-TOKEN that was never given out is answered 508.")
def forged_token(lab: Lab) -> None:
    draft = _allocate().add(wire.RESERVATION_TOKEN, b"no token").because("a token that was never given out")
    lab.client().ask_signed(draft).expect_error(508)


@requirement("8656-7.2-33", "MUST", "RESERVATION-TOKEN and EVEN-PORT together are answered 400.")
def token_and_even_port(lab: Lab) -> None:
    draft = _allocate().add(wire.RESERVATION_TOKEN, b"no token").even_port(reserve=False)
    lab.client().ask_signed(draft).expect_error(400)


@requirement("8656-7.2-34", "MUST", "RESERVATION-TOKEN and REQUESTED-ADDRESS-FAMILY together are answered 400.")
def token_and_family(lab: Lab) -> None:
    lab.client().ask_signed(_allocate().add(wire.RESERVATION_TOKEN, b"no token").family(IPV4)).expect_error(400)


@requirement("8656-7.2-35", "MUST", "RESERVATION-TOKEN and ADDITIONAL-ADDRESS-FAMILY together are answered 400.")
def token_and_additional_family(lab: Lab) -> None:
    draft = _allocate().add(wire.RESERVATION_TOKEN, b"no token").additional_family(IPV6)
    lab.client().ask_signed(draft).expect_error(400)


@requirement("8656-7.2-36", "MUST", "EVEN-PORT with the R bit and ADDITIONAL-ADDRESS-FAMILY together are answered 400.")
def reservation_and_additional_family(lab: Lab) -> None:
    draft = _allocate().even_port(reserve=True).additional_family(IPV6)
    lab.client().ask_signed(draft.because("EVEN-PORT with the R bit, ADDITIONAL-ADDRESS-FAMILY")).expect_error(400)


@requirement("8656-7.2-37", "MUST", "DONT-FRAGMENT in Allocate is accepted, or answered 420 and listed as unknown.")
def dont_fragment(lab: Lab) -> None:
    exchange = lab.client().ask_signed(_allocate().add(wire.DONT_FRAGMENT))
    if exchange.answer is not None and exchange.answer.error_code == 420:
        if wire.DONT_FRAGMENT not in exchange.answer.unknown_attributes:
            raise exchange.failed("DONT-FRAGMENT in UNKNOWN-ATTRIBUTES")
        return
    exchange.expect_success()
