"""Why an actor can or cannot reach a resource, now or at another time: gathers the facts for `domain.explain`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from sqlalchemy import or_

from wardgate.ids import AccountId, GatewayId, GroupId, PolicyId, SiteId
from wardgate.portal.db import authorizations, devices
from wardgate.portal.db.access import policies_about, resource_facts
from wardgate.portal.db.access_tables import RefusedRequest
from wardgate.portal.db.engine import Database
from wardgate.portal.db.purge import LOG_RETENTION
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken, Device, Group, Membership, PolicyAuthorization, Resource
from wardgate.portal.domain.conditions import Circumstances
from wardgate.portal.domain.explain import AccessFacts, Explanation, PolicyFacts, explain
from wardgate.portal.domain.resources import gateway_view
from wardgate.portal.domain.selection import NoGateway, OnlineGateway, choose_gateway
from wardgate.portal.domain.snapshot import (
    AccessSnapshot,
    KnownActor,
    KnownGroup,
    KnownResource,
    actor_of,
    group_of,
    resource_of,
)
from wardgate.portal.domain.subjects import USER_TYPES, Location
from wardgate.portal.services.names import find_actor, find_client, find_resource, known_actor, known_resource


class GatewaysOnline(Protocol):
    """Which gateways are connected now."""

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        """The site's gateways that are connected."""


