"""Rows about the ways to sign in: what came in through a provider or an identity ends with it, and no more."""

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.portal.live.fold import fold_client
from tests.unit.portal.live.test_changes import DELETED, ENDS_MIA, GONE, REJECT, UPDATED, Step, apply, change_policy
from tests.unit.portal.live.world import World
from wardgate.portal.db.identity_tables import Directory, ExternalIdentity
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Group, Membership
from wardgate.portal.services import actors, policies, providers, resources, sessions, tokens

ENDS_TABLET = {"tablet": GONE, "gw-vienna": [f"{REJECT} tablet lab"]}


@pytest.fixture
async def signed_in(world: World) -> World:
    """Mia has a tablet besides, signed in through a provider, with a grant."""
    async with world.change() as unit:
        provider = await providers.create_provider(unit, "google", {"issuer": "https://accounts.google.com"})
        later = (unit.at + timedelta(days=7)).isoformat()
        issued = await tokens.create_client_token(
            unit,
            world.id("mia"),
            {"expires_at": later},
            auth_provider_id=provider.id,
            actor_types=("account_user",),
        )
        identity = ExternalIdentity(
            account_id=unit.account_id, actor_id=world.id("mia"), issuer=provider.issuer, idp_id="mia@corp.example"
        )
        await unit.insert(identity)
    world.tenants["corp"].ids |= {"provider": provider.id, "identity": identity.id}
    await world.connect_client("tablet", issued.text)
    await world.granted("tablet", "lab", gateway="gw-vienna")
    await world.mark()
    return world


def change_provider(**fields: Any) -> Step:
    return lambda world, unit: providers.update_provider(unit, world.id("provider"), fields)


async def delete_identity(world: World, unit: UnitOfWork) -> None:
    await sessions.delete_identity(unit, await unit.get(ExternalIdentity, world.id("identity")))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (change_provider(is_disabled=True), ENDS_TABLET),
        (change_provider(name="Work"), {}),
        (change_provider(client_session_lifetime_secs=7200), {}),
        (lambda world, unit: providers.delete_provider(unit, world.id("provider")), ENDS_TABLET),
        (delete_identity, ENDS_TABLET),
        (
            lambda world, unit: actors.update_actor(unit, world.id("mia"), {"email": "mia@other.example"}),
            ENDS_TABLET,
        ),
        (lambda world, unit: actors.update_actor(unit, world.id("mia"), {"email": "MIA@corp.example"}), {}),
        (
            lambda world, unit: actors.update_actor(unit, world.id("mia"), {"is_disabled": True}),
            {
                **ENDS_MIA,
                "tablet": GONE,
                "gw-vienna": sorted([*ENDS_MIA["gw-vienna"], f"{REJECT} tablet lab"]),
            },
        ),
    ],
    ids=[
        "provider disabled",
        "provider renamed",
        "other lifetimes",
        "provider deleted",
        "identity deleted",
        "another e-mail address",
        "the same e-mail address in capitals",
        "actor disabled",
    ],
)
async def test_what_came_in_another_way_stays(signed_in: World, change: Step, expected: dict[str, list[str]]) -> None:
    await apply(signed_in, change)

    assert await signed_in.told() == expected


async def test_a_condition_on_the_provider_is_about_how_each_client_signed_in(signed_in: World) -> None:
    condition = {"property": "auth_provider_id", "operator": "is_in", "values": [signed_in.id("provider")]}

    await apply(signed_in, change_policy("p-lab", conditions=[condition]))

    assert await signed_in.told() == {
        "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab"],
        "laptop": [f"{DELETED} lab"],
        "phone": [f"{DELETED} lab"],
    }
    assert signed_in.id("lab") in fold_client(signed_in.peers["tablet"]).granted


async def test_a_directory_takes_its_groups_along_but_not_what_others_give(world: World) -> None:
    """Mia is in a synced group that may reach the spare network, and in one for the lab, which she has anyhow."""
    async with world.change() as unit:
        directory = Directory(account_id=unit.account_id, type="okta", name="Okta", external_key="corp", settings={})
        await unit.insert(directory)
        for name, resource in (("Synced one", "spare"), ("Synced two", "lab")):
            group = Group(account_id=unit.account_id, name=name, directory_id=directory.id, idp_id=name)
            await unit.insert(group)
            await unit.insert(Membership(account_id=unit.account_id, actor_id=world.id("mia"), group_id=group.id))
            await policies.create_policy(unit, {"group_id": group.id, "resource_id": world.id(resource)})
    await world.quiesce()
    await world.granted("phone", "spare", gateway="gw-vienna")
    await apply(world, lambda world, unit: policies.delete_policy(unit, world.id("p-lab")))
    await world.mark()

    async with world.change() as unit:
        await providers.delete_directory(unit, directory.id)

    assert await world.told() == {
        "gw-vienna": [f"{REJECT} laptop lab", f"{REJECT} phone lab", f"{REJECT} phone spare"],
        "laptop": [f"{DELETED} spare", f"{DELETED} lab"],
        "phone": [f"{DELETED} spare", f"{DELETED} lab"],
    }


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("Debian/12.0.0 headless-client/1.5.11 (x86_64; 6.18)", [f"{UPDATED} wiki"]),
        ("Debian/12.0.0 headless-client/1.5.4 (x86_64; 6.18)", [f"{DELETED} wiki", f"{UPDATED} wiki"]),
        ("Ubuntu/24.4.0 gui-client/1.5.8 (x86_64; 6.18)", [f"{DELETED} wiki", f"{UPDATED} wiki"]),
        ("Ubuntu/24.4.0 gui-client/1.5.9 (x86_64; 6.18)", [f"{UPDATED} wiki"]),
    ],
)
async def test_a_resource_that_moves_is_deleted_first_for_clients_that_are_old(
    world: World, agent: str, expected: list[str]
) -> None:
    await world.come_back("phone", agent=agent)
    await world.mark()

    async with world.change() as unit:
        await resources.update_resource(unit, world.id("wiki"), {"site_id": world.id("vienna")})

    assert await world.told() == {"laptop": [f"{UPDATED} wiki"], "phone": expected}
