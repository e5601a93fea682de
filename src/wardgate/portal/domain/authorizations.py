"""Who may reach what, and until when: `authorize` decides, everything else shows or enforces its answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from wardgate.ids import GroupId, MembershipId, PolicyId, ResourceId
from wardgate.portal.domain.conditions import Circumstances, Condition, Passed, Violated, evaluate


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A policy as it concerns one actor: through a membership, or through Everyone (`membership_id` is `None`)."""

    policy_id: PolicyId
    resource_id: ResourceId
    group_id: GroupId
    membership_id: MembershipId | None
    conditions: tuple[Condition, ...] = ()
    flow_log_uploads_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Granted:
    """Access by this rule, until then; `None` is for ever."""

    rule: PolicyRule
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Denied:
    """No rule allows it; the properties that stood in the way, each once."""

    violated_properties: tuple[str, ...]


Verdict = Granted | Denied


def authorize(
    rules: Sequence[PolicyRule], circumstances: Circumstances, token_expires_at: datetime | None = None
) -> Verdict:
    """Decides about one resource by all rules that link it to the actor.

    Of the rules that hold, the one that holds longest is taken; the grant never outlives the token.
    """
    best: Granted | None = None
    violated: dict[str, None] = {}
    for rule in rules:
        match evaluate(rule.conditions, circumstances):
            case Violated(properties):
                violated.update(dict.fromkeys(properties))
            case Passed(expires_at):
                if best is None or _is_later(expires_at, best.expires_at):
                    best = Granted(rule, expires_at)
    if best is None:
        return Denied(tuple(violated))
    return Granted(best.rule, _earliest(best.expires_at, token_expires_at))


def connectable(rules: Iterable[PolicyRule], circumstances: Circumstances) -> dict[ResourceId, Granted]:
    """The resources that the rules allow at this moment, in the order of the rules."""
    by_resource: dict[ResourceId, list[PolicyRule]] = {}
    for rule in rules:
        by_resource.setdefault(rule.resource_id, []).append(rule)
    verdicts = {resource: authorize(some, circumstances) for resource, some in by_resource.items()}
    return {resource: verdict for resource, verdict in verdicts.items() if isinstance(verdict, Granted)}


def _is_later(one: datetime | None, other: datetime | None) -> bool:
    if other is None:
        return False
    return one is None or one > other


def _earliest(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
