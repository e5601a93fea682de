"""A clock that stands still, and an account with one of everything."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from wardgate.ids import AccountId
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Account, Actor, Group, Policy, Resource, Site
from wardgate.portal.domain import subjects
from wardgate.portal.domain.subjects import Subject
from wardgate.portal.services import accounts, actors, groups, policies, resources, sites, tokens

SECRET_KEY: Final = "d2FyZGdhdGUgc2VjcmV0IGtleSBvZiB0aGUgdGVzdHM="


@dataclass
class _Timer:
    at: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualClock:
    """Time that passes when a test says so."""

    def __init__(self, start: datetime = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) -> None:
        self._start = start
        self._now = 1000.0
        self._timers: list[_Timer] = []

    def utc_now(self) -> datetime:
        return self._start + timedelta(seconds=self._now - 1000.0)

    def now(self) -> float:
        return self._now

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(self._now + delay_s, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Lets time pass and calls what falls due, in order."""
        end = self._now + seconds
        while due := [one for one in self._timers if one.at <= end and not one.is_cancelled]:
            first = min(due, key=lambda one: one.at)
            self._timers.remove(first)
            self._now = max(self._now, first.at)
            first.callback()
        self._timers = [one for one in self._timers if not one.is_cancelled]
        self._now = end


@dataclass
class Lab:
    """An account with a site, a user in a group, a resource, and a policy if asked for."""

    account: Account
    site: Site
    actor: Actor
    group: Group
    resource: Resource
    policy: Policy | None
    subject: Subject
    client_token: str
    client_token_id: str
    site_token: str
    site_token_id: str


async def make_lab(
    db: Database,
    *,
    slug: str = "corp",
    has_policy: bool = True,
    resource: dict[str, Any] | None = None,
    conditions: list[dict[str, Any]] | None = None,
) -> Lab:
    """Makes an account through the services."""
    account = await accounts.create_account(db, {"slug": slug})
    subject = subjects.system(AccountId(account.id))
    async with db.writing(subject) as unit:
        site = await sites.create_site(unit, {"name": "Vienna"})
        actor = await actors.create_actor(unit, {"name": "Mia", "type": "account_user", "email": f"mia@{slug}.example"})
        group = await groups.create_group(unit, {"name": "Engineering"})
        await groups.change_members(unit, group.id, add=[actor.id])
        fields = {"name": "Lab", "type": "cidr", "address": "10.9.0.0/24", **(resource or {})}
        row = await resources.create_resource(unit, {"site_id": site.id, **fields})
        policy = None
        if has_policy:
            policy = await policies.create_policy(
                unit, {"group_id": group.id, "resource_id": row.id, "conditions": conditions or []}
            )
        expires_at = (unit.at + timedelta(days=7)).isoformat()
        client = await tokens.create_client_token(
            unit, actor.id, {"expires_at": expires_at}, actor_types=("account_user",)
        )
        gateway = await tokens.create_site_token(unit, site.id)
    return Lab(
        account, site, actor, group, row, policy, subject, client.text, client.row.id, gateway.text, gateway.row.id
    )
