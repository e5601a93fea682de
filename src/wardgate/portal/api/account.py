"""The account of the token, and the question who reaches what."""

from uuid import UUID

from fastapi import APIRouter

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.objects import AccountOut, Data, ExplanationOut, Limit, Reason
from wardgate.portal.db.accounts import used_of_limits
from wardgate.portal.db.scope import Scope
from wardgate.portal.services.explanations import explain_access

router = APIRouter(tags=["Account"])


async def _limits(scope: Scope, limits: dict[str, int | None]) -> dict[str, Limit]:
    used = await used_of_limits(scope)
    shown = {}
    for kind, count in used.items():
        total = limits.get(f"{kind}_count")
        if total is not None:
            shown[kind] = Limit(used=count, available=max(0, total - count), total=total)
    return shown


@router.get("/account")
async def read_account(caller: Authenticated) -> Data[AccountOut]:
    """Reads the account that the token belongs to."""
    async with caller.db.scoped(caller.subject) as scope:
        row = await scope.account()
        values = {name: getattr(row, name) for name in ("id", "slug", "key", "name", "legal_name")}
        return Data(data=AccountOut.model_validate({**values, "limits": await _limits(scope, row.limits)}))


@router.get("/explain")
async def explain(caller: Authenticated, actor_id: UUID, resource_id: UUID) -> Data[ExplanationOut]:
    """Says whether an actor can reach a resource now, and everything that allows it or stands in its way."""
    async with caller.db.scoped(caller.subject) as scope:
        at = caller.context.clock.utc_now()
        found = await explain_access(scope, str(actor_id), str(resource_id), at, caller.context.presence)
    reasons = [Reason(code=one.code, text=one.text, policy_id=one.policy_id) for one in found.reasons]
    return Data(data=ExplanationOut(allowed=found.can_reach, reasons=reasons))
