"""Why an actor can or cannot reach a resource."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from wardgate.errors import InvalidInput
from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.objects import Data, ExplanationOut, Reason
from wardgate.portal.api.policy_tests import aware
from wardgate.portal.api.previews import Named
from wardgate.portal.domain.conditions import parse_conditions
from wardgate.portal.domain.explain import ConditionSeen, PolicySeen, PolicyState
from wardgate.portal.services.explanations import Answer, Question, explain_access

router = APIRouter(tags=["Why and what if"])


class ConditionOut(BaseModel):
    """A condition with what it asks for and what it saw."""

    property: str
    operator: str
    values: list[str]
    seen: str | None = Field(description="In words; null if nothing is known of it.")
    holds: bool
    until: datetime | None = Field(description="When the time range that holds ends.")
    opens_at: datetime | None = Field(description="When a time range that does not hold begins, within two weeks.")


class PolicySeenOut(BaseModel):
    """A policy of the resource, and what came of it."""

    id: UUID
    group: Named | None
    state: PolicyState
    conditions: list[ConditionOut]


class ActorSeen(BaseModel):
    """Who asks."""

    id: UUID
    name: str
    email: str | None
    type: str
    is_disabled: bool
    groups: list[Named]


class DeviceSeen(BaseModel):
    """The client that the answer is about."""

    id: UUID
    name: str
    version: str | None
    last_seen_at: datetime | None
    signed_in_until: datetime | None


class GatewayOut(BaseModel):
    """A gateway of the resource's site."""

    id: UUID
    name: str
    version: str | None
    is_online: bool
    is_compatible: bool | None
    is_candidate: bool = Field(description="Whether a request may get it.")


class ResourceSeen(BaseModel):
    """What is asked for."""

    id: UUID
    name: str
    type: str
    address: str | None
    site: Named | None


class CircumstancesOut(BaseModel):
    """What conditions looked at."""

    at: datetime
    remote_ip: str | None
    region: str | None
    auth_provider_id: UUID | None
    is_verified: bool


class GrantOut(BaseModel):
    """A live authorization of the client for the resource."""

    id: UUID
    policy_id: UUID
    receiving_device_id: UUID
    expires_at: datetime


class RefusalOut(BaseModel):
    """The last request that got no access; `count` are all of them."""

    at: datetime
    reason: str
    violated_properties: list[str]
    device_id: UUID
    remote_ip: str | None
    count: int


class Hint(BaseModel):
    """One thing that would let the actor in."""

    kind: Literal["wait", "join_group", "enable_policy", "verify_client"]
    policy_id: UUID
    group: Named | None
    at: datetime | None = None


class WholeExplanationOut(ExplanationOut):
    """Whether an actor can reach a resource, and everything that was looked at."""

    as_of: datetime | None = Field(description="The time whose policies decided, if it is not now.")
    expires_at: datetime | None = Field(description="When a grant made at that instant would end; null is never.")
    decided_by: UUID | None
    actor: ActorSeen
    resource: ResourceSeen
    device: DeviceSeen | None
    circumstances: CircumstancesOut
    policies: list[PolicySeenOut]
    gateways: list[GatewayOut] = Field(description="Of the resource's site; empty for another time than now.")
    authorization: GrantOut | None
    last_refusal: RefusalOut | None
    hints: list[Hint]


@router.get("/explain")
async def explain(
    caller: Authenticated,
    actor: Annotated[str | None, Query(max_length=255, description="E-mail address, id or exact name.")] = None,
    resource: Annotated[str | None, Query(max_length=255, description="Id or exact name.")] = None,
    actor_id: UUID | None = None,
    resource_id: UUID | None = None,
    at: Annotated[datetime | None, Query(description="In the past, the policies are those of then.")] = None,
    as_of: Annotated[datetime | None, Query(description="The time of the policies, if another than `at`.")] = None,
    device: Annotated[str | None, Query(max_length=255, description="Id or name; else the one seen last.")] = None,
    remote_ip: Annotated[str | None, Query(alias="from", max_length=64, description="Instead of the one seen.")] = None,
    region: Annotated[str | None, Query(max_length=2, description="Instead of the one seen, as `DE`.")] = None,
    verified: Annotated[bool | None, Query(description="Instead of what the device is.")] = None,
) -> Data[WholeExplanationOut]:
    """Says whether an actor can reach a resource, and everything that allows it or stands in its way."""
    who, what = str(actor_id or actor or ""), str(resource_id or resource or "")
    missing = [name for name, value in (("actor", who), ("resource", what)) if not value]
    if missing:
        raise InvalidInput({name: ["can't be blank"] for name in missing})
    address = None if remote_ip is None else _checked("remote_ip", "is_in_cidr", remote_ip, "from")
    country = None if region is None else _checked("remote_ip_location_region", "is_in", region, "region")
    asked = Question(who, what, aware(at), aware(as_of), device, address, country, verified)
    if caller.context.refusals is not None:
        await caller.context.refusals.flush()
    async with caller.db.scoped(caller.subject) as scope:
        now = caller.context.clock.utc_now()
        found = await explain_access(caller.db, scope, asked, now, caller.context.presence)
    return Data(data=_shown(found))


