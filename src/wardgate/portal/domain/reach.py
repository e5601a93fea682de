"""Who reaches what, by all policies together, and how two snapshots of an account differ in that.

An actor reaches a resource in one or several ways: each is a policy of one of its groups, with its hours and its other
conditions. Two snapshots differ for a pair when the ways do; a policy that changes nothing because another one allows
as much makes no difference. Hours are those of one week, as the conditions themselves give them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from wardgate.portal.domain.conditions import Condition, openings
from wardgate.portal.domain.snapshot import AccessSnapshot, ChangedRow, KnownResource

WEEK_S: Final = 7 * 24 * 3600
Hours = tuple[tuple[int, int], ...]
"""Seconds of the week, from Monday 00:00 UTC on: in order, apart from each other."""
ALWAYS: Final[Hours] = ((0, WEEK_S),)

ChangeKind = Literal[
    "gains", "loses", "fewer_hours", "more_hours", "other_hours", "other_conditions", "other_resource", "keeps"
]
KINDS: Final[tuple[ChangeKind, ...]] = (
    "loses",
    "gains",
    "fewer_hours",
    "more_hours",
    "other_hours",
    "other_conditions",
    "other_resource",
    "keeps",
)
MAX_PAIRS: Final = 250_000


@dataclass(frozen=True, slots=True)
class Way:
    """One way to a resource: at these hours, if the other conditions hold.

    Hours at which fewer conditions are enough belong to that way alone, so equal access has equal ways.
    """

    hours: Hours
    others: frozenset[Condition]


Ways = frozenset[Way]
NO_WAY: Final[Ways] = frozenset()


@dataclass(frozen=True, slots=True)
class PairChange:
    """What becomes of one actor's access to one resource.

    Attributes:
        kind: `keeps` if policies changed and access did not; `other_resource` if it leads elsewhere now.
        policies_before: Ids of the policies that allow it before, from the oldest on.
        hours_lost: When access is possible before, and not after, whatever the other conditions are.
    """

    actor_id: str
    resource_id: str
    kind: ChangeKind
    policies_before: tuple[str, ...]
    policies_after: tuple[str, ...]
    hours_lost: Hours = ()
    hours_gained: Hours = ()


@dataclass(frozen=True, slots=True)
class Touched:
    """Where changes may make a difference: all pairs of these actors, and all pairs of these resources."""

    actors: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    is_everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.actors or self.resources or self.is_everything)


_DECIDING: Final = {
    "accounts": ("is_disabled",),
    "actors": ("type", "is_disabled", "email"),
    "memberships": ("actor_id", "group_id"),
    "policies": ("group_id", "resource_id", "conditions", "is_disabled"),
    "resources": ("name", "type", "address", "site_id", "ip_stack", "filters"),
}


def touched_by(changes: Iterable[ChangedRow]) -> Touched:
    """The actors and resources that changes of rows may concern."""
    actors: set[str] = set()
    resources: set[str] = set()
    is_everything = False
    for change in changes:
        images = [one for one in (change.before, change.after) if one is not None]
        columns = _DECIDING.get(change.object, ())
        if not columns or (len(images) == 2 and all(images[0][one] == images[1][one] for one in columns)):
            continue
        match change.object:
            case "accounts":
                is_everything = is_everything or len(images) == 2
            case "actors":
                actors |= {one["id"] for one in images}
            case "memberships":
                actors |= {one["actor_id"] for one in images}
            case "policies":
                resources |= {one["resource_id"] for one in images}
            case "resources":
                resources |= {one["id"] for one in images}
    return Touched(frozenset(actors), frozenset(resources), is_everything)


# --- pairs ------------------------------------------------------------------------------------------------------------


def policies_by_actor(snapshot: AccessSnapshot, resource_id: str) -> dict[str, tuple[str, ...]]:
    """Who reaches a resource, by which policies, whatever their conditions are."""
    found: dict[str, tuple[str, ...]] = {}
    if snapshot.is_disabled:
        return found
    for policy_id in snapshot.policies_of_resource.get(resource_id, ()):
        policy = snapshot.policies[policy_id]
        if policy.is_disabled or policy.group_id is None:
            continue
        for actor_id in snapshot.actors_in(policy.group_id):
            found[actor_id] = (*found.get(actor_id, ()), policy_id)
    return {one: ids for one, ids in found.items() if one in snapshot.connecting}


def policies_by_resource(snapshot: AccessSnapshot, actor_id: str) -> dict[str, tuple[str, ...]]:
    """What an actor reaches, by which policies, whatever their conditions are."""
    actor = snapshot.actors.get(actor_id)
    if actor is None or snapshot.is_disabled or not actor.can_connect:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for rule in snapshot.rules_of(actor):
        found[rule.resource_id] = (*found.get(rule.resource_id, ()), rule.policy_id)
    return found


def differences(
    before: AccessSnapshot, after: AccessSnapshot, touched: Touched, monday: datetime, most: int = MAX_PAIRS
) -> tuple[list[PairChange], bool]:
    """What is different for whom, in no order, and whether nothing was left out.

    Args:
        touched: Where to look, as `touched_by` gives it.
        monday: The week whose hours are compared, as `monday_of` gives it.
        most: How many pairs are looked at.
    """
    found: dict[tuple[str, str], PairChange] = {}
    looked_at = 0
    resources = touched.resources
    actors = touched.actors
    if touched.is_everything:
        resources, actors = frozenset({*before.resources, *after.resources}), frozenset()
    for resource_id in sorted(resources):
        old, new = policies_by_actor(before, resource_id), policies_by_actor(after, resource_id)
        moved = _leads_elsewhere(before.resources.get(resource_id), after.resources.get(resource_id))
        looked_at += len(old) + len(new)
        if looked_at > most:
            return list(found.values()), False
        for actor_id in {**old, **new}:
            key = (actor_id, resource_id)
            change = _compared(before, after, key, old.get(actor_id, ()), new.get(actor_id, ()), monday, moved)
            if change is not None:
                found[key] = change
    for actor_id in sorted(actors):
        old, new = policies_by_resource(before, actor_id), policies_by_resource(after, actor_id)
        looked_at += len(old) + len(new)
        if looked_at > most:
            return list(found.values()), False
        for resource_id in {**old, **new}:
            key = (actor_id, resource_id)
            if resource_id in resources:
                continue
            change = _compared(before, after, key, old.get(resource_id, ()), new.get(resource_id, ()), monday, False)
            if change is not None:
                found[key] = change
    return list(found.values()), True


def _compared(
    before: AccessSnapshot,
    after: AccessSnapshot,
    pair: tuple[str, str],
    old_ids: tuple[str, ...],
    new_ids: tuple[str, ...],
    monday: datetime,
    moved: bool,
) -> PairChange | None:
    if old_ids == new_ids and not moved and all(before.policies[one] is after.policies[one] for one in old_ids):
        return None
    old = ways([before.policies[one].conditions for one in old_ids], monday)
    new = ways([after.policies[one].conditions for one in new_ids], monday)
    kind = _kind(old, new)
    if kind is None:
        if moved and new:
            kind = "other_resource"
        elif old_ids != new_ids and new:
            kind = "keeps"
        else:
            return None
    lost, gained = _minus(hours_of(old), hours_of(new)), _minus(hours_of(new), hours_of(old))
    return PairChange(*pair, kind, old_ids, new_ids, lost, gained)


@lru_cache(maxsize=65536)
def _kind(old: Ways, new: Ways) -> ChangeKind | None:
    if old == new:
        return None
    if not old or not new:
        return "gains" if new else "loses"
    if {one.others for one in old} != {one.others for one in new}:
        return "other_conditions"
    is_less = any(_minus(one.hours, _hours_if(new, one.others)) for one in old)
    is_more = any(_minus(one.hours, _hours_if(old, one.others)) for one in new)
    if is_less and is_more:
        return "other_hours"
    return "fewer_hours" if is_less else "more_hours"


def _leads_elsewhere(old: KnownResource | None, new: KnownResource | None) -> bool:
    if old is None or new is None:
        return False
    return (old.type, old.address, old.site_id, old.ip_stack, old.filters) != (
        new.type,
        new.address,
        new.site_id,
        new.ip_stack,
        new.filters,
    )


# --- ways and hours ---------------------------------------------------------------------------------------------------


def monday_of(at: datetime) -> datetime:
    """The begin of the week, in UTC."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def ways(conditions: Iterable[tuple[Condition, ...]], monday: datetime) -> Ways:
    """The ways that policies with these conditions make; policies that are never open make none."""
    return _ways(frozenset(conditions), monday)


