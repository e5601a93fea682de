"""Accounts: made with all that every account has, and configured."""

import secrets
from collections.abc import Mapping
from typing import Any, Final

from wardgate.errors import FieldProblem
from wardgate.ids import AccountId
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.sealing import seal
from wardgate.portal.db.tables import Account, ClientToken, Group, PolicyAuthorization, Resource, Site, new_id
from wardgate.portal.domain import checks, subjects
from wardgate.portal.domain.account_config import check_config
from wardgate.portal.services.actors import create_actor
from wardgate.portal.services.providers import create_provider

FEATURES: Final = ("policy_conditions", "idp_sync", "internet_resource", "iceless", "log_sinks", "device_posture")
DEFAULT_CONFIG: Final = {
    "search_domain": None,
    "clients_upstream_dns": {"type": "system", "doh_provider": "google", "addresses": []},
    "notifications": {"outdated_gateway": {"enabled": True, "last_notified": None}},
}
_KEY_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


async def create_account(db: Database, fields: Mapping[str, Any], admin: Mapping[str, Any] | None = None) -> Account:
    """Makes an account with its Everyone group, Internet site and resource, and e-mail codes; all features are on.

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
        await create_provider(unit, "email_otp", {})
        if admin is not None:
            await create_actor(unit, admin)
    return account


async def update_config(unit: UnitOfWork, fields: Mapping[str, Any]) -> Account:
    """Sets the search domain and the clients' resolvers.

    Raises:
        InvalidInput: A value is not acceptable.
    """
    account = await unit.account()
    config = check_config({**DEFAULT_CONFIG, **account.config}, fields)
    await unit.update(account, config=config)
    return account


async def set_features(unit: UnitOfWork, features: Mapping[str, bool]) -> Account:
    """Switches features on or off.

    Raises:
        InvalidInput: There is no such feature.
    """
    unknown = [name for name in features if name not in FEATURES]
    if unknown:
        raise checks.error_of(
            [FieldProblem("features", f"has no {name}", "invalid", ", ".join(FEATURES)) for name in unknown]
        )
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
