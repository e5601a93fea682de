"""Lists of resources, computed for many clients at once from what they share.

Policies and resources are read once for all clients of an account and kept; a resource is made into a message once for
all that see it alike. What is kept is only as good as the changes that were dispatched: `forget` is called for each of
them before any client is told to look again, and what was read meanwhile is not kept. So a list may be as old as the
last change that was dispatched, never older; and decisions about access do not use it.

A change of few resources comes as a `Patch`: read once, applied to each client that it concerns without waiting.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from wardgate.errors import NotFound
from wardgate.ids import AccountId, ResourceId
from wardgate.portal.channels.listed import Listed
from wardgate.portal.clock import Clock
from wardgate.portal.db import access, authorizations, listing
from wardgate.portal.db.authorizations import NOTHING_PAST, Past
from wardgate.portal.db.engine import Database
from wardgate.portal.db.listing import GroupRule, Standing
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import PolicyAuthorization
from wardgate.portal.domain import subjects
from wardgate.portal.domain.authorizations import Granted, PolicyRule, authorize
from wardgate.portal.domain.conditions import Circumstances, Condition
from wardgate.portal.domain.resources import ResourceFacts
from wardgate.portal.domain.subjects import USER_TYPES
from wardgate.portal.domain.versions import Sight

if TYPE_CHECKING:
    from wardgate.portal.channels.client import ClientChannel

MAX_BATCH: Final = 200
MAX_AGE_S: Final = 600.0
SHARED: Final = frozenset(
    {"policies", "groups", "resources", "static_device_pool_members", "sites", "devices", "accounts"}
)
"""The tables that lists are made of, besides what is each client's own."""
MAX_PATCHED: Final = 50
"""A change of more resources than this makes clients compute their whole list."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a client may reach at this moment.

    Attributes:
        at: The moment.
        conditions: All that its policies name.
    """

    at: datetime
    standing: Standing
    listed: dict[ResourceId, Listed]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the init of a client is made of.

    Attributes:
        has_token: Whether its token is still there.
        config: The account's.
        grants: By which others reach it.
        past: What it had when it last was here.
    """

    look: Look
    has_token: bool
    config: dict[str, Any]
    grants: Sequence[PolicyAuthorization]
    past: Past


@dataclass(frozen=True, slots=True)
class _Ask:
    """A client that waits for its list, or for all that its init needs."""

    channel: "ClientChannel"
    found: "asyncio.Future[Beginning]"
    begins: bool


@dataclass(frozen=True, slots=True)
class Patch:
    """Some resources, and by which policies whose members may reach them now.

    Attributes:
        rules: Of each of these resources, also of those that nobody may reach.
        everyone: The group that needs no membership.
    """

    rules: Mapping[ResourceId, tuple[PolicyRule, ...]]
    members: Mapping[str, Collection[str]]
    everyone: str | None
    see: Callable[[ResourceId, Sight], Listed | None]

    def rules_for(self, resource_id: ResourceId, actor_id: str, actor_type: str) -> list[PolicyRule]:
        """The policies for a resource that concern an actor."""
        return [
            rule
            for rule in self.rules[resource_id]
            if actor_id in self.members.get(rule.group_id, ())
            or (rule.group_id == self.everyone and actor_type in USER_TYPES)
        ]


def may_reach(rules: Collection[PolicyRule], now: Callable[[], Circumstances]) -> bool:
    """Whether any of the rules for one resource holds; circumstances are asked for only if they matter."""
    if any(not rule.conditions for rule in rules):
        return True
    return bool(rules) and isinstance(authorize(list(rules), now()), Granted)


class Lists:
    """The lists of all clients of this portal."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._accounts: dict[AccountId, _Account] = {}

    async def look(self, channel: "ClientChannel") -> Look:
        """Computes one client's whole list, together with those of others that ask in the meantime.

        Raises:
            NotFound: The client or its account is gone.
        """
        return (await self._account(channel.account_id).ask(channel, begins=False)).look

    async def begin(self, channel: "ClientChannel") -> Beginning:
        """The same, with all else that an init needs.

        Raises:
            NotFound: The client or its account is gone.
        """
        return await self._account(channel.account_id).ask(channel, begins=True)

    async def patch(
        self, scope: Scope, resource_ids: Collection[str], actor_ids: Callable[[], Collection[str]]
    ) -> Patch:
        """Reads what is true of some resources now.

        Args:
            actor_ids: Whom the patch is for; others may be missing in it.
        """
        return await self._account(scope.account_id).patch(scope, resource_ids, actor_ids)

    def forget(self, account_id: AccountId, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows of a table were changed: these are both sides of each."""
        account = self._accounts.get(account_id)
        if account is not None:
            account.forget(kind, rows)

    def forget_all(self, account_id: AccountId | None = None) -> None:
        """Changes were missed: everything is read anew."""
        for one in [account_id] if account_id is not None else list(self._accounts):
            account = self._accounts.get(one)
            if account is not None:
                account.clear()

    def _account(self, account_id: AccountId) -> "_Account":
        account = self._accounts.get(account_id)
        if account is None:
            account = self._accounts[account_id] = _Account(account_id, self._db, self._clock)
        return account


class _Account:
    """What the clients of one account share."""

    def __init__(self, account_id: AccountId, db: Database, clock: Clock) -> None:
        self._account_id = account_id
        self._db = db
        self._clock = clock
        self._generation = 0
        self._waiting: list[_Ask] = []
        self._worker: asyncio.Task[None] | None = None
        self.clear()

    def clear(self) -> None:
        """Keeps nothing."""
        self._generation += 1
        self._read_at = self._clock.now()
        self._everyone: str | None = None
        self._rules: dict[str, tuple[GroupRule, ...]] = {}
        self._facts: dict[ResourceId, ResourceFacts] = {}
        self._listed: dict[tuple[Sight, ResourceId], Listed | None] = {}

    def forget(self, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Forgets what these rows are part of."""
        if kind not in SHARED:
            return
        self._generation += 1
        for row in rows:
            match kind:
                case "policies":
                    self._rules.pop(row["group_id"] or "", None)
                case "groups":
                    self._rules.pop(row["id"], None)
                case "resources":
                    self._forget_resource(row["id"])
                case "static_device_pool_members":
                    self._forget_resource(row["resource_id"])
                case "sites":
                    for one in [one for one, facts in self._facts.items() if facts.site_id == row["id"]]:
                        self._forget_resource(one)
                case "devices":
                    for one in [one for one, facts in self._facts.items() if _has_member(facts, row["id"])]:
                        self._forget_resource(one)
                case "accounts":
                    self.clear()

    def _forget_resource(self, resource_id: str) -> None:
        self._facts.pop(ResourceId(resource_id), None)
        for key in [(sight, one) for sight, one in self._listed if one == resource_id]:
            del self._listed[key]

    # --- whole lists --------------------------------------------------------------------------------------------------

    async def ask(self, channel: "ClientChannel", *, begins: bool) -> Beginning:
        """Waits for the next batch."""
        ask = _Ask(channel, asyncio.get_running_loop().create_future(), begins)
        self._waiting.append(ask)
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work())
        return await ask.found

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._answer([ask for ask in batch if not ask.found.done()])
        finally:
            self._worker = None

    async def _answer(self, batch: list[_Ask]) -> None:
        try:
            found = await self._look(batch)
        except Exception as error:
            for ask in batch:
                if not ask.found.done():
                    ask.found.set_exception(error)
            return
        for ask in batch:
            if ask.found.done():
                continue
            if ask.channel.device_id in found:
                ask.found.set_result(found[ask.channel.device_id])
            else:
                ask.found.set_exception(NotFound("the client is gone"))

    async def _look(self, batch: list[_Ask]) -> dict[str, Beginning]:
        if self._clock.now() - self._read_at > MAX_AGE_S:
            self.clear()
        channels = [ask.channel for ask in batch]
        begins = {str(ask.channel.device_id): ask.channel for ask in batch if ask.begins}
        at = self._clock.utc_now()
        async with self._db.scoped(subjects.system(self._account_id)) as scope:
            standings = await listing.standings(scope, [(one.device_id, one.actor_id) for one in channels])
            everyone = await self._everyone_id(scope)
            groups = {group_id for one in standings.values() for group_id in one.group_ids}
            rules = await self._rules_of(scope, groups | ({everyone} if everyone else set()))
            at = self._clock.utc_now()
            allowed: dict[str, tuple[list[ResourceId], tuple[Condition, ...]]] = {}
            for channel in channels:
                standing = standings.get(channel.device_id)
                if standing is not None:
                    allowed[channel.device_id] = _allowed(channel, at, standing, rules, everyone)
            see = await self._seeing(scope, {one for ids, _ in allowed.values() for one in ids})
            config = (await scope.account()).config if begins else {}
            tokens = await listing.client_tokens(scope, [one.token_id for one in begins.values()])
            keys = {device_id: one.device.public_key for device_id, one in begins.items()}
            pasts = await authorizations.pasts_of(scope, keys, at) if begins else {}
            grants: Mapping[str, Sequence[PolicyAuthorization]] = (
                await authorizations.of_receivers(scope, list(begins), at) if begins else {}
            )
        found = {}
        for channel in channels:
            if channel.device_id not in allowed:
                continue
            ids, conditions = allowed[channel.device_id]
            seen = {one: listed for one in ids if (listed := see(one, channel.sight)) is not None}
            look = Look(at, standings[channel.device_id], seen, conditions)
            rows = grants.get(channel.device_id, ())
            past = pasts.get(channel.device_id, NOTHING_PAST)
            found[str(channel.device_id)] = Beginning(look, channel.token_id in tokens, config, rows, past)
        return found

    # --- what is kept -------------------------------------------------------------------------------------------------

    async def _everyone_id(self, scope: Scope) -> str | None:
        if self._everyone is None:
            self._everyone = await listing.everyone(scope)
        return self._everyone

    async def _rules_of(self, scope: Scope, group_ids: Collection[str]) -> dict[str, tuple[GroupRule, ...]]:
        known = {one: self._rules[one] for one in group_ids if one in self._rules}
        missing = [one for one in group_ids if one not in known]
        if missing:
            generation = self._generation
            read = await listing.rules_of_groups(scope, missing)
            if generation == self._generation:
                self._rules |= read
            known |= read
        return known

    async def _seeing(
        self, scope: Scope, resource_ids: Collection[ResourceId]
    ) -> Callable[[ResourceId, Sight], Listed | None]:
        """How each of these resources is seen: from what is kept, and what is read now."""
        generation = self._generation
        facts = {one: self._facts[one] for one in resource_ids if one in self._facts}
        missing = [one for one in resource_ids if one not in facts]
        if missing:
            read = await access.resource_facts(scope, missing)
            if generation == self._generation:
                self._facts |= read
            facts |= read
        of_this_look: dict[tuple[Sight, ResourceId], Listed | None] = {}

        def see(resource_id: ResourceId, sight: Sight) -> Listed | None:
            kept = self._listed if generation == self._generation else of_this_look
            key = (sight, resource_id)
            if key not in kept:
                one = facts.get(resource_id)
                kept[key] = Listed.of(one, sight) if one is not None else None
            return kept[key]

        return see

    async def patch(
        self, scope: Scope, resource_ids: Collection[str], actor_ids: Callable[[], Collection[str]]
    ) -> Patch:
        """Reads some resources with all that may reach them."""
        wanted = [ResourceId(one) for one in sorted(resource_ids)]
        rules: dict[ResourceId, list[PolicyRule]] = {one: [] for one in wanted}
        for found in await listing.rules_of_resources(scope, wanted):
            rules[found.rule.resource_id].append(found.rule)
        everyone = await self._everyone_id(scope)
        groups = {rule.group_id for some in rules.values() for rule in some} - {everyone}
        members = await listing.members_of(scope, sorted(groups), actor_ids()) if groups else {}
        see = await self._seeing(scope, [one for one in wanted if rules[one]])
        return Patch({one: tuple(some) for one, some in rules.items()}, members, everyone, see)


def _allowed(
    channel: "ClientChannel",
    at: datetime,
    standing: Standing,
    rules: Mapping[str, tuple[GroupRule, ...]],
    everyone: str | None,
) -> tuple[list[ResourceId], tuple[Condition, ...]]:
    """The resources that a client may reach, by the age of their first policy, and all conditions of its policies."""
    groups = set(standing.group_ids)
    if everyone is not None and standing.actor_type in USER_TYPES:
        groups.add(everyone)
    ages: list[tuple[Any, PolicyRule]] = []
    for group_id in groups:
        ages += [(one.age, one.rule) for one in rules.get(group_id, ())]
    ages.sort(key=lambda one: one[0])
    by_resource: dict[ResourceId, list[PolicyRule]] = {}
    conditions: list[Condition] = []
    for _, rule in ages:
        by_resource.setdefault(rule.resource_id, []).append(rule)
        conditions += rule.conditions
    now = replace(channel.circumstances(is_verified=standing.is_verified), at=at)
    return [one for one, some in by_resource.items() if may_reach(some, lambda: now)], tuple(conditions)


def _has_member(facts: ResourceFacts, device_id: str) -> bool:
    return any(member.client_id == device_id for member in facts.members)
