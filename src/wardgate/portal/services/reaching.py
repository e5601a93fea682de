"""Who reaches what, as a list of pairs: of one actor, one group, one resource or one site, now or at another time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from wardgate.errors import InvalidInput, NotFound
from wardgate.portal.domain.reach import policies_by_actor, policies_by_resource
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services.previews import name_of_actor, name_of_resource

MAX_PAIRS: Final = 100_000


@dataclass(frozen=True, slots=True)
class ReachPair:
    """An actor reaches a resource by these policies, from the oldest on."""

    actor_id: str
    resource_id: str
    policy_ids: tuple[str, ...]


def reach(
    snapshot: AccessSnapshot,
    *,
    actor_id: str | None = None,
    group_id: str | None = None,
    resource_id: str | None = None,
    site_id: str | None = None,
) -> tuple[Sequence[ReachPair], bool]:
    """The pairs by name of actor and resource, and whether they are all: there is a bound.

    Args:
        actor_id: Only this actor's; at least one of the four is needed, and all that are given must fit.
        group_id: Only what policies of this group allow.
        site_id: Only resources of this site.

    Raises:
        InvalidInput: Nothing was asked for.
        NotFound: There is no such actor, group, resource or site.
    """
    asked = ((actor_id, "actors"), (group_id, "groups"), (resource_id, "resources"), (site_id, "sites"))
    if all(one is None for one, _ in asked):
        raise InvalidInput({"actor": ["or group, resource or site is needed: all pairs at once are too many"]})
    for one, noun in asked:
        if one is not None and one not in getattr(snapshot, noun):
            raise NotFound(f"{noun} has no {one}")
    found: list[ReachPair] = []
    is_complete = True
    for pair in _pairs(snapshot, actor_id, group_id, resource_id, site_id):
        ids = tuple(one for one in pair.policy_ids if group_id is None or snapshot.policies[one].group_id == group_id)
        if not ids:
            continue
        if len(found) == MAX_PAIRS:
            is_complete = False
            break
        found.append(ReachPair(pair.actor_id, pair.resource_id, ids))
    found.sort(
        key=lambda one: (
            name_of_actor(one.actor_id, snapshot),
            name_of_resource(one.resource_id, snapshot),
            one.actor_id,
            one.resource_id,
        )
    )
    return found, is_complete


def _pairs(
    snapshot: AccessSnapshot, actor_id: str | None, group_id: str | None, resource_id: str | None, site_id: str | None
) -> Iterable[ReachPair]:
    if actor_id is not None:
        for one, ids in policies_by_resource(snapshot, actor_id).items():
            if resource_id in (None, one) and _is_at(snapshot, one, site_id):
                yield ReachPair(actor_id, one, ids)
        return
    if group_id is not None:
        who = snapshot.actors_in(group_id) & snapshot.connecting
        for policy_id in snapshot.policies_of_group.get(group_id, ()):
            policy = snapshot.policies[policy_id]
            is_meant = resource_id in (None, policy.resource_id) and _is_at(snapshot, policy.resource_id, site_id)
            if is_meant and not policy.is_disabled and not snapshot.is_disabled:
                yield from (ReachPair(actor, policy.resource_id, (policy_id,)) for actor in who)
        return
    for one in snapshot.resources if resource_id is None else [resource_id]:
        if _is_at(snapshot, one, site_id):
            for actor, ids in policies_by_actor(snapshot, one).items():
                yield ReachPair(actor, one, ids)


def _is_at(snapshot: AccessSnapshot, resource_id: str, site_id: str | None) -> bool:
    return site_id is None or snapshot.resources[resource_id].site_id == site_id