@lru_cache(maxsize=65536)
def _ways(conditions: frozenset[tuple[Condition, ...]], monday: datetime) -> Ways:
    if () in conditions:
        return frozenset({Way(ALWAYS, frozenset())})
    by_others: dict[frozenset[Condition], Hours] = {}
    for some in conditions:
        others = frozenset(_regular(one) for one in some if one.property != "current_utc_datetime" and _limits(one))
        by_others[others] = _union(by_others.get(others, ()), hours_of_conditions(some, monday))
    found: list[Way] = []
    for others, hours in by_others.items():
        for weaker, wider in by_others.items():
            if weaker < others:  # whoever fulfils more gets in that way as well
                hours = _minus(hours, wider)
        if hours:
            found.append(Way(hours, others))
    return frozenset(found)


def _limits(condition: Condition) -> bool:
    """Whether a condition can be violated at all: not to ask for a verified client asks for nothing."""
    return condition.property != "client_verified" or condition.values == ("true",)


def _regular(condition: Condition) -> Condition:
    return Condition(condition.property, condition.operator, tuple(sorted(condition.values)))


def hours_of_conditions(conditions: Sequence[Condition], monday: datetime) -> Hours:
    """The hours of that week at which the time conditions hold."""
    hours = ALWAYS
    for condition in conditions:
        if condition.property == "current_utc_datetime":
            some = openings(condition.values, monday, monday + timedelta(seconds=WEEK_S))
            hours = tuple((_second(one, monday), _second(other, monday)) for one, other in some)
    return hours


