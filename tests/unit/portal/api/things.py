"""One of everything in an account, by the names that paths have for their ids."""

from uuid import uuid4

from tests.unit.portal.api.conftest import Portal
from wardgate.ids import AccountId
from wardgate.portal.db.accounts import find_account
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.identity_tables import AuthProvider, Directory, ExternalIdentity, PostureDevice, PostureProvider
from wardgate.portal.db.tables import Device, new_id
from wardgate.portal.domain.subjects import system


async def make_things(portal: Portal, slug: str = "corp") -> dict[str, str]:
    """Makes them; the account may have others already."""
    mark = uuid4().hex[:8]
    site = await portal.make("site", name=f"site {mark}")
    group = await portal.make("group", name=f"group {mark}")
    actor = await portal.make("actor", name="Backup", type="service_account")
    address = {"type": "dns", "address": f"{mark}.corp.example", "site_id": site["id"]}
    resource = await portal.make("resource", name="Wiki", **address)
    policy = await portal.make("policy", group_id=group["id"], resource_id=resource["id"])
    path = f"/sites/{site['id']}"
    gateway = (await portal.ask("POST", f"{path}/gateways", status=201))["data"]
    tokens = {"client_token": {"expires_at": "2099-01-01T00:00:00Z"}}
    token = (await portal.ask("POST", f"/actors/{actor['id']}/client_tokens", tokens, status=201))["data"]
    client, identity = await _rows(portal, slug, actor["id"], mark)
    return {
        "site_id": site["id"],
        "group_id": group["id"],
        "actor_id": actor["id"],
        "resource_id": resource["id"],
        "policy_id": policy["id"],
        "gateway_id": gateway["id"],
        "token_id": token["id"],
        "client_id": client,
        "identity_id": identity,
    }


async def _rows(portal: Portal, slug: str, actor_id: str, mark: str) -> tuple[str, str]:
    account = await find_account(portal.db, slug)
    assert account is not None
    async with portal.db.writing(system(AccountId(account.id))) as unit:
        device: Device = await create_device(unit, type="client", actor_id=actor_id, name="laptop", firezone_id=mark)
        identity = ExternalIdentity(
            account_id=account.id,
            id=new_id(),
            actor_id=actor_id,
            issuer=f"https://{mark}.example",
            idp_id=f"oidc:{mark}",
        )
        await unit.insert(identity)
    return device.id, identity.id


async def make_providers(portal: Portal, slug: str = "corp") -> dict[str, str]:
    """One provider, directory and inventory of each kind, by the first part of their paths."""
    account = await find_account(portal.db, slug)
    assert account is not None
    common = {"account_id": account.id, "sealed_secret": b"sealed"}
    made: dict[str, str] = {}
    async with portal.db.writing(system(AccountId(account.id))) as unit:
        for kind, settings, client_id in (
            ("google", {}, None),
            ("entra", {"email_claim": "email"}, None),
            ("okta", {"okta_domain": "corp.okta.com"}, "okta-client"),
            ("oidc", {"discovery_document_uri": "https://id.example/.well-known/openid-configuration"}, "oidc-client"),
        ):
            row = AuthProvider(
                **common,
                id=new_id(),
                type=kind,
                name=kind,
                issuer=f"https://{kind}",
                settings=settings,
                client_id=client_id,
            )
            await unit.insert(row)
            made[f"{kind}_auth_providers"] = row.id
        for kind, key in (("google", "corp.example"), ("entra", "tenant"), ("okta", "corp.okta.com")):
            directory = Directory(**common, id=new_id(), type=kind, name=kind, external_key=key)
            await unit.insert(directory)
            made[f"{kind}_directories"] = directory.id
        for kind, settings in (("intune", {}), ("iru", {"subdomain": "corp", "region": "eu"})):
            provider = PostureProvider(
                **common, id=new_id(), type=kind, name=kind, external_key="corp", is_verified=True, settings=settings
            )
            await unit.insert(provider)
            device = PostureDevice(
                account_id=account.id,
                id=new_id(),
                type=kind,
                posture_provider_id=provider.id,
                name="laptop",
                inventory={"name": "laptop", "is_encrypted": True},
            )
            await unit.insert(device)
            made |= {f"{kind}_posture_providers": provider.id, f"{kind}_devices": device.id}
    return made
