"""Revocation is deletion, for every row of the reference's table; plans and disabled accounts; nothing half applied."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from tests.unit.portal.helpers import Lab, make_lab
from wardgate.errors import Conflict, DomainError, Forbidden, InvalidInput
from wardgate.portal.db import authorizations
from wardgate.portal.db.access import rules_of_actor
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import (
    AuthProvider,
    Directory,
    ExternalIdentity,
    OneTimePasscode,
    PendingIdentity,
    PortalSession,
)
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import (
    Actor,
    Base,
    ClientToken,
    Device,
    Group,
    OutboxEntry,
    Policy,
    PolicyAuthorization,
    Resource,
    StaticDevicePoolMember,
    new_id,
)
from wardgate.portal.domain.authorizations import Granted
from wardgate.portal.services import (
    accounts,
    actors,
    devices,
    groups,
    policies,
    providers,
    resources,
    sessions,
    sites,
    tokens,
)

ISSUER = "https://id.example"
OIDC = {"issuer": ISSUER, "discovery_document_uri": f"{ISSUER}/d", "client_id": "c", "client_secret": "s3cret"}


@dataclass
class World:
    """Mia signed in through a provider with an identity of its issuer: one token, one session, one grant."""

    lab: Lab
    provider: AuthProvider
    identity: ExternalIdentity
    token: ClientToken
    other_token: ClientToken
    session: PortalSession
    client: Device
    grant: PolicyAuthorization


Change = Callable[[UnitOfWork, World], Awaitable[Any]]


def disabled(noun: Callable[..., Awaitable[Any]], of: Callable[[World], str]) -> Change:
    return lambda unit, world: noun(unit, of(world), {"is_disabled": True})


ROWS: dict[str, tuple[Change, set[str]]] = {
    "account disabled": (lambda unit, world: accounts.set_disabled(unit, True), {"token", "other_token", "grant"}),
    "actor disabled": (
        disabled(actors.update_actor, lambda world: world.lab.actor.id),
        {"token", "other_token", "session", "grant"},
    ),
    "actor deleted": (
        lambda unit, world: actors.delete_actor(unit, world.lab.actor.id),
        {"token", "other_token", "session", "grant", "identity", "client"},
    ),
    "admin demoted": (
        lambda unit, world: actors.update_actor(unit, world.lab.actor.id, {"type": "account_user"}),
        {"session"},
    ),
    "e-mail address changed": (
        lambda unit, world: actors.update_actor(unit, world.lab.actor.id, {"email": "new@corp.example"}),
        {"identity", "token", "session", "grant"},
    ),
    "e-mail address in capitals": (
        lambda unit, world: actors.update_actor(unit, world.lab.actor.id, {"email": "MIA@CORP.EXAMPLE"}),
        set(),
    ),
    "provider disabled": (
        disabled(providers.update_provider, lambda world: world.provider.id),
        {"token", "session", "grant"},
    ),
    "provider deleted": (
        lambda unit, world: providers.delete_provider(unit, world.provider.id),
        {"token", "session", "grant", "provider"},
    ),
    "provider's lifetimes changed": (
        lambda unit, world: providers.update_provider(
            unit, world.provider.id, {"client_session_lifetime_secs": 3600, "portal_session_lifetime_secs": 300}
        ),
        set(),
    ),
    "identity deleted": (
        lambda unit, world: sessions.delete_identity(unit, world.identity),
        {"identity", "token", "session", "grant"},
    ),
    "token deleted": (
        lambda unit, world: tokens.delete_client_token(unit, world.lab.actor.id, world.token.id),
        {"token", "grant"},
    ),
    "session deleted": (lambda unit, world: unit.delete(world.session), {"session"}),
    "client unverified, and no policy asks for that": (
        lambda unit, world: devices.set_verified(unit, world.client.id, False),
        set(),
    ),
    "client deleted": (lambda unit, world: devices.delete_client(unit, world.client.id), {"client", "grant"}),
    "policy disabled": (disabled(policies.update_policy, lambda world: policy_of(world.lab).id), {"grant"}),
    "policy renamed": (
        lambda unit, world: policies.update_policy(unit, policy_of(world.lab).id, {"description": "x"}),
        set(),
    ),
    "group deleted": (lambda unit, world: groups.delete_group(unit, world.lab.group.id), {"grant"}),
    "resource's filters changed": (
        lambda unit, world: resources.update_resource(
            unit, world.lab.resource.id, {"filters": [{"protocol": "tcp", "ports": ["80"]}]}
        ),
        set(),
    ),
    "resource's address changed": (
        lambda unit, world: resources.update_resource(unit, world.lab.resource.id, {"address": "10.8.0.0/24"}),
        {"grant"},
    ),
    "membership removed": (lambda unit, world: groups.set_members(unit, world.lab.group.id, []), {"grant"}),
}


@pytest.mark.parametrize("name", ROWS)
async def test_a_change_ends_exactly_what_depends_on_it(db: Database, name: str) -> None:
    change, ended = ROWS[name]
    world = await make_world(db)
    rows = {
        one: getattr(world, one)
        for one in ("provider", "identity", "token", "other_token", "session", "client", "grant")
    }
    async with db.writing(world.lab.subject) as unit:
        await change(unit, await again(unit, world))

    async with db.scoped(world.lab.subject) as scope:
        gone = {one for one, row in rows.items() if await scope.find(type(row), row.id) is None}
    async with db.unscoped() as session:
        told = (await session.scalars(select(OutboxEntry).where(OutboxEntry.operation == "delete"))).all()
    assert gone == ended
    assert {row.id for one, row in rows.items() if one in ended} <= {(entry.before or {})["id"] for entry in told}


async def test_a_passcode_takes_the_identity_along_that_waits_for_it(db: Database) -> None:
    world = await make_world(db)
    async with db.writing(world.lab.subject) as unit:
        code = OneTimePasscode(
            account_id=unit.account_id, actor_id=world.lab.actor.id, code_hash="x", expires_at=unit.at
        )
        await unit.insert(code)
        pending = PendingIdentity(
            account_id=unit.account_id,
            actor_id=world.lab.actor.id,
            auth_provider_id=world.provider.id,
            one_time_passcode_id=code.id,
            issuer=ISSUER,
            idp_id="x",
        )
        await unit.insert(pending)
        await unit.delete(code)

        assert await unit.find(PendingIdentity, pending.id) is None


async def test_a_pool_member_who_leaves_is_reached_no_more(db: Database) -> None:
    world = await make_world(db)
    async with db.writing(world.lab.subject) as unit:
        pool = await resources.create_resource(
            unit, {"name": "Pool", "type": "static_device_pool"}, ("static_device_pool",)
        )
        await resources.set_pool_members(unit, pool.id, [world.client.id])
        await unit.update(await unit.get(PolicyAuthorization, world.grant.id), resource_id=pool.id)
        await unit.update(await unit.get(PolicyAuthorization, world.grant.id), receiving_device_id=world.client.id)
        await resources.change_pool_members(unit, pool.id, remove=[world.client.id])

        assert await unit.find(PolicyAuthorization, world.grant.id) is None


async def test_a_pool_that_becomes_something_else_loses_its_members(db: Database) -> None:
    world = await make_world(db)
    async with db.writing(world.lab.subject) as unit:
        pool = await resources.create_resource(
            unit, {"name": "Pool", "type": "static_device_pool"}, ("static_device_pool",)
        )
        await resources.set_pool_members(unit, pool.id, [world.client.id])
        fields = {"type": "ip", "address": "10.0.0.1", "site_id": world.lab.site.id}
        await resources.update_resource(unit, pool.id, fields)

        assert await unit.all(unit.select(StaticDevicePoolMember)) == []
        with pytest.raises(InvalidInput, match="type"):
            await resources.update_resource(unit, pool.id, {"type": "static_device_pool"})


async def test_a_directory_takes_along_who_and_what_it_made_but_not_the_last_admin(db: Database) -> None:
    world = await make_world(db)
    async with db.writing(world.lab.subject) as unit:
        directory = Directory(account_id=unit.account_id, type="google", name="G", external_key="corp.example")
        await unit.insert(directory)
        synced = Group(account_id=unit.account_id, name="Synced", directory_id=directory.id, idp_id="g1")
        await unit.insert(synced)
        policy = await policies.create_policy(unit, {"group_id": synced.id, "resource_id": world.lab.resource.id})
        admins = await unit.all(unit.select(Actor).where(Actor.type == "account_admin_user"))
        for admin in admins:
            await unit.update(admin, created_by_directory_id=directory.id)

    with pytest.raises(Conflict, match="without an admin"):
        async with db.writing(world.lab.subject) as unit:
            await providers.delete_directory(unit, directory.id)
    async with db.writing(world.lab.subject) as unit:
        await unit.update(await unit.get(Actor, admins[0].id), created_by_directory_id=None)
        with pytest.raises(Forbidden, match="synced"):
            await groups.delete_group(unit, synced.id)
        await providers.delete_directory(unit, directory.id)

    async with db.scoped(world.lab.subject) as scope:
        assert await scope.find(Group, synced.id) is None
        assert [await scope.find(Actor, one.id) is None for one in admins] == [False, True]
        orphan = await scope.get(Policy, policy.id)
        assert (orphan.group_id, orphan.group_idp_id) == (None, "g1")


# --- plans, and accounts that are disabled ---


async def test_nothing_is_made_in_a_disabled_account(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        gateway = await sites.create_gateway(unit, lab.site.id, {})
        robot = await actors.create_actor(unit, {"name": "B", "type": "service_account"})
        api = await actors.create_actor(unit, {"name": "A", "type": "api_client"}, ("api_client",))
        await accounts.set_disabled(unit, True)
        expiry = {"expires_at": (unit.at + timedelta(days=1)).isoformat()}
        for made in (
            actors.create_actor(unit, {"name": "B", "type": "service_account"}),
            groups.create_group(unit, {"name": "G"}),
            sites.create_site(unit, {"name": "S"}),
            sites.create_gateway(unit, lab.site.id, {}),
            resources.create_resource(unit, {"name": "R", "type": "ip", "address": "10.0.0.1", "site_id": lab.site.id}),
            policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": lab.resource.id}),
            providers.create_provider(unit, "userpass", {}),
            tokens.create_client_token(unit, robot.id, expiry),
            tokens.create_api_token(unit, api.id, {}),
            tokens.create_site_token(unit, lab.site.id),
            tokens.create_gateway_token(unit, gateway.id),
            tokens.rotate_gateway_token(unit, gateway.id),
        ):
            with pytest.raises(Forbidden) as refused:
                await made
            assert refused.value.code == "account_disabled"


PLANS: dict[str, tuple[dict[str, int], Callable[[UnitOfWork, Lab], Awaitable[Any]]]] = {
    "users": ({"users_count": 2}, lambda unit, lab: actors.create_actor(unit, person("ben"))),
    "account_admin_users": (
        {"account_admin_users_count": 1},
        lambda unit, lab: actors.create_actor(unit, person("ben", "account_admin_user")),
    ),
    "account_admin_users by promotion": (
        {"account_admin_users_count": 1},
        lambda unit, lab: actors.update_actor(unit, lab.actor.id, {"type": "account_admin_user"}),
    ),
    "service_accounts": (
        {"service_accounts_count": 0},
        lambda unit, lab: actors.create_actor(unit, {"name": "B", "type": "service_account"}),
    ),
    "sites": ({"sites_count": 1}, lambda unit, lab: sites.create_site(unit, {"name": "Graz"})),
    "api_clients": (
        {"api_clients_count": 0},
        lambda unit, lab: actors.create_actor(unit, {"name": "A", "type": "api_client"}, ("api_client",)),
    ),
    "monthly_active_users": (
        {"monthly_active_users_count": 1, "users_count": 1000},
        lambda unit, lab: actors.create_actor(unit, person("ben")),
    ),
}


@pytest.mark.parametrize("name", PLANS)
async def test_a_full_plan_names_its_kind(db: Database, name: str) -> None:
    limits, make = PLANS[name]
    world = await make_world(db, verified=False)
    lab = world.lab
    async with db.writing(lab.subject) as unit:
        await actors.update_actor(unit, lab.actor.id, {"type": "account_user"})
        await unit.update(await unit.get(Device, world.client.id), last_seen_at=unit.at)
        await unit.update(await unit.account(), limits=limits)
    with pytest.raises(Forbidden) as refused:
        async with db.writing(lab.subject) as unit:
            await make(unit, lab)

    assert (refused.value.code, refused.value.details["limit"]) == ("limit_reached", name.partition(" ")[0])


async def test_enabling_again_needs_room_as_making_does(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        await actors.update_actor(unit, lab.actor.id, {"is_disabled": True})
        await actors.create_actor(unit, person("ben"))
        await unit.update(await unit.account(), limits={"users_count": 1})
        with pytest.raises(Forbidden, match="limit of users"):
            await actors.update_actor(unit, lab.actor.id, {"is_disabled": False})
        await actors.update_actor(unit, lab.actor.id, {"name": "Mia again"})


async def test_tokens_of_an_api_client_are_limited(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        await unit.update(await unit.account(), limits={"api_tokens_per_client_count": 1})
        one, two = [
            await actors.create_actor(unit, {"name": name, "type": "api_client"}, ("api_client",)) for name in "ab"
        ]
        await tokens.create_api_token(unit, one.id, {})
        await tokens.create_api_token(unit, two.id, {})
        with pytest.raises(Forbidden) as refused:
            await tokens.create_api_token(unit, one.id, {})
    assert refused.value.details["limit"] == "api_tokens_per_client"


async def test_a_plan_without_conditions_keeps_those_there_are_and_takes_no_others(db: Database) -> None:
    region = [{"property": "remote_ip_location_region", "operator": "is_in", "values": ["AT"]}]
    lab = await make_lab(db, conditions=region)
    policy = policy_of(lab)
    async with db.writing(lab.subject) as unit:
        await accounts.set_features(unit, {"policy_conditions": False})
        await policies.update_policy(unit, policy.id, {"description": "kept", "conditions": region})
        other = [{**region[0], "values": ["DE"]}]
        with pytest.raises(Forbidden, match="policy conditions"):
            await policies.update_policy(unit, policy.id, {"conditions": other})
        await policies.update_policy(unit, policy.id, {"conditions": []})
        with pytest.raises(Forbidden, match="policy conditions"):
            await policies.update_policy(unit, policy.id, {"conditions": region})


async def test_the_internet_is_given_where_the_plan_has_it_and_is_not_reported_by_default(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        internet = (await unit.all(unit.select(Resource).where(Resource.type == "internet")))[0]
        pair = {"group_id": lab.group.id, "resource_id": internet.id}
        await accounts.set_features(unit, {"internet_resource": False})
        with pytest.raises(Forbidden, match="Internet resource"):
            await policies.create_policy(unit, pair)
        await accounts.set_features(unit, {"internet_resource": True})
        policy = await policies.create_policy(unit, pair)
        assert policy.flow_log_uploads_enabled is False
        await policies.delete_policy(unit, policy.id)
        asked = await policies.create_policy(unit, {**pair, "flow_log_uploads_enabled": True})
        assert asked.flow_log_uploads_enabled is True


# --- providers ---


async def test_there_is_one_default_provider_and_one_of_some_kinds(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        first = await providers.create_provider(unit, "oidc", {**OIDC, "is_default": True})
        second = await providers.create_provider(
            unit, "oidc", {**OIDC, "client_id": "d", "name": "Other", "is_default": True}
        )
        assert (first.is_default, second.is_default) == (False, True)
    for kind, fields in (("email_otp", {}), ("oidc", {**OIDC, "name": "Third"}), ("oidc", {**OIDC, "client_id": "e"})):
        with pytest.raises(InvalidInput, match="taken"):
            async with db.writing(lab.subject) as unit:
                await providers.create_provider(unit, kind, fields)


async def test_a_providers_secret_is_sealed_and_kept_when_it_is_not_given_again(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        row = await providers.create_provider(unit, "oidc", OIDC)
        sealed = row.sealed_secret
        await providers.update_provider(unit, row.id, {"name": "Renamed"})

    assert sealed
    assert b"s3cret" not in sealed
    assert row.sealed_secret == sealed


# --- a change that fails in the middle ---

MIDDLES: dict[str, Change] = {
    "actor disabled": ROWS["actor disabled"][0],
    "actor deleted": ROWS["actor deleted"][0],
    "e-mail address changed": ROWS["e-mail address changed"][0],
    "provider disabled": ROWS["provider disabled"][0],
    "account disabled": ROWS["account disabled"][0],
    "group deleted": ROWS["group deleted"][0],
    "site deleted": lambda unit, world: sites.delete_site(unit, world.lab.site.id),
    "resource's address changed": ROWS["resource's address changed"][0],
    "members replaced": lambda unit, world: groups.set_members(unit, world.lab.group.id, []),
}


@pytest.mark.parametrize("name", MIDDLES)
async def test_a_change_that_fails_in_the_middle_leaves_everything_as_it_was(
    db: Database, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await make_world(db)
    before = await everything(db)
    steps = await count_steps(db, world, MIDDLES[name])
    assert steps > 1
    real_flush = UnitOfWork._flush
    real_delete = UnitOfWork.delete
    for failing in range(steps):
        left = failing

        def step() -> None:
            nonlocal left
            if left == 0:
                raise RuntimeError("planted")
            left -= 1

        async def flush(unit: UnitOfWork) -> None:
            await real_flush(unit)
            step()

        async def delete(unit: UnitOfWork, row: Base) -> None:
            await real_delete(unit, row)
            step()

        with monkeypatch.context() as patched:
            patched.setattr(UnitOfWork, "_flush", flush)
            patched.setattr(UnitOfWork, "delete", delete)
            with pytest.raises(RuntimeError, match="planted"):
                async with db.writing(world.lab.subject) as unit:
                    await MIDDLES[name](unit, await again(unit, world))
        assert await everything(db) == before


async def count_steps(db: Database, world: World, change: Change) -> int:
    """How many deletes and updates a change is made of; it is taken back."""
    count = 0
    real_flush, real_delete = UnitOfWork._flush, UnitOfWork.delete

    async def flush(unit: UnitOfWork) -> None:
        nonlocal count
        await real_flush(unit)
        count += 1

    async def delete(unit: UnitOfWork, row: Base) -> None:
        nonlocal count
        await real_delete(unit, row)
        count += 1

    async def take_back() -> None:
        async with db.writing(world.lab.subject) as unit:
            await change(unit, await again(unit, world))
            raise RuntimeError("taken back")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UnitOfWork, "_flush", flush)
        patched.setattr(UnitOfWork, "delete", delete)
        with pytest.raises(RuntimeError, match="taken back"):
            await take_back()
    return count


async def test_a_collision_at_the_end_of_a_change_leaves_everything_as_it_was(db: Database) -> None:
    world = await make_world(db)
    async with db.writing(world.lab.subject) as unit:
        await actors.create_actor(unit, person("ben"))
    before = await everything(db)

    async def collide() -> None:
        async with db.writing(world.lab.subject) as unit:
            await groups.set_members(unit, world.lab.group.id, [])
            await actors.update_actor(unit, world.lab.actor.id, {"email": "ben@corp.example"})

    with pytest.raises(DomainError, match="taken"):
        await collide()

    assert await everything(db) == before


async def everything(db: Database) -> dict[str, list[str]]:
    """All rows of every table."""
    async with db.unscoped() as session:
        return {
            table.name: sorted(repr(tuple(row)) for row in await session.execute(select(table)))
            for table in Base.metadata.sorted_tables
        }


def person(name: str, type: str = "account_user") -> dict[str, str]:
    return {"name": name, "type": type, "email": f"{name}@corp.example"}


def policy_of(lab: Lab) -> Policy:
    assert lab.policy is not None
    return lab.policy


async def again(unit: UnitOfWork, world: World) -> World:
    """The rows that a change is made with, as this unit reads them."""
    identity = await unit.get(ExternalIdentity, world.identity.id)
    session = await unit.get(PortalSession, world.session.id)
    return World(**{**world.__dict__, "identity": identity, "session": session})


async def make_world(db: Database, *, verified: bool = True) -> World:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        await actors.create_actor(unit, person("ada", "account_admin_user"))
        await actors.update_actor(unit, lab.actor.id, {"type": "account_admin_user"})
        provider = await providers.create_provider(unit, "oidc", OIDC)
        identity = ExternalIdentity(
            account_id=unit.account_id, id=new_id(), actor_id=lab.actor.id, issuer=ISSUER, idp_id="mia"
        )
        await unit.insert(identity)
        expiry = {"expires_at": (unit.at + timedelta(days=1)).isoformat()}
        people = ("account_admin_user",)
        issued = await tokens.create_client_token(
            unit, lab.actor.id, expiry, auth_provider_id=provider.id, actor_types=people
        )
        other = await tokens.create_client_token(unit, lab.actor.id, expiry, actor_types=people)
        session = PortalSession(
            account_id=unit.account_id,
            id=new_id(),
            actor_id=lab.actor.id,
            auth_provider_id=provider.id,
            expires_at=unit.at + timedelta(hours=8),
        )
        await unit.insert(session)
        client = await create_device(unit, type="client", actor_id=lab.actor.id, name="laptop", firezone_id="c")
        if verified:
            await devices.set_verified(unit, client.id, True)
        gateway = await create_device(unit, type="gateway", site_id=lab.site.id, name="gw", firezone_id="g")
        [rule] = await rules_of_actor(unit, lab.actor)
        grant = await authorizations.record(
            unit,
            Granted(rule, None),
            token_id=issued.row.id,
            initiating_device_id=client.id,
            receiving_device_id=gateway.id,
            initiator_remote_ip="192.0.2.1",
            initiator_user_agent="x",
            receiver_remote_ip=None,
            expires_at=issued.row.expires_at,
        )
    return World(lab, provider, identity, issued.row, other.row, session, client, grant)
