"""Policies."""

from typing import Annotated

from fastapi import APIRouter, Body

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import SortedPaged, page_of
from wardgate.portal.api.objects import Data, Id, Page, PolicyIn, PolicyNew, PolicyOut
from wardgate.portal.api.routing import updates
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Policy
from wardgate.portal.services import policies

router = APIRouter(tags=["Policies"])


async def _one(scope: Scope, policy_id: Id) -> PolicyOut:
    return PolicyOut.model_validate(await scope.get(Policy, str(policy_id)))


@router.get("/policies")
async def list_policies(
    caller: Authenticated,
    place: SortedPaged,
    group_id: Id | None = None,
    resource_id: Id | None = None,
    is_disabled: bool | None = None,
) -> Page[PolicyOut]:
    """Lists policies."""
    only = {"group_id": group_id, "resource_id": resource_id, "is_disabled": is_disabled}
    async with caller.reading() as scope:
        return await page_of(scope, Policy, place, PolicyOut.model_validate, equal=only)


@router.get("/policies/{policy_id}")
async def read_policy(caller: Authenticated, policy_id: Id) -> Data[PolicyOut]:
    """Reads a policy."""
    async with caller.reading() as scope:
        return caller.found(await _one(scope, policy_id))


@router.post("/policies", status_code=201)
async def create_policy(caller: Authenticated, policy: Annotated[PolicyNew, Body(embed=True)]) -> Data[PolicyOut]:
    """Lets a group reach a resource."""
    async with caller.writing() as unit:
        row = await policies.create_policy(unit, policy.given())
    return caller.created(PolicyOut.model_validate(row), f"/policies/{row.id}")


@updates(router, "/policies/{policy_id}")
async def update_policy(
    caller: Authenticated, policy_id: Id, policy: Annotated[PolicyIn, Body(embed=True)]
) -> Data[PolicyOut]:
    """Changes a policy; `conditions` replaces the whole list."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, policy_id))
        row = await policies.update_policy(unit, str(policy_id), policy.given())
    return caller.found(PolicyOut.model_validate(row))


@router.delete("/policies/{policy_id}")
async def delete_policy(caller: Authenticated, policy_id: Id) -> Data[PolicyOut]:
    """Deletes a policy: access ends at once."""
    async with caller.writing() as unit:
        await caller.expect(lambda: _one(unit, policy_id))
        return Data(data=PolicyOut.model_validate(await policies.delete_policy(unit, str(policy_id))))