def _second(at: datetime, monday: datetime) -> int:
    return int((at - monday).total_seconds())


def hours_of(some: Ways) -> Hours:
    """All hours of all ways."""
    hours: Hours = ()
    for one in some:
        hours = _union(hours, one.hours)
    return hours


def _hours_if(some: Ways, others: frozenset[Condition]) -> Hours:
    """The hours of the ways that are open to whom those conditions hold for."""
    hours: Hours = ()
    for one in some:
        if one.others <= others:
            hours = _union(hours, one.hours)
    return hours


def _union(some: Hours, more: Hours) -> Hours:
    merged: list[tuple[int, int]] = []
    for start, end in sorted((*some, *more)):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return tuple(merged)


def _minus(some: Hours, less: Hours) -> Hours:
    left: list[tuple[int, int]] = []
    for start, end in some:
        for other_start, other_end in less:
            if other_end <= start or end <= other_start:
                continue
            if start < other_start:
                left.append((start, other_start))
            start = max(start, other_end)
        if start < end:
            left.append((start, end))
    return tuple(left)


def counted(changes: Iterable[PairChange]) -> tuple[Mapping[ChangeKind, int], Mapping[ChangeKind, int]]:
    """How many pairs, and how many actors, each kind of change concerns."""
    pairs: dict[ChangeKind, int] = dict.fromkeys(KINDS, 0)
    actors: dict[ChangeKind, set[str]] = {kind: set() for kind in KINDS}
    for one in changes:
        pairs[one.kind] += 1
        actors[one.kind].add(one.actor_id)
    return pairs, {kind: len(some) for kind, some in actors.items()}
