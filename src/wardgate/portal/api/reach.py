"""Who reaches what."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged
from wardgate.portal.api.objects import ConditionObject, Metadata
from wardgate.portal.api.places import slice_of
from wardgate.portal.api.policy_tests import aware
from wardgate.portal.api.previews import Named
from wardgate.portal.db.authorizations import policies_in_use
from wardgate.portal.db.snapshots import read_revision
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services.policy_tests import snapshot_at
from wardgate.portal.services.reaching import ReachPair, reach

router = APIRouter(tags=["Why and what if"])


class ReachPolicy(BaseModel):
    """A policy that allows it."""

    id: UUID
    group: Named
    conditions: list[ConditionObject]
    in_use: int = Field(description="How many authorizations it has given that last; 0 for another time than now.")


class ReachOut(BaseModel):
    """An actor who reaches a resource."""

    actor: Named
    resource: Named
    site: Named | None
    is_always: bool = Field(description="Whether one of the policies has no conditions.")
    policies: list[ReachPolicy]


class ReachPage(BaseModel):
    """A page of pairs."""

    data: list[ReachOut]
    metadata: Metadata
    is_complete: bool = Field(description="False if there are more pairs than are counted.")
    actors: int = Field(description="How many actors there are among all pairs.")
    resources: int = Field(description="How many resources there are among all pairs.")
    as_of: datetime | None


@router.get("/reach")
async def list_reach(
    caller: Authenticated,
    place: Paged,
    actor: UUID | None = None,
    group: UUID | None = None,
    resource: UUID | None = None,
    site: UUID | None = None,
    as_of: Annotated[datetime | None, Query(description="Another time, which the change log reaches back to.")] = None,
) -> ReachPage:
    """Lists who reaches what by which policies, whatever their conditions: of an actor, group, resource or site."""
    at = aware(as_of)
    now = caller.context.clock.utc_now()
    async with caller.db.scoped(caller.subject) as scope:
        snapshot = await snapshot_at(caller.db, scope, now, at)
        revision = await read_revision(scope)
        pairs, is_complete = reach(
            snapshot,
            actor_id=_text(actor),
            group_id=_text(group),
            resource_id=_text(resource),
            site_id=_text(site),
        )
        some, metadata = slice_of(pairs, place, f"{at or revision}")
        ids = {policy for one in some for policy in one.policy_ids}
        used = await policies_in_use(scope, ids, now) if at is None else {}
    return ReachPage(
        data=[_shown(snapshot, one, used) for one in some],
        metadata=metadata,
        is_complete=is_complete,
        actors=len({one.actor_id for one in pairs}),
        resources=len({one.resource_id for one in pairs}),
        as_of=at,
    )


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _shown(snapshot: AccessSnapshot, pair: ReachPair, used: dict[str, int]) -> ReachOut:
    actor, resource = snapshot.actors[pair.actor_id], snapshot.resources[pair.resource_id]
    site = resource.site_id
    policies = [snapshot.policies[one] for one in pair.policy_ids]
    return ReachOut(
        actor=Named(id=UUID(actor.id), name=actor.name),
        resource=Named(id=UUID(resource.id), name=resource.name),
        site=Named(id=UUID(site), name=snapshot.sites.get(site, "")) if site else None,
        is_always=any(not one.conditions for one in policies),
        policies=[
            ReachPolicy(
                id=UUID(one.id),
                group=Named(id=UUID(one.group_id), name=snapshot.groups[one.group_id].name),
                conditions=[ConditionObject.model_validate(each.stored()) for each in one.conditions],
                in_use=used.get(one.id, 0),
            )
            for one in policies
            if one.group_id is not None
        ],
    )
