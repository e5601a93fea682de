"""Why a person can or cannot reach a resource, as reasons that a page or a command can show.

`explain` asks the same `authorize` that decides about real requests, and then looks at what else is in the way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wardgate.ids import GroupId, PolicyId
from wardgate.portal.domain.authorizations import Denied, Granted, PolicyRule, authorize
from wardgate.portal.domain.conditions import Circumstances
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


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: yes or no, and why; all that stands in the way is listed."""

    can_reach: bool
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A policy of the resource, seen from one actor; `rule` is `None` if the actor is not in its group."""

    policy_id: PolicyId
    group_id: GroupId | None
    group_name: str | None
    is_disabled: bool
    rule: PolicyRule | None


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """Everything the answer depends on.

    Attributes:
        gateway: The gateway a request would get now; `None` where none is needed (device pools).
    """

    actor_name: str
    resource_name: str
    account_is_disabled: bool
    actor_is_disabled: bool
    policies: Sequence[PolicyFacts]
    circumstances: Circumstances
    gateway: OnlineGateway | NoGateway | None


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
    return Explanation(not obstacles, tuple(obstacles + found))


def _by_policies(facts: AccessFacts) -> Granted | list[Reason]:
    if not facts.policies:
        return [Reason("no_policy", f"No policy allows anyone to reach {facts.resource_name}.")]
    rules = [one.rule for one in facts.policies if one.rule is not None and not one.is_disabled]
    verdict = authorize(rules, facts.circumstances)
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
