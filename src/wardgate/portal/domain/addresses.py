"""What a resource's address may be, and its one canonical form.

Source: portal-domain section 2.1; a wildcard pattern that would cover a whole public suffix is refused.
"""

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from wardgate.errors import InvalidInput, invalid

RESOURCE_TYPES: Final = ("dns", "ip", "cidr", "internet", "static_device_pool", "dynamic_device_pool")
ADDRESSED_TYPES: Final = ("dns", "ip", "cidr", "dynamic_device_pool")
IP_STACKS: Final = ("dual", "ipv4_only", "ipv6_only")
TUNNEL_IPV4: Final = IPv4Network("100.64.0.0/11")
TUNNEL_IPV6: Final = IPv6Network("fd00:2021:1111::/107")
_EXCLUDED: Final = tuple(
    ip_network(text)
    for text in ("0.0.0.0/32", "::/128", "127.0.0.0/8", "::1/128", "100.64.0.0/10", "fd00:2021:1111::/48")
)
_LISTED: Final = ", ".join(map(str, _EXCLUDED))
_PUBLIC_SUFFIXES: Final = frozenset({"com", "org", "net", "edu", "gov", "mil", "biz", "info", "name", "mobi", "pro"})
_WITH_PORT: Final = re.compile(r"(\[.*\]:\d+|[^:\[\]]+:\d+)", re.ASCII)
_WILDCARDS: Final = "*?"


def canonical_address(kind: str, address: str) -> str:
    """The address as it is stored and sent.

    Args:
        kind: dns, ip, cidr or dynamic_device_pool; the other types have no address.

    Raises:
        InvalidInput: It is not an address of that type.
    """
    text = address.strip()
    if kind in ("dns", "ip", "cidr") and _WITH_PORT.fullmatch(text):
        raise _invalid("may not include a port: use filters instead")
    if kind in ("dns", "dynamic_device_pool"):
        return _dns_pattern(text)
    if kind == "ip":
        return _ip(text)
    return _cidr(text)


def as_network(kind: str, address: str) -> IPv4Network | IPv6Network:
    """The network of an `ip` or `cidr` resource; a single address is one of /32 or /128."""
    return ip_network(address)


def _invalid(text: str, accepted: str | None = None) -> InvalidInput:
    return invalid("address", text, "invalid", accepted)


def _ip(text: str) -> str:
    if text.startswith("[") or text.endswith("]"):
        if not (text.startswith("[") and text.endswith("]") and ":" in text):
            raise _invalid("has mismatched brackets")
        text = text[1:-1]
    try:
        address = ip_address(text)
    except ValueError:
        raise _invalid("is not an IP address", "an address such as 10.0.0.1 or 2001:db8::1") from None
    if getattr(address, "scope_id", None):
        raise _invalid("is not an IP address", "an address such as 10.0.0.1 or 2001:db8::1")
    _refuse_excluded(ip_network(address))
    return str(address)


def _cidr(text: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f:.]+/[0-9]{1,3}", text, re.ASCII):
        raise _invalid("is not a network in CIDR notation, such as 10.0.0.0/8", "a network with its prefix length")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise _invalid(
            "is not a network in CIDR notation, such as 10.0.0.0/8", "a network with its prefix length"
        ) from None
    if network.prefixlen == 0:
        raise _invalid("covers everything: use the Internet resource instead")
    _refuse_excluded(network)
    return str(network)


def _refuse_excluded(network: IPv4Network | IPv6Network) -> None:
    for excluded in _EXCLUDED:
        if excluded.version == network.version and excluded.overlaps(network):
            raise _invalid(f"may not overlap {excluded}", f"nothing in {_LISTED}")


def _dns_pattern(text: str) -> str:
    if not 1 <= len(text) <= 253:
        raise _invalid("should be 1 to 253 characters")
    if _is_network(text):
        raise _invalid("is an IP address or network: choose that type instead")
    labels = text.split(".")
    for label in labels:
        _check_label(label)
    last = labels[-1].lower()
    if any(letter in last for letter in _WILDCARDS) or last == "localhost":
        raise _invalid("must end in a top-level domain without wildcards, and not in localhost")
    if last in _PUBLIC_SUFFIXES or (len(last) == 2 and last.isascii() and last.isalpha()):
        rest = "".join(labels[:-1])
        if not rest.strip(_WILDCARDS):
            raise _invalid("covers a whole public top-level domain")
    return text


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _check_label(label: str) -> None:
    if not 1 <= len(label) <= 63:
        raise _invalid("has a label that is not 1 to 63 characters long")
    if label.startswith("-") or label.endswith("-"):
        raise _invalid("has a label that starts or ends with a hyphen")
    if not all(letter.isalnum() or letter in "-*?" for letter in label):
        raise _invalid("may have letters, digits, hyphens and the wildcards * and ? only")
    if "**" in label and label != "**":
        raise _invalid("may have ** as a whole label only")


def older_pattern(pattern: str) -> str | None:
    """The pattern as peers before 1.2.0 write it, or `None` if they cannot."""
    first, separator, rest = pattern.partition(".")
    if any(letter in rest for letter in _WILDCARDS):
        return None
    if first == "**":
        return f"*{separator}{rest}"
    if first == "*":
        return f"?{separator}{rest}"
    return None if any(letter in first for letter in _WILDCARDS) else pattern
