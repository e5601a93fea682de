"""What an account may be configured to: the search domain and the resolvers of its clients.

Source: portal-domain section 1.2.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from wardgate.portal.domain import checks

DNS_TYPES: Final = ("system", "secure", "custom")
DOH_PROVIDERS: Final = ("google", "opendns", "cloudflare", "quad9")
MAX_RESOLVERS: Final = 8
_RESERVED: Final = (ip_network("100.64.0.0/10"), ip_network("fd00:2021:1111::/48"))
_RESOLVERS: Final = "clients_upstream_dns.addresses"
_ACCEPTED: Final = (
    f"up to {MAX_RESOLVERS} different IP addresses without ports, outside of {_RESERVED[0]} and {_RESERVED[1]}"
)


def check_config(current: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with what is given in `fields`; resolvers are kept when another type is chosen.

    Raises:
        InvalidInput: A value is not acceptable.
    """
    problems = checks.Problems()
    config = dict(current)
    if "search_domain" in fields:
        config["search_domain"] = _search_domain(problems, fields)
    if "clients_upstream_dns" in fields:
        given = fields["clients_upstream_dns"]
        if isinstance(given, Mapping):
            config["clients_upstream_dns"] = _upstream_dns(problems, {**current["clients_upstream_dns"], **given})
        else:
            problems.add("clients_upstream_dns", "is invalid", "invalid", "an object with type and addresses")
    problems.raise_if_any()
    return config


def _search_domain(problems: checks.Problems, fields: Mapping[str, Any]) -> str | None:
    value = checks.text(problems, fields, "search_domain", needed=False)
    if value is None:
        return None
    labels = value.split(".")
    allowed = all(
        1 <= len(label) <= 63 and all(letter.isascii() and (letter.isalnum() or letter == "-") for letter in label)
        for label in labels
    )
    if not allowed or len(labels[-1]) < 2 or not labels[-1].isalpha():
        problems.add("search_domain", "is not a domain name", "invalid", "a name such as corp.example")
    return value


def _upstream_dns(problems: checks.Problems, fields: Mapping[str, Any]) -> dict[str, Any]:
    kind, provider = fields.get("type"), fields.get("doh_provider")
    if kind not in DNS_TYPES:
        problems.add("clients_upstream_dns.type", "is invalid", "invalid", ", ".join(DNS_TYPES))
    if provider not in DOH_PROVIDERS:
        problems.add("clients_upstream_dns.doh_provider", "is invalid", "invalid", ", ".join(DOH_PROVIDERS))
    addresses = _addresses(problems, fields.get("addresses") or [])
    if kind == "custom" and not addresses:
        problems.add(_RESOLVERS, checks.BLANK, "required", _ACCEPTED)
    return {"type": kind, "doh_provider": provider, "addresses": addresses}


def _addresses(problems: checks.Problems, given: Any) -> list[str]:
    if not isinstance(given, list | tuple) or len(given) > MAX_RESOLVERS:
        problems.add(_RESOLVERS, "is no list, or too long a one", "invalid", _ACCEPTED)
        return []
    cleaned: list[str] = []
    for one in given:
        text = one.get("address") if isinstance(one, Mapping) else one
        try:
            address = ip_address(str(text))
        except ValueError:
            problems.add(_RESOLVERS, f"has what is no IP address: {text!r}", "invalid", _ACCEPTED)
            continue
        if any(address in network for network in _RESERVED):
            problems.add(_RESOLVERS, f"has an address of the tunnel's own: {address}", "invalid", _ACCEPTED)
        elif str(address) in cleaned:
            problems.add(_RESOLVERS, f"has {address} twice", "duplicate", _ACCEPTED)
        cleaned.append(str(address))
    return cleaned