@dataclass(frozen=True, slots=True)
class Question:
    """Who wants to reach what, when and from where; `None` is as it is now, or as the client was last seen.

    Attributes:
        actor: Its e-mail address, id, or exact name.
        resource: Its id or exact name.
        at: The instant that conditions look at; in the past, policies are those of then.
        as_of: The time whose policies decide, if it is not that of `at`.
        device: The client's id or name; else the one that connected last.
    """

    actor: str
    resource: str
    at: datetime | None = None
    as_of: datetime | None = None
    device: str | None = None
    remote_ip: str | None = None
    region: str | None = None
    is_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class GatewaySeen:
    """A gateway of the resource's site.

    Attributes:
        is_compatible: Whether it can serve this client and this resource, by their versions; unknown if it is offline.
        is_candidate: Whether a request may get it; of several, one is chosen at random.
    """

    id: str
    name: str
    version: str | None
    is_online: bool
    is_compatible: bool | None
    is_candidate: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation, and all that it was made from.

    Attributes:
        as_of: The time whose policies decided, if it is not now.
        gateways: All of the site, unless the question is about another time.
        grant: The client's live authorization for the resource.
        last_refusal: The last request of the actor for the resource that got no access.
    """

    explanation: Explanation
    actor: KnownActor
    resource: KnownResource
    groups: Sequence[KnownGroup]
    device: Device | None
    token: ClientToken | None
    circumstances: Circumstances
    as_of: datetime | None
    site_name: str | None
    gateways: Sequence[GatewaySeen]
    grant: PolicyAuthorization | None
    last_refusal: RefusedRequest | None


@dataclass(frozen=True, slots=True)
class _Account:
    """What access depends on, of now or of then."""

    is_disabled: bool
    actor: KnownActor
    resource: KnownResource
    policies: Sequence[PolicyFacts]
    groups: Sequence[KnownGroup]
    site_name: str | None


async def explain_access(db: Database, scope: Scope, asked: Question, now: datetime, online: GatewaysOnline) -> Answer:
    """Says whether the actor reaches the resource, and why.

    Raises:
        NotFound: There is no such actor, resource or device.
        InvalidInput: Several have that name, or the change log does not reach back to that time.
    """
    at = asked.at or now
    as_of = asked.as_of or (at if at < now else None)
    account = await (_present(scope, asked) if as_of is None else _past(db, scope, asked, as_of, now))
    device = await find_client(scope, account.actor, asked.device)
    token = await _token(scope, device, as_of)
    seen = await _circumstances(scope, device, token, at, as_of)
    circumstances = _as_asked(seen, asked)
    gateways, gateway = ((), None) if as_of else await _gateways(scope, account.resource, device, online)
    facts = AccessFacts(
        actor_name=account.actor.name,
        resource_name=account.resource.name,
        account_is_disabled=account.is_disabled,
        actor_is_disabled=account.actor.is_disabled,
        policies=account.policies,
        circumstances=circumstances,
        gateway=gateway,
        token_expires_at=token.expires_at if token else None,
    )
    return Answer(
        explain(facts),
        account.actor,
        account.resource,
        account.groups,
        device,
        token,
        circumstances,
        as_of,
        account.site_name,
        gateways,
        await authorizations.latest_between(scope, device.id if device else None, account.resource.id, now),
        await scope.session.get(RefusedRequest, (scope.account_id, account.actor.id, account.resource.id)),
    )


async def _present(scope: Scope, asked: Question) -> _Account:
    actor = await find_actor(scope, asked.actor)
    resource = await find_resource(scope, asked.resource)
    account = await scope.account()
    facts = (await resource_facts(scope, [resource.id])).values()
    return _Account(
        account.is_disabled,
        actor_of(_columns(actor)),
        resource_of(_columns(resource)),
        await policies_about(scope, actor, resource.id),
        await _groups(scope, actor),
        next((one.site_name for one in facts), None),
    )


def _columns(row: Actor | Resource | Group) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__table__.columns.keys()}  # noqa: SIM118 — no mapping


async def _groups(scope: Scope, actor: Actor) -> list[KnownGroup]:
    listed = scope.select(Membership).where(Membership.actor_id == actor.id).with_only_columns(Membership.group_id)
    types = ("managed",) if actor.type in USER_TYPES else ()
    is_in = or_(Group.id.in_(listed), Group.type.in_(types))
    rows = await scope.all(scope.select(Group).where(is_in).order_by(Group.name, Group.id).limit(1000))
    return [group_of(_columns(row)) for row in rows]


async def _past(db: Database, scope: Scope, asked: Question, as_of: datetime, now: datetime) -> _Account:
    snapshot = await db.snapshots.as_of(scope, as_of, now, LOG_RETENTION)
    actor = known_actor(snapshot, asked.actor)
    resource = known_resource(snapshot, asked.resource)
    policies = policies_in(snapshot, actor, resource.id)
    groups = sorted(snapshot.groups_with(actor), key=lambda one: (one.name, one.id))
    site_name = snapshot.sites.get(resource.site_id) if resource.site_id else None
    return _Account(snapshot.is_disabled, actor, resource, policies, groups, site_name)


def policies_in(snapshot: AccessSnapshot, actor: KnownActor, resource_id: str) -> list[PolicyFacts]:
    """Every policy of a resource, also those that do not concern the actor, as `policies_about` reads them."""
    facts = []
    for policy_id in snapshot.policies_of_resource.get(resource_id, ()):
        one = snapshot.policies[policy_id]
        group = snapshot.groups.get(one.group_id) if one.group_id else None
        rule = snapshot.rule(one, actor) if snapshot.concerns(one, actor) else None
        group_id = GroupId(one.group_id) if one.group_id else None
        name = group.name if group else None
        facts.append(PolicyFacts(PolicyId(one.id), group_id, name, one.is_disabled, rule, one.conditions))
    return facts


async def _token(scope: Scope, device: Device | None, as_of: datetime | None) -> ClientToken | None:
    if device is None or device.client_token_id is None:
        return None
    token = await scope.find(ClientToken, device.client_token_id)
    return token if token is None or as_of is None or token.inserted_at <= as_of else None


async def _circumstances(
    scope: Scope, device: Device | None, token: ClientToken | None, at: datetime, as_of: datetime | None
) -> Circumstances:
    provider = token.auth_provider_id if token else None
    if device is None:
        return Circumstances(at, auth_provider_id=provider)
    verified_at = device.verified_at if as_of is None else await devices.verified_as_of(scope, device, as_of)
    return Circumstances(
        at,
        remote_ip=device.last_seen_remote_ip,
        region=device.last_seen_remote_ip_location_region,
        auth_provider_id=provider,
        is_verified=verified_at is not None,
    )


def _as_asked(seen: Circumstances, asked: Question) -> Circumstances:
    """What the question says instead of what was seen; of another address nothing else is known."""
    if asked.remote_ip is not None:
        seen = replace(seen, remote_ip=asked.remote_ip, region=None)
    if asked.region is not None:
        seen = replace(seen, region=asked.region)
    if asked.is_verified is not None:
        seen = replace(seen, is_verified=asked.is_verified)
    return seen


async def _gateways(
    scope: Scope, resource: KnownResource, device: Device | None, online: GatewaysOnline
) -> tuple[Sequence[GatewaySeen], OnlineGateway | NoGateway | None]:
    if resource.site_id is None:
        return (), None
    connected = {one.id: one for one in online.gateways_of(scope.account_id, SiteId(resource.site_id))}
    (facts,) = (await resource_facts(scope, [resource.id])).values()
    serving = [one for one in connected.values() if gateway_view(facts, one.version) is not None]
    candidates: list[OnlineGateway] = []

    def choose(some: Sequence[OnlineGateway]) -> OnlineGateway:
        candidates.extend(some)
        return some[0]

    location = Location()
    if device is not None:
        lat, lon = device.last_seen_remote_ip_location_lat, device.last_seen_remote_ip_location_lon
        location = Location(lat=lat, lon=lon)

    def chosen(some: Sequence[OnlineGateway]) -> OnlineGateway | NoGateway:
        return choose_gateway(
            some,
            client_version=device.last_seen_version if device else None,
            client_location=location,
            connected=(),
            is_internet=resource.type == "internet",
            choose=choose,
        )

    compatible = {one.id for one in serving if not isinstance(chosen([one]), NoGateway)}
    candidates.clear()
    gateway = chosen(serving or list(connected.values()))
    eligible = {one.id for one in candidates}
    rows = await scope.all(
        scope.select(Device).where(Device.site_id == resource.site_id).order_by(Device.name, Device.id).limit(1000)
    )
    names = {row.id: row.name for row in rows}
    versions = {row.id: row.last_seen_version for row in rows}
    ids = dict.fromkeys([*names, *connected])
    seen = [
        GatewaySeen(
            one,
            names.get(one, ""),
            connected[one].version if one in connected else versions.get(one),
            one in connected,
            one in compatible if one in connected else None,
            one in eligible,
        )
        for one in map(GatewayId, ids)
    ]
    return seen, gateway
