"""Why a person can or cannot reach a resource, as reasons that a page or a command can show.

`explain` asks the same `authorize` that decides about real requests, and then looks at what else is in the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from wardgate.ids import GroupId, PolicyId
from wardgate.portal.domain.authorizations import Denied, Granted, PolicyRule, authorize
from wardgate.portal.domain.conditions import Circumstances, Condition, Passed, evaluate, openings
from wardgate.portal.domain.selection import NoGateway, OnlineGateway

ReasonCode = Literal[
    "account_disabled",
    "actor_disabled",
    "no_policy",
    "not_in_group",
    "policy_disabled",
    "conditions_violated",
    "site_offline",
    "version_mismatch",
    "allowed",
]


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that allows access or stands in its way.

    Attributes:
        text: A sentence for people.
        policy_id: The policy it is about, if it is about one.
        properties: The violated conditions.
    """

    code: ReasonCode
    text: str
    policy_id: PolicyId | None = None
    group_name: str | None = None
    properties: tuple[str, ...] = ()


PolicyState = Literal["decides", "passes", "conditions_violated", "disabled", "not_in_group", "group_deleted"]


@dataclass(frozen=True, slots=True)
class ConditionSeen:
    """A condition with what it asks for and what it saw.

    Attributes:
        seen: In words; `None` if nothing is known of it.
        until: When a time range that holds ends.
        opens_at: When one that does not hold now begins, if that is within two weeks.
    """

    condition: Condition
    seen: str | None
    holds: bool
    until: datetime | None = None
    opens_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PolicySeen:
    """A policy of the resource and what came of it; of several that pass, the one that lasts longest decides."""

    policy_id: PolicyId
    group_id: GroupId | None
    group_name: str | None
    state: PolicyState
    conditions: tuple[ConditionSeen, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: yes or no, and why; all that stands in the way is listed.

    Attributes:
        granted: What a request would get from the policies, whatever else stands in the way; with its end.
        policies: Every policy that was looked at.
    """

    can_reach: bool
    reasons: tuple[Reason, ...]
    granted: Granted | None = None
    policies: tuple[PolicySeen, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy of the resource, seen from one actor; `rule` is `None` if the actor is not in its group."""

    policy_id: PolicyId
    group_id: GroupId | None
    group_name: str | None
    is_disabled: bool
    rule: PolicyRule | None
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """Everything the answer depends on.

    Attributes:
        gateway: The gateway a request would get now; `None` where none is needed (device pools) or known (the past).
        token_expires_at: When the client has to sign in again.
    """

    actor_name: str
    resource_name: str
    account_is_disabled: bool
    actor_is_disabled: bool
    policies: Sequence[PolicyFacts]
    circumstances: Circumstances
    gateway: OnlineGateway | NoGateway | None
    token_expires_at: datetime | None = None


def explain(facts: AccessFacts) -> Explanation:
    """Says whether this actor reaches this resource now, and why."""
    obstacles: list[Reason] = []
    if facts.account_is_disabled:
        obstacles.append(Reason("account_disabled", "The account is disabled."))
    if facts.actor_is_disabled:
        obstacles.append(Reason("actor_disabled", f"{facts.actor_name} is disabled."))
    granted = _by_policies(facts)
    if isinstance(granted, Granted):
        found = [_allowed(facts, granted)]
    else:
        obstacles += granted
        found = []
    if isinstance(facts.gateway, NoGateway):
        obstacles.append(_no_gateway(facts.gateway))
    decided = granted if isinstance(granted, Granted) else None
    seen = tuple(_seen(facts, one, decided) for one in facts.policies)
    return Explanation(not obstacles, tuple(obstacles + found), decided, seen)


def _by_policies(facts: AccessFacts) -> Granted | list[Reason]:
    if not facts.policies:
        return [Reason("no_policy", f"No policy allows anyone to reach {facts.resource_name}.")]
    rules = [one.rule for one in facts.policies if one.rule is not None and not one.is_disabled]
    verdict = authorize(rules, facts.circumstances, facts.token_expires_at)
    if isinstance(verdict, Granted):
        return verdict
    return [_obstacle(facts, one) for one in facts.policies]


def _obstacle(facts: AccessFacts, policy: PolicyFacts) -> Reason:
    group = policy.group_name or "a deleted group"
    if policy.rule is None:
        text = f"The policy for {group} does not concern {facts.actor_name}, who is not in that group."
        return Reason("not_in_group", text, policy.policy_id, policy.group_name)
    if policy.is_disabled:
        return Reason("policy_disabled", f"The policy for {group} is disabled.", policy.policy_id, policy.group_name)
    verdict = authorize([policy.rule], facts.circumstances)
    properties = verdict.violated_properties if isinstance(verdict, Denied) else ()
    text = f"The policy for {group} has conditions that do not hold now: {', '.join(properties)}."
    return Reason("conditions_violated", text, policy.policy_id, policy.group_name, properties)


def _allowed(facts: AccessFacts, granted: Granted) -> Reason:
    policy = next(one for one in facts.policies if one.policy_id == granted.rule.policy_id)
    text = f"The policy for {policy.group_name} allows {facts.actor_name} to reach {facts.resource_name}."
    return Reason("allowed", text, policy.policy_id, policy.group_name)


def _no_gateway(gateway: NoGateway) -> Reason:
    if gateway.reason == "version_mismatch":
        return Reason("version_mismatch", "No gateway of the site is compatible with the client's version.")
    return Reason("site_offline", "No gateway of the site is online.")


# --- what each condition saw ------------------------------------------------------------------------------------------

_LOOK_AHEAD: Final = timedelta(days=14)


def _seen(facts: AccessFacts, policy: PolicyFacts, granted: Granted | None) -> PolicySeen:
    conditions = tuple(_condition_seen(one, facts.circumstances) for one in policy.conditions)
    state: PolicyState
    if policy.group_id is None:
        state = "group_deleted"
    elif policy.rule is None:
        state = "not_in_group"
    elif policy.is_disabled:
        state = "disabled"
    elif isinstance(authorize([policy.rule], facts.circumstances), Denied):
        state = "conditions_violated"
    else:
        is_chosen = granted is not None and granted.rule.policy_id == policy.policy_id
        state = "decides" if is_chosen else "passes"
    return PolicySeen(policy.policy_id, policy.group_id, policy.group_name, state, conditions)


def _condition_seen(condition: Condition, now: Circumstances) -> ConditionSeen:
    outcome = evaluate([condition], now)
    seen = _what_it_saw(condition, now)
    if isinstance(outcome, Passed):
        return ConditionSeen(condition, seen, True, until=outcome.expires_at)
    return ConditionSeen(condition, seen, False, opens_at=_opens_at(condition, now.at))


def _opens_at(condition: Condition, at: datetime) -> datetime | None:
    if condition.property != "current_utc_datetime":
        return None
    start = at.astimezone(UTC)
    found = openings(condition.values, start, start + _LOOK_AHEAD)
    return found[0][0] if found else None


def _what_it_saw(condition: Condition, now: Circumstances) -> str | None:
    match condition.property:
        case "remote_ip":
            return now.remote_ip
        case "remote_ip_location_region":
            return now.region
        case "auth_provider_id":
            return now.auth_provider_id
        case "client_verified":
            return "verified" if now.is_verified else "not verified"
        case "current_utc_datetime":
            zones = dict.fromkeys(value.split("/", 2)[2] for value in condition.values)
            return ", ".join(f"{now.at.astimezone(ZoneInfo(zone)):%a %H:%M} in {zone}" for zone in zones)
        case _:
            return None
