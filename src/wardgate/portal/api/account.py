"""The account of the token, and the question who reaches what."""

from datetime import datetime

from fastapi import APIRouter

from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.objects import AccountOut, Data, ExplanationOut, Id, Limit, Reason
from wardgate.portal.db.accounts import used_of_limits
from wardgate.portal.db.scope import Scope
from wardgate.portal.domain.limits import limit_of
from wardgate.portal.services.explanations import explain_access

router = APIRouter(tags=["Account"])


async def _limits(scope: Scope, limits: dict[str, int | None], at: datetime) -> dict[str, Limit]:
    used = await used_of_limits(scope, at)
    shown = {}
    for kind, count in used.items():
        total = limit_of(limits, kind)
        if total is not None:
            shown[kind] = Limit(used=count, available=max(0, total - count), total=total)
    return shown


@router.get("/account")
async def read_account(caller: Authenticated) -> Data[AccountOut]:
    """Reads the account that the token belongs to."""
    async with caller.reading() as scope:
        row = await scope.account()
        values = {name: getattr(row, name) for name in ("id", "slug", "key", "name", "legal_name")}
        limits = await _limits(scope, row.limits, caller.context.clock.utc_now())
        return caller.found(AccountOut.model_validate({**values, "limits": limits}))


@router.get("/explain")
async def explain(caller: Authenticated, actor_id: Id, resource_id: Id) -> Data[ExplanationOut]:
    """Says whether an actor can reach a resource now, and everything that allows it or stands in its way."""
    async with caller.reading() as scope:
        at = caller.context.clock.utc_now()
        found = await explain_access(scope, str(actor_id), str(resource_id), at, caller.context.presence)
    reasons = [Reason(code=one.code, text=one.text, policy_id=one.policy_id) for one in found.reasons]
    return Data(data=ExplanationOut(allowed=found.can_reach, reasons=reasons))
