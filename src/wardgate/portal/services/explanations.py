"""Why an actor can or cannot reach a resource now: gathers the facts for `domain.explain`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from wardgate.ids import AccountId, SiteId
from wardgate.portal.db.access import policies_about
from wardgate.portal.db.devices import latest_client
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, Device, Resource
from wardgate.portal.domain.conditions import Circumstances
from wardgate.portal.domain.explain import AccessFacts, Explanation, explain
from wardgate.portal.domain.selection import NoGateway, OnlineGateway, choose_gateway
from wardgate.portal.domain.subjects import Location


class GatewaysOnline(Protocol):
    """Which gateways are connected now."""

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        """The site's gateways that are connected."""


async def explain_access(
    scope: Scope, actor_id: str, resource_id: str, at: datetime, online: GatewaysOnline
) -> Explanation:
    """Says whether the actor, with the device it used last, reaches the resource, and why.

    Raises:
        NotFound: There is no such actor or resource.
    """
    actor = await scope.get(Actor, actor_id)
    resource = await scope.get(Resource, resource_id)
    device = await latest_client(scope, actor.id)
    account = await scope.account()
    facts = AccessFacts(
        actor_name=actor.name,
        resource_name=resource.name,
        account_is_disabled=account.is_disabled,
        actor_is_disabled=actor.is_disabled,
        policies=await policies_about(scope, actor, resource.id),
        circumstances=_circumstances(device, at),
        gateway=_gateway(scope, resource, device, online),
    )
    return explain(facts)


def _circumstances(device: Device | None, at: datetime) -> Circumstances:
    if device is None:
        return Circumstances(at)
    return Circumstances(
        at,
        remote_ip=device.last_seen_remote_ip,
        region=device.last_seen_remote_ip_location_region,
        is_verified=device.verified_at is not None,
    )


def _gateway(
    scope: Scope, resource: Resource, device: Device | None, online: GatewaysOnline
) -> OnlineGateway | NoGateway | None:
    if resource.site_id is None:
        return None
    return choose_gateway(
        online.gateways_of(scope.account_id, SiteId(resource.site_id)),
        client_version=device.last_seen_version if device else None,
        client_location=Location(),
        connected=(),
        is_internet=resource.type == "internet",
        choose=lambda some: some[0],
    )
