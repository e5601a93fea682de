"""What access depends on in one account, as one value: who there is, who is in which group, and what policies say.

A snapshot is made of rows or of their images in the change log, so that it can be led forwards (a change that is being
made, or was made elsewhere) and backwards (time travel) by the same function. It is never changed: `changed` gives
another one and copies only what differs. `rules_of` gives the same rules that decide about real requests.
"""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from wardgate.ids import GroupId, MembershipId, PolicyId, ResourceId
from wardgate.portal.domain.authorizations import PolicyRule
from wardgate.portal.domain.conditions import Condition, parse_conditions
from wardgate.portal.domain.subjects import USER_TYPES

OBJECTS: Final = ("accounts", "actors", "groups", "memberships", "policies", "resources", "sites")
"""The tables that a snapshot is made of."""
EVERYONE_TYPE: Final = "managed"
_T = TypeVar("_T")


class ChangedRow(Protocol):
    """One change of a row: its images before and after, as the change log has them."""

    @property
    def object(self) -> str:
        """The table."""

    @property
    def before(self) -> Mapping[str, Any] | None:
        """The row as it was; `None` for a new one."""

    @property
    def after(self) -> Mapping[str, Any] | None:
        """The row as it is; `None` for a deleted one."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """A change of a row, for those who have no other form of it."""

    object: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class KnownActor:
    """A person, a service account or an API client."""

    id: str
    type: str
    name: str
    email: str | None
    is_disabled: bool

    @property
    def can_connect(self) -> bool:
        """Whether its clients are let in at all: it is enabled, and is no API client, which has no clients."""
        return not self.is_disabled and self.type != "api_client"


@dataclass(frozen=True, slots=True)
class KnownGroup:
    """A set of actors."""

    id: str
    name: str
    type: str
    directory_id: str | None

    @property
    def is_everyone(self) -> bool:
        """Whether all users are in it without being listed."""
        return self.type == EVERYONE_TYPE


@dataclass(frozen=True, slots=True)
class KnownResource:
    """What a policy gives access to; `filters` as they are stored."""

    id: str
    name: str
    type: str
    address: str | None
    site_id: str | None
    ip_stack: str | None
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A policy; without a group it is an orphan that allows nothing."""

    id: str
    group_id: str | None
    resource_id: str
    conditions: tuple[Condition, ...]
    is_disabled: bool
    flow_log_uploads_enabled: bool
    inserted_at: datetime

    @property
    def order(self) -> tuple[datetime, str]:
        """Policies are looked at from the oldest on."""
        return self.inserted_at, self.id


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """The access facts of an account at one moment. Maps are named by their keys; nothing in them is ever changed.

    Attributes:
        members: By group, the actors in it, each with the id of its membership.
        groups_of: The same by actor.
        policies_of_resource: Ids of all policies of a resource, disabled ones as well, from the oldest on.
        policies_of_group: Ids of all policies of a group.
        of_actors: Sets of actors that were worked out from `actors`, so that they are once.
        of_resources: Sets of resources that were worked out from `resources`.
    """

    is_disabled: bool = False
    features: Mapping[str, Any] = field(default_factory=dict)
    actors: Mapping[str, KnownActor] = field(default_factory=dict)
    groups: Mapping[str, KnownGroup] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    groups_of: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    policies: Mapping[str, KnownPolicy] = field(default_factory=dict)
    policies_of_resource: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    policies_of_group: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    resources: Mapping[str, KnownResource] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    of_actors: dict[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)
    of_resources: dict[str, frozenset[str]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """How many facts there are; what memory it takes is proportional to it."""
        facts = (self.actors, self.groups, self.policies, self.resources, self.sites)
        return sum(map(len, facts)) + sum(map(len, self.members.values()))

    def changed(self, changes: Iterable[ChangedRow]) -> "AccessSnapshot":
        """The snapshot after these changes. Other tables are passed over; a change done twice does no harm."""
        draft = _Draft(self)
        for change in changes:
            draft.take(change.object, change.before, change.after)
        return draft.finished()

    def undone(self, changes: Iterable[ChangedRow]) -> "AccessSnapshot":
        """The snapshot before these changes, which come from the latest to the earliest."""
        return self.changed(RowChange(one.object, one.after, one.before) for one in changes)

    # --- what policies say --------------------------------------------------------------------------------------------

    def is_in(self, actor: KnownActor, group_id: str) -> bool:
        """Whether the actor is in the group, or is a user and the group is Everyone."""
        if actor.id in self.members.get(group_id, {}):
            return True
        group = self.groups.get(group_id)
        return group is not None and group.is_everyone and actor.type in USER_TYPES

    def groups_with(self, actor: KnownActor) -> list[KnownGroup]:
        """The groups that the actor is in."""
        ids = dict.fromkeys(self.groups_of.get(actor.id, ()))
        if actor.type in USER_TYPES:
            ids |= {one.id: None for one in self.groups.values() if one.is_everyone}
        return [self.groups[one] for one in ids if one in self.groups]

    def actors_in(self, group_id: str) -> AbstractSet[str]:
        """Ids of the actors in a group; of all users for Everyone."""
        group = self.groups.get(group_id)
        if group is None:
            return frozenset()
        listed = self.members.get(group_id, {}).keys()
        return self.people | listed if group.is_everyone else listed

    @property
    def people(self) -> frozenset[str]:
        """Ids of all users, who are in Everyone."""
        return self._once("people", lambda one: one.type in USER_TYPES)

    @property
    def connecting(self) -> frozenset[str]:
        """Ids of all actors whose clients are let in."""
        return self._once("connecting", lambda one: one.can_connect)

    def _once(self, name: str, is_meant: Callable[[KnownActor], bool]) -> frozenset[str]:
        if name not in self.of_actors:
            self.of_actors[name] = frozenset(one.id for one in self.actors.values() if is_meant(one))
        return self.of_actors[name]

    def rules_of(self, actor: KnownActor, resource_id: str | None = None) -> list[PolicyRule]:
        """All enabled policies of groups that the actor is in, or those of one resource; oldest first."""
        if resource_id is not None:
            ids = list(self.policies_of_resource.get(resource_id, ()))
        else:
            ids = [one for group in self.groups_with(actor) for one in self.policies_of_group.get(group.id, ())]
        policies = [self.policies[one] for one in ids]
        found = [one for one in policies if not one.is_disabled and self.concerns(one, actor)]
        return [self.rule(one, actor) for one in sorted(found, key=lambda one: one.order)]

    def concerns(self, policy: KnownPolicy, actor: KnownActor) -> bool:
        """Whether the policy is of a group that the actor is in."""
        return policy.group_id is not None and self.is_in(actor, policy.group_id)

    def rule(self, policy: KnownPolicy, actor: KnownActor) -> PolicyRule:
        """A policy as it concerns an actor."""
        group_id = policy.group_id or ""
        membership_id = self.groups_of.get(actor.id, {}).get(group_id)
        return PolicyRule(
            PolicyId(policy.id),
            ResourceId(policy.resource_id),
            GroupId(group_id),
            MembershipId(membership_id) if membership_id else None,
            policy.conditions,
            policy.flow_log_uploads_enabled,
        )


class _Draft:
    """A snapshot while it is being changed: maps are copied when they are first touched."""

    def __init__(self, base: AccessSnapshot) -> None:
        self._base = base
        self._copied: dict[str, dict[str, Any]] = {}
        self._other: dict[str, Any] = {}

    def finished(self) -> AccessSnapshot:
        """The snapshot that came of it."""
        if not self._copied and not self._other:
            return self._base
        changed: dict[str, Any] = {**self._copied, **self._other}
        changed |= {f"of_{name}": {} for name in ("actors", "resources") if name in self._copied}
        return replace(self._base, **changed)

    def take(self, table: str, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        """Takes one change into account."""
        match table:
            case "accounts" if after is not None:
                self._other = {"is_disabled": after["is_disabled"], "features": after["features"]}
            case "actors":
                self._set("actors", before, actor_of(after) if after else None)
            case "groups":
                self._set("groups", before, group_of(after) if after else None)
            case "resources":
                self._set("resources", before, resource_of(after) if after else None)
            case "sites":
                self._set("sites", before, after["name"] if after else None, after["id"] if after else None)
            case "memberships":
                self._membership(before, after)
            case "policies":
                self._policy(before, after)

    def _set(self, name: str, before: Mapping[str, Any] | None, value: Any, row_id: str | None = None) -> None:
        rows = self._map(name)
        if value is None:
            rows.pop((before or {}).get("id", ""), None)
        else:
            rows[row_id or value.id] = value

    def _membership(self, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        members, groups_of = self._map("members"), self._map("groups_of")
        if before is not None:
            _without(members, before["group_id"], before["actor_id"])
            _without(groups_of, before["actor_id"], before["group_id"])
        if after is not None:
            actor_id, group_id = after["actor_id"], after["group_id"]
            members[group_id] = {**members.get(group_id, {}), actor_id: after["id"]}
            groups_of[actor_id] = {**groups_of.get(actor_id, {}), group_id: after["id"]}

    def _policy(self, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        policies = self._map("policies")
        old = policies.pop((after or before or {})["id"], None)
        if old is not None:
            self._unlist("policies_of_resource", old.resource_id, old.id)
            self._unlist("policies_of_group", old.group_id, old.id)
        if after is not None:
            new = policies[after["id"]] = policy_of(after)
            self._list("policies_of_resource", new.resource_id, new)
            self._list("policies_of_group", new.group_id, new)

    def _list(self, index: str, key: str | None, policy: KnownPolicy) -> None:
        if key is not None:
            lists, policies = self._map(index), self._map("policies")
            ids = (*lists.get(key, ()), policy.id)
            lists[key] = tuple(sorted(ids, key=lambda one: policies[one].order))

    def _unlist(self, index: str, key: str | None, policy_id: str) -> None:
        if key is not None:
            lists = self._map(index)
            left = tuple(one for one in lists.get(key, ()) if one != policy_id)
            lists.pop(key, None)
            if left:
                lists[key] = left

    def _map(self, name: str) -> dict[str, Any]:
        if name not in self._copied:
            self._copied[name] = dict(getattr(self._base, name))
        return self._copied[name]


def _without(maps: dict[str, Any], key: str, inner: str) -> None:
    left = {one: value for one, value in maps.get(key, {}).items() if one != inner}
    maps.pop(key, None)
    if left:
        maps[key] = left


# --- rows -------------------------------------------------------------------------------------------------------------


def actor_of(row: Mapping[str, Any]) -> KnownActor:
    """An actor of its row or image."""
    return KnownActor(row["id"], row["type"], row["name"], row["email"], row["is_disabled"])


def group_of(row: Mapping[str, Any]) -> KnownGroup:
    """A group of its row or image."""
    return KnownGroup(row["id"], row["name"], row["type"], row["directory_id"])


def resource_of(row: Mapping[str, Any]) -> KnownResource:
    """A resource of its row or image."""
    filters = tuple(f"{one['protocol']}:{','.join(one.get('ports') or ())}" for one in row["filters"] or ())
    return KnownResource(row["id"], row["name"], row["type"], row["address"], row["site_id"], row["ip_stack"], filters)


def policy_of(row: Mapping[str, Any]) -> KnownPolicy:
    """A policy of its row or image."""
    at = row["inserted_at"]
    return KnownPolicy(
        row["id"],
        row["group_id"],
        row["resource_id"],
        parse_conditions(row["conditions"]) if row["conditions"] else (),
        row["is_disabled"],
        row["flow_log_uploads_enabled"],
        at if isinstance(at, datetime) else datetime.fromisoformat(at),
    )


def snapshot_of(
    account: Mapping[str, Any],
    *,
    actors: Iterable[KnownActor],
    groups: Iterable[KnownGroup],
    memberships: Iterable[tuple[str, str, str]],
    policies: Iterable[KnownPolicy],
    resources: Iterable[KnownResource],
    sites: Mapping[str, str],
) -> AccessSnapshot:
    """A snapshot of all rows at once.

    Args:
        memberships: Actor, group and id of each.
    """
    members: dict[str, dict[str, str]] = {}
    groups_of: dict[str, dict[str, str]] = {}
    same: dict[str, str] = {}  # ids that come again and again are kept once
    for actor, group, membership_id in memberships:
        actor_id, group_id = same.setdefault(actor, actor), same.setdefault(group, group)
        members.setdefault(group_id, {})[actor_id] = membership_id
        groups_of.setdefault(actor_id, {})[group_id] = membership_id
    ordered = sorted(policies, key=lambda one: one.order)
    return AccessSnapshot(
        is_disabled=account["is_disabled"],
        features=account["features"],
        actors={one.id: one for one in actors},
        groups={one.id: one for one in groups},
        members=members,
        groups_of=groups_of,
        policies={one.id: one for one in ordered},
        policies_of_resource=_grouped(ordered, lambda one: one.resource_id),
        policies_of_group=_grouped(ordered, lambda one: one.group_id),
        resources={one.id: one for one in resources},
        sites=sites,
    )


def _grouped(policies: Iterable[KnownPolicy], key: Any) -> dict[str, tuple[str, ...]]:
    lists: dict[str, list[str]] = {}
    for one in policies:
        if (place := key(one)) is not None:
            lists.setdefault(place, []).append(one.id)
    return {place: tuple(ids) for place, ids in lists.items()}
