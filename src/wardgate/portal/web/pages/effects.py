"""What a change would do, before it is saved: worked out by the services that would make it, and rolled back."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain.reach import PairChange
from wardgate.portal.domain.snapshot import AccessSnapshot
from wardgate.portal.services.previews import TestEffect, name_of_actor, name_of_resource, preview
from wardgate.portal.web.context import Page

SHOWN: Final = 5
_NAMES: Final = {
    "loses": "Lose access",
    "gains": "Gain access",
    "fewer_hours": "Get fewer hours",
    "more_hours": "Get more hours",
    "other_hours": "Get other hours",
    "other_conditions": "Get other conditions",
    "other_resource": "Are led elsewhere",
}


@dataclass(frozen=True, slots=True)
class Part:
    """Those to whom the same happens: some of them by name, and how many more there are.

    Attributes:
        people: Id and name of an actor, and the name of the resource.
    """

    kind: str
    title: str
    people: list[tuple[str, str, str]]
    more: int


@dataclass(frozen=True, slots=True)
class Effect:
    """The panel's content.

    Attributes:
        others: How many get other hours or conditions.
        ended: Authorizations that end at once.
        is_complete: Whether everybody was looked at.
    """

    gains: int
    loses: int
    others: int
    ended: int
    parts: list[Part]
    tests: list[TestEffect]
    is_complete: bool

    @property
    def concerns_nobody(self) -> bool:
        """Whether nothing would be different for anybody."""
        return not self.parts


async def effect_of(page: Page, make: Callable[[UnitOfWork], Awaitable[object]]) -> Effect:
    """Works out what a change would do.

    Args:
        make: Makes it; whatever the services refuse is raised from here.
    """

    async def change(unit: UnitOfWork) -> None:
        await make(unit)

    found = await preview(page.db, page.subject, change)
    counts = Counter(one.kind for one in found.changes)
    parts: list[Part] = []
    for kind, title in _NAMES.items():
        some = [one for one in found.changes if one.kind == kind]
        if some:
            people = [_person(one, found.after, found.before) for one in some[:SHOWN]]
            parts.append(Part(kind, title, people, len(some) - len(people)))
    others = sum(counts.values()) - counts["gains"] - counts["loses"] - counts["keeps"]
    return Effect(
        counts["gains"],
        counts["loses"],
        others,
        found.ended_authorizations,
        parts,
        list(found.tests),
        found.is_complete,
    )


def _person(change: PairChange, *snapshots: AccessSnapshot) -> tuple[str, str, str]:
    names = name_of_actor(change.actor_id, *snapshots), name_of_resource(change.resource_id, *snapshots)
    return change.actor_id, *names
