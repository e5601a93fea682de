"""Accounts: made with all that every account has, and configured."""

import secrets
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from wardgate.errors import InvalidInput
from wardgate.ids import AccountId
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.sealing import seal
from wardgate.portal.db.tables import Account, ClientToken, Group, PolicyAuthorization, Resource, Site, new_id
from wardgate.portal.domain import checks, subjects
from wardgate.portal.services.actors import create_actor

FEATURES: Final = ("policy_conditions", "idp_sync", "internet_resource", "iceless", "log_sinks", "device_posture")
DNS_TYPES: Final = ("system", "secure", "custom")
DOH_PROVIDERS: Final = ("google", "opendns", "cloudflare", "quad9")
DEFAULT_CONFIG: Final = {
    "search_domain": None,
    "clients_upstream_dns": {"type": "system", "doh_provider": "google", "addresses": []},
    "notifications": {"outdated_gateway": {"enabled": True, "last_notified": None}},
}
_KEY_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_RESERVED: Final = (ip_network("100.64.0.0/10"), ip_network("fd00:2021:1111::/48"))


async def create_account(db: Database, fields: Mapping[str, Any], admin: Mapping[str, Any] | None = None) -> Account:
    """Makes an account with its Everyone group, Internet site and Internet resource; all features are on.

    Args:
        admin: The first admin's fields; a mistake in them leaves no account behind.

    Raises:
        InvalidInput: Name or slug are not acceptable, or the slug is taken.
    """
    problems = checks.Problems()
    slug = checks.slug(problems, fields)
    name = checks.text(problems, {"name": fields.get("name") or slug}, "name", least=3, most=64)
    problems.raise_if_any()
    account_id = new_id()
    account = Account(
        id=account_id,
        name=name,
        slug=slug,
        key="".join(secrets.choice(_KEY_ALPHABET) for _ in range(6)),
        ingest_signing_key=seal(db.keyring, secrets.token_bytes(32), Account, "ingest_signing_key", account_id),
        features=dict.fromkeys(FEATURES, True),
        limits={},
        config=DEFAULT_CONFIG,
    )
    async with db.writing(subjects.system(AccountId(account.id))) as unit:
        account.inserted_at = unit.at  # no change can be older, and so no time before it can be asked about
        await unit.insert(account, unique="slug")
        await unit.insert(Group(account_id=account.id, name="Everyone", type=EVERYONE))
        site = Site(account_id=account.id, id=new_id(), name="Internet", managed_by="system")
        await unit.insert(site)
        await unit.insert(Resource(account_id=account.id, name="Internet", type="internet", site_id=site.id))
        if admin is not None:
            await create_actor(unit, admin)
    return account


async def update_config(unit: UnitOfWork, fields: Mapping[str, Any]) -> Account:
    """Sets the search domain and the clients' resolvers.

    Raises:
        InvalidInput: A value is not acceptable.
    """
    account = await unit.account()
    problems = checks.Problems()
    config = {**DEFAULT_CONFIG, **account.config}
    if "search_domain" in fields:
        config["search_domain"] = _search_domain(problems, fields)
    if "clients_upstream_dns" in fields:
        config["clients_upstream_dns"] = _upstream_dns(problems, fields["clients_upstream_dns"])
    problems.raise_if_any()
    await unit.update(account, config=config)
    return account


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
        problems.add("search_domain", "is not a domain name")
    return value


def _upstream_dns(problems: checks.Problems, value: Any) -> dict[str, Any]:
    fields = value if isinstance(value, Mapping) else {}
    kind = fields.get("type", "system")
    provider = fields.get("doh_provider", "google")
    addresses = fields.get("addresses") or []
    if kind not in DNS_TYPES:
        problems.add("clients_upstream_dns", "has a type that is not system, secure or custom")
    if provider not in DOH_PROVIDERS:
        problems.add("clients_upstream_dns", "has an unknown DNS-over-HTTPS provider")
    try:
        cleaned = [str(_resolver(one)) for one in addresses]
    except (InvalidInput, TypeError):
        problems.add(
            "clients_upstream_dns", "has addresses that are not plain IP addresses outside the tunnel's ranges"
        )
        cleaned = []
    if len(cleaned) > 8 or len(set(cleaned)) != len(cleaned):
        problems.add("clients_upstream_dns", "may have up to 8 different addresses")
    if kind == "custom" and not cleaned:
        problems.add("clients_upstream_dns", "needs an address")
    return {"type": kind, "doh_provider": provider, "addresses": cleaned}


def _resolver(value: Any) -> str:
    text = value.get("address") if isinstance(value, Mapping) else value
    try:
        address = ip_address(str(text))
    except ValueError:
        raise InvalidInput({"addresses": ["is invalid"]}) from None
    if any(address in network for network in _RESERVED):
        raise InvalidInput({"addresses": ["is reserved"]})
    return str(address)


async def set_features(unit: UnitOfWork, features: Mapping[str, bool]) -> Account:
    """Switches features on or off.

    Raises:
        InvalidInput: There is no such feature.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown:
        raise InvalidInput({"features": [f"has no {name}" for name in unknown]})
    account = await unit.account()
    await unit.update(account, features={**account.features, **features})
    return account


async def set_disabled(unit: UnitOfWork, is_disabled: bool, reason: str | None = None) -> Account:
    """Disables an account, which ends its grants and its clients' sessions, or enables it again."""
    account = await unit.account()
    await unit.update(account, is_disabled=is_disabled, disabled_reason=reason if is_disabled else None)
    if is_disabled:
        for grant in await unit.all(unit.select(PolicyAuthorization)):
            await unit.delete(grant)
        for token in await unit.all(unit.select(ClientToken)):
            await unit.delete(token)
    return account
