"""Policies."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Response

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import Data, Page, PolicyIn, PolicyOut
from wardgate.portal.db.tables import Policy
from wardgate.portal.services import policies

router = APIRouter(tags=["Policies"])
PolicyBody = Annotated[PolicyIn, Body(embed=True)]


@router.get("/policies")
async def list_policies(
    caller: Authenticated, place: Paged, group_id: UUID | None = None, resource_id: UUID | None = None
) -> Page[PolicyOut]:
    """Lists policies."""
    only = {
        name: str(value) if value else None for name, value in (("group_id", group_id), ("resource_id", resource_id))
    }
    async with caller.db.scoped(caller.subject) as scope:
        return await page_of(scope, Policy, place, PolicyOut.model_validate, equal=only)


@router.get("/policies/{policy_id}")
async def read_policy(caller: Authenticated, policy_id: UUID) -> Data[PolicyOut]:
    """Reads a policy."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=PolicyOut.model_validate(await scope.get(Policy, str(policy_id))))


@router.post("/policies", status_code=201)
async def create_policy(caller: Authenticated, policy: PolicyBody, response: Response) -> Data[PolicyOut]:
    """Lets a group reach a resource."""
    async with caller.db.writing(caller.subject) as unit:
        row = await policies.create_policy(unit, policy.given())
    response.headers["Location"] = f"/policies/{row.id}"
    return Data(data=PolicyOut.model_validate(row))


@router.patch("/policies/{policy_id}")
@router.put("/policies/{policy_id}", include_in_schema=False)
async def update_policy(caller: Authenticated, policy_id: UUID, policy: PolicyBody) -> Data[PolicyOut]:
    """Changes a policy; `conditions` replaces the whole list."""
    async with caller.db.writing(caller.subject) as unit:
        row = await policies.update_policy(unit, str(policy_id), policy.given())
    return Data(data=PolicyOut.model_validate(row))


@router.delete("/policies/{policy_id}")
async def delete_policy(caller: Authenticated, policy_id: UUID) -> Data[PolicyOut]:
    """Deletes a policy: access ends at once."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=PolicyOut.model_validate(await policies.delete_policy(unit, str(policy_id))))
