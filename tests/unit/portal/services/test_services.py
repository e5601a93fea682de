"""What can be changed, what is refused, and that revocation is deletion."""

from typing import Any

import pytest
from sqlalchemy import select

from tests.unit.portal.helpers import Lab, make_lab
from wardgate.errors import Conflict, Forbidden, InvalidInput, NotFound
from wardgate.portal.db import authorizations
from wardgate.portal.db.access import rules_of_actor
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import (
    ChangeLog,
    ClientToken,
    Group,
    Membership,
    OutboxEntry,
    PolicyAuthorization,
    Resource,
    Site,
)
from wardgate.portal.domain.authorizations import Granted
from wardgate.portal.services import accounts, actors, devices, groups, policies, resources, sites, tokens


async def test_a_new_account_has_what_every_account_has(db: Database) -> None:
    lab = await make_lab(db)

    async with db.scoped(lab.subject) as scope:
        everyone = await scope.all(scope.select(Group).where(Group.type == "managed"))
        internet = await scope.all(scope.select(Resource).where(Resource.type == "internet"))
    assert [one.name for one in everyone] == ["Everyone"]
    assert len(internet) == 1


async def test_a_slug_is_taken_in_any_case(db: Database) -> None:
    await accounts.create_account(db, {"slug": "corp"})

    with pytest.raises(InvalidInput, match="taken"):
        await accounts.create_account(db, {"slug": "CORP"})


async def test_rows_of_another_account_are_not_found(db: Database) -> None:
    lab, other = await make_lab(db), await make_lab(db, slug="other")

    async with db.writing(lab.subject) as unit:
        for call in (
            resources.delete_resource(unit, other.resource.id),
            sites.update_site(unit, other.site.id, {"name": "x"}),
            policies.delete_policy(unit, other.policy.id if other.policy else ""),
            groups.delete_group(unit, other.group.id),
            actors.delete_actor(unit, other.actor.id),
            tokens.create_site_token(unit, other.site.id),
        ):
            with pytest.raises(NotFound):
                await call


async def test_a_policy_cannot_point_into_another_account(db: Database) -> None:
    lab, other = await make_lab(db), await make_lab(db, slug="other")

    async with db.writing(lab.subject) as unit:
        with pytest.raises(InvalidInput, match="group_id"):
            await policies.create_policy(unit, {"group_id": other.group.id, "resource_id": lab.resource.id})
        with pytest.raises(NotFound):
            await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": other.resource.id})


REVOCATIONS: dict[str, Any] = {
    "policy deleted": lambda unit, lab: policies.delete_policy(unit, lab.policy.id),
    "policy disabled": lambda unit, lab: policies.update_policy(unit, lab.policy.id, {"is_disabled": True}),
    "conditions changed": lambda unit, lab: policies.update_policy(
        unit,
        lab.policy.id,
        {"conditions": [{"property": "client_verified", "operator": "is", "values": ["true"]}]},
    ),
    "flow log uploads flipped": lambda unit, lab: policies.update_policy(
        unit, lab.policy.id, {"flow_log_uploads_enabled": False}
    ),
    "group deleted": lambda unit, lab: groups.delete_group(unit, lab.group.id),
    "membership removed": lambda unit, lab: groups.set_members(unit, lab.group.id, []),
    "resource deleted": lambda unit, lab: resources.delete_resource(unit, lab.resource.id),
    "address changed": lambda unit, lab: resources.update_resource(unit, lab.resource.id, {"address": "10.8.0.0/24"}),
    "site deleted": lambda unit, lab: sites.delete_site(unit, lab.site.id),
    "actor disabled": lambda unit, lab: actors.update_actor(unit, lab.actor.id, {"is_disabled": True}),
    "actor deleted": lambda unit, lab: actors.delete_actor(unit, lab.actor.id),
    "token deleted": lambda unit, lab: tokens.delete_client_token(unit, lab.actor.id, lab.client_token_id),
    "account disabled": lambda unit, lab: accounts.set_disabled(unit, True),
}