def _checked(property_name: str, operator: str, value: str, field: str) -> str:
    try:
        (found,) = parse_conditions([{"property": property_name, "operator": operator, "values": [value]}])
    except InvalidInput as error:
        raise InvalidInput({field: [text for texts in error.fields.values() for text in texts]}) from None
    if "/" in found.values[0]:
        raise InvalidInput({field: ["is a network, not an address"]})
    return found.values[0]


def _shown(found: Answer) -> WholeExplanationOut:
    explanation, device, resource = found.explanation, found.device, found.resource
    granted, grant, refusal = explanation.granted, found.grant, found.last_refusal
    site = Named(id=UUID(resource.site_id), name=found.site_name or "") if resource.site_id else None
    return WholeExplanationOut(
        allowed=explanation.can_reach,
        reasons=[Reason(code=one.code, text=one.text, policy_id=_id(one.policy_id)) for one in explanation.reasons],
        as_of=found.as_of,
        expires_at=granted.expires_at if granted else None,
        decided_by=UUID(granted.rule.policy_id) if granted else None,
        actor=ActorSeen.model_validate(
            {
                **{name: getattr(found.actor, name) for name in ("id", "name", "email", "type", "is_disabled")},
                "groups": [{"id": one.id, "name": one.name} for one in found.groups],
            }
        ),
        resource=ResourceSeen(
            id=UUID(resource.id), name=resource.name, type=resource.type, address=resource.address, site=site
        ),
        device=_device(found) if device else None,
        circumstances=CircumstancesOut.model_validate(found.circumstances, from_attributes=True),
        policies=[_policy(one) for one in explanation.policies],
        gateways=[GatewayOut.model_validate(one, from_attributes=True) for one in found.gateways],
        authorization=GrantOut.model_validate(grant, from_attributes=True) if grant else None,
        last_refusal=RefusalOut.model_validate(refusal, from_attributes=True) if refusal else None,
        hints=[] if granted else [hint for one in explanation.policies if (hint := _hint(one)) is not None],
    )


def _id(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)


def _device(found: Answer) -> DeviceSeen:
    device: Any = found.device
    until = found.token.expires_at if found.token else None
    seen = {"id": device.id, "name": device.name, "version": device.last_seen_version}
    return DeviceSeen.model_validate({**seen, "last_seen_at": device.last_seen_at, "signed_in_until": until})


def _policy(one: PolicySeen) -> PolicySeenOut:
    conditions = [_condition(each) for each in one.conditions]
    return PolicySeenOut(id=UUID(one.policy_id), group=_group(one), state=one.state, conditions=conditions)


def _group(one: PolicySeen) -> Named | None:
    return Named(id=UUID(one.group_id), name=one.group_name or "") if one.group_id else None


def _condition(one: ConditionSeen) -> ConditionOut:
    stored = one.condition.stored()
    return ConditionOut(**stored, seen=one.seen, holds=one.holds, until=one.until, opens_at=one.opens_at)


def _hint(one: PolicySeen) -> Hint | None:
    """What alone would let the actor in by this policy."""
    failed = [each for each in one.conditions if not each.holds]
    policy_id, group = UUID(one.policy_id), _group(one)
    if one.state == "not_in_group" and not failed:
        return Hint(kind="join_group", policy_id=policy_id, group=group)
    if one.state == "disabled" and not failed:
        return Hint(kind="enable_policy", policy_id=policy_id, group=group)
    if one.state == "conditions_violated" and len(failed) == 1:
        if failed[0].condition.property == "client_verified":
            return Hint(kind="verify_client", policy_id=policy_id, group=group)
        if failed[0].opens_at is not None:
            return Hint(kind="wait", policy_id=policy_id, group=group, at=failed[0].opens_at)
    return None
