"""Policies: who may reach what, under which conditions."""

from collections.abc import Mapping
from typing import Any, Final

from wardgate.errors import Forbidden, InvalidInput, NotFound, invalid
from wardgate.portal.db.authorizations import delete_where, grants_where
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Group, Policy, Resource
from wardgate.portal.domain import checks
from wardgate.portal.domain.conditions import parse_conditions
from wardgate.portal.services import limits
from wardgate.portal.services.grants import redecide

_DECIDES: Final = ("group_id", "resource_id", "conditions", "is_disabled")


async def create_policy(unit: UnitOfWork, fields: Mapping[str, Any]) -> Policy:
    """Gives a group access to a resource.

    Raises:
        InvalidInput: A field is not acceptable, or the pair has a policy already.
        NotFound: There is no such resource.
        Forbidden: The account has not the feature that the policy needs.
    """
    await limits.check_open(unit)
    values = _check(fields)
    resource = await _check_references(unit, values, _needed_features(None, values))
    uploads = fields.get("flow_log_uploads_enabled")
    if uploads is None:
        values["flow_log_uploads_enabled"] = resource.type != "internet"
    policy = Policy(account_id=unit.account_id, **values)
    await unit.insert(policy, unique="group_id")
    return policy


async def update_policy(unit: UnitOfWork, policy_id: str, fields: Mapping[str, Any]) -> Policy:
    """Changes a policy; grants that neither it nor another policy allows any more end.

    Other flow-log uploads end all its grants: both ends need new tokens.

    Raises:
        NotFound: There is no such policy or resource.
        InvalidInput: A field is not acceptable, or the pair has a policy already.
        Forbidden: The account has not the feature that the policy needs.
    """
    policy = await unit.get(Policy, policy_id)
    known = {
        name: getattr(policy, name)
        for name in ("group_id", "resource_id", "description", "conditions", "flow_log_uploads_enabled", "is_disabled")
    }
    values = _check({**known, **fields}, is_orphan=policy.group_id is None and "group_id" not in fields)
    await _check_references(unit, values, _needed_features(policy, values))
    is_other = any(values[name] != getattr(policy, name) for name in _DECIDES)
    if values["flow_log_uploads_enabled"] != policy.flow_log_uploads_enabled:
        await delete_where(unit, policy_id=policy.id)
    await unit.update(policy, unique="group_id", **values)
    if is_other:
        await redecide(unit, await grants_where(unit, policy_id=policy.id))
    return policy


async def delete_policy(unit: UnitOfWork, policy_id: str) -> Policy:
    """Takes access away, unless another policy gives it as well.

    Raises:
        NotFound: There is no such policy.
    """
    policy = await unit.get(Policy, policy_id)
    await redecide(unit, await grants_where(unit, policy_id=policy.id), without_policies=[policy.id])
    await unit.delete(policy)
    return policy


def _check(fields: Mapping[str, Any], *, is_orphan: bool = False) -> dict[str, Any]:
    problems = checks.Problems()
    values: dict[str, Any] = {
        "group_id": checks.uuid(problems, fields, "group_id", needed=not is_orphan),
        "resource_id": checks.uuid(problems, fields, "resource_id"),
        "description": checks.text(problems, fields, "description", most=1024, needed=False),
        "is_disabled": checks.flag(problems, fields, "is_disabled", False),
        "flow_log_uploads_enabled": True,
    }
    if fields.get("flow_log_uploads_enabled") is not None:
        values["flow_log_uploads_enabled"] = checks.flag(problems, fields, "flow_log_uploads_enabled", True)
    try:
        values["conditions"] = [one.stored() for one in parse_conditions(fields.get("conditions") or [])]
    except InvalidInput as error:
        problems.merge(error)
    problems.raise_if_any()
    return values


def _needed_features(policy: Policy | None, values: dict[str, Any]) -> set[str]:
    """A plan without a feature keeps what was made with it, but changes nothing of it except to remove it."""
    needed = set()
    if values["conditions"] and (policy is None or values["conditions"] != policy.conditions):
        needed.add("policy_conditions")
    if policy is None or values["resource_id"] != policy.resource_id:
        needed.add("internet_resource")
    return needed


async def _check_references(unit: UnitOfWork, values: dict[str, Any], needed: set[str]) -> Resource:
    if values["group_id"] is not None and await unit.find(Group, values["group_id"]) is None:
        raise invalid("group_id", "does not exist", "unknown_reference", "the id of a group")
    resource = await unit.find(Resource, values["resource_id"])
    if resource is None:
        raise NotFound("there is no such resource")
    features = (await unit.account()).features
    if "internet_resource" in needed and resource.type == "internet" and not features.get("internet_resource"):
        raise _missing("internet_resource", "the Internet resource")
    if "policy_conditions" in needed and not features.get("policy_conditions"):
        raise _missing("policy_conditions", "policy conditions")
    return resource


def _missing(feature: str, words: str) -> Forbidden:
    return Forbidden(f"the account's plan has not {words}", "feature_missing", feature=feature)