@pytest.mark.parametrize("name", REVOCATIONS)
async def test_whatever_a_grant_depends_on_takes_it_along(db: Database, name: str) -> None:
    lab = await make_lab(db)
    grant = await make_grant(db, lab)

    async with db.writing(lab.subject) as unit:
        await REVOCATIONS[name](unit, lab)

    async with db.unscoped() as session:
        assert (await session.scalars(select(PolicyAuthorization))).all() == []
        told = (
            await session.scalars(
                select(OutboxEntry).where(
                    OutboxEntry.object == "policy_authorizations", OutboxEntry.operation == "delete"
                )
            )
        ).all()
    assert [entry.before["id"] for entry in told if entry.before] == [grant.id]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Other"},
        {"address_description": "the lab"},
        {"filters": [{"protocol": "tcp", "ports": ["80"]}]},
    ],
)
async def test_a_change_that_needs_no_new_grant_keeps_it(db: Database, fields: dict[str, Any]) -> None:
    lab = await make_lab(db)
    grant = await make_grant(db, lab)

    async with db.writing(lab.subject) as unit:
        await resources.update_resource(unit, lab.resource.id, fields)

    async with db.unscoped() as session:
        assert [row.id for row in (await session.scalars(select(PolicyAuthorization))).all()] == [grant.id]


async def test_rules_reach_users_through_groups_and_through_everyone(db: Database) -> None:
    lab = await make_lab(db, has_policy=False)
    async with db.writing(lab.subject) as unit:
        everyone = (await unit.all(unit.select(Group).where(Group.type == "managed")))[0]
        robot = await actors.create_actor(unit, {"name": "Backup", "type": "service_account"})
        policy = await policies.create_policy(unit, {"group_id": everyone.id, "resource_id": lab.resource.id})

        of_user = await rules_of_actor(unit, lab.actor)
        of_robot = await rules_of_actor(unit, robot)

    assert [(rule.policy_id, rule.membership_id) for rule in of_user] == [(policy.id, None)]
    assert of_robot == []


async def test_a_disabled_policy_is_no_rule(db: Database) -> None:
    lab = await make_lab(db)
    assert lab.policy
    async with db.writing(lab.subject) as unit:
        assert len(await rules_of_actor(unit, lab.actor)) == 1
        await policies.update_policy(unit, lab.policy.id, {"is_disabled": True})
        assert await rules_of_actor(unit, lab.actor) == []


async def test_reversed_and_overlapping_filters_are_refused(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        for ports in (["90 - 80"], ["80", "70-90"], ["0"], ["65536"], ["x"], [""]):
            with pytest.raises(InvalidInput, match="filters"):
                await resources.update_resource(
                    unit, lab.resource.id, {"filters": [{"protocol": "tcp", "ports": ports}]}
                )


async def test_a_group_keeps_the_membership_of_who_stays(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        other = await actors.create_actor(unit, {"name": "Ben", "type": "account_user", "email": "ben@corp.example"})
        before = (await unit.all(unit.select(Membership)))[0].id

        ids = await groups.set_members(unit, lab.group.id, [lab.actor.id, other.id])

        assert ids == sorted([lab.actor.id, other.id])
        assert before in [row.id for row in await unit.all(unit.select(Membership))]


async def test_the_managed_group_and_site_cannot_be_changed(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        everyone = (await unit.all(unit.select(Group).where(Group.type == "managed")))[0]
        internet = (await unit.all(unit.select(Site).where(Site.managed_by == "system")))[0]
        with pytest.raises(Forbidden):
            await groups.delete_group(unit, everyone.id)
        with pytest.raises(Forbidden):
            await groups.set_members(unit, everyone.id, [lab.actor.id])
        with pytest.raises(Forbidden):
            await sites.delete_site(unit, internet.id)


async def test_the_last_admin_stays(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        admin = await actors.create_actor(
            unit, {"name": "Ada", "type": "account_admin_user", "email": "ada@corp.example"}
        )
        with pytest.raises(Conflict):
            await actors.delete_actor(unit, admin.id)
        with pytest.raises(Conflict):
            await actors.update_actor(unit, admin.id, {"is_disabled": True})
        with pytest.raises(Conflict):
            await actors.update_actor(unit, admin.id, {"type": "account_user"})


async def test_unverifying_ends_the_grants_that_need_a_verified_client(db: Database) -> None:
    lab = await make_lab(db)
    grant = await make_grant(db, lab)
    assert lab.policy
    verified = {"property": "client_verified", "operator": "is", "values": ["true"]}
    async with db.writing(lab.subject) as unit:
        await devices.set_verified(unit, grant.initiating_device_id, True)
        await devices.set_verified(unit, grant.initiating_device_id, False)
        assert await unit.find(PolicyAuthorization, grant.id) is not None
        await devices.set_verified(unit, grant.initiating_device_id, True)
        await policies.update_policy(unit, lab.policy.id, {"conditions": [verified]})
        assert await unit.find(PolicyAuthorization, grant.id) is not None
        await devices.set_verified(unit, grant.initiating_device_id, False)
        assert await unit.find(PolicyAuthorization, grant.id) is None


async def test_tunnel_addresses_are_unique_in_an_account(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        some = [await create_device(unit, type="gateway", site_id=lab.site.id, name=str(one)) for one in range(20)]
    assert len({device.ipv4 for device in some}) == 20
    assert len({device.ipv6 for device in some}) == 20
    assert all(len(unseal(db.keyring, device, "psk_base")) == 32 for device in some)


async def test_a_rotated_gateway_token_is_replaced_when_it_was_never_used(db: Database) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        gateway = await sites.create_gateway(unit, lab.site.id, {})
        await tokens.create_gateway_token(unit, gateway.id)
        with pytest.raises(Conflict):
            await tokens.create_gateway_token(unit, gateway.id)
        issued = await tokens.rotate_gateway_token(unit, gateway.id)
        await unit.update(gateway, gateway_token_id=issued.row.id)
        again = await tokens.rotate_gateway_token(unit, gateway.id)
        await tokens.end_rotation(unit, again.row)
        assert await unit.find(type(issued.row), issued.row.id) is None


async def test_devices_forget_a_token_that_is_deleted(db: Database) -> None:
    lab = await make_lab(db)
    grant = await make_grant(db, lab)
    async with db.writing(lab.subject) as unit:
        device = await devices.get_client(unit, grant.initiating_device_id)
        await unit.update(device, client_token_id=lab.client_token_id)
        await tokens.delete_client_tokens(unit, lab.actor.id)
        assert device.client_token_id is None


async def test_changes_are_logged_without_secrets_and_with_their_subject(db: Database) -> None:
    lab = await make_lab(db)
    await make_grant(db, lab)
    async with db.unscoped() as session:
        rows = (await session.scalars(select(ChangeLog))).all()
    assert {row.object for row in rows} >= {"accounts", "actors", "devices", "policies", "client_tokens"}
    assert "policy_authorizations" not in {row.object for row in rows}
    for row in rows:
        after = row.after or {}
        assert after.get("secret_hash", "[redacted]") == "[redacted]"
        assert after.get("psk_base", "[redacted]") == "[redacted]"
        assert len(row.log_id) == 24


async def test_a_failed_unit_leaves_nothing(db: Database) -> None:
    lab = await make_lab(db)

    async def fail() -> None:
        async with db.writing(lab.subject) as unit:
            await sites.create_site(unit, {"name": "Graz"})
            raise RuntimeError("changed our mind")

    with pytest.raises(RuntimeError):
        await fail()
    async with db.scoped(lab.subject) as scope:
        assert [site.name for site in await scope.all(scope.select(Site).where(Site.name == "Graz"))] == []


async def make_grant(db: Database, lab: Lab) -> PolicyAuthorization:
    async with db.writing(lab.subject) as unit:
        client = await create_device(unit, type="client", actor_id=lab.actor.id, name="laptop", firezone_id="c")
        gateway = await create_device(unit, type="gateway", site_id=lab.site.id, name="gw", firezone_id="g")
        [rule] = await rules_of_actor(unit, lab.actor)
        token = await unit.get(ClientToken, lab.client_token_id)
        return await authorizations.record(
            unit,
            Granted(rule, None),
            token_id=token.id,
            initiating_device_id=client.id,
            receiving_device_id=gateway.id,
            initiator_remote_ip="192.0.2.1",
            initiator_user_agent="x",
            receiver_remote_ip=None,
            expires_at=token.expires_at,
        )
