"""Policies: which group reaches which resource, and only when."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.responses import Response

from wardgate.errors import InvalidInput, NotFound, PolicyTestFailed
from wardgate.portal.db import lists
from wardgate.portal.db.identity_tables import AuthProvider
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Group, Policy, Resource
from wardgate.portal.services import policies
from wardgate.portal.web import words
from wardgate.portal.web.context import Handler, Page, errors_of
from wardgate.portal.web.pages.effects import effect_of
from wardgate.portal.web.pages.listing import Links, wanted


async def index(page: Page) -> Response:
    """The list."""
    asked = wanted(page, "status", "group_id", "resource_id", sort="group")
    async with page.db.scoped(page.subject) as scope:
        part = await lists.policies(scope, asked)
        members = await _members(scope, [row[1] for row in part.rows if row[1]])
        providers = await _providers(scope)
    return page.show(
        "policies/list.html",
        part=part,
        links=Links(page, part),
        members=members,
        providers=providers,
        words=words,
    )


async def _members(scope: Scope, groups: Sequence[Group]) -> dict[str, int]:
    counts = await lists.count_members(scope, [group.id for group in groups])
    if any(group.type == "managed" for group in groups):
        everyone = await lists.count_people(scope)
        counts |= {group.id: everyone for group in groups if group.type == "managed"}
    return counts


async def _providers(scope: Scope) -> dict[str, str]:
    return {one.id: one.name for one in await scope.all(scope.select(AuthProvider))}


async def edit(page: Page) -> Response:
    """The form of a new or an existing policy."""
    async with page.db.scoped(page.subject) as scope:
        policy = await scope.get(Policy, page.id()) if "id" in page.request.path_params else None
        return await _form(page, scope, policy, _form_of(page, policy), {})


async def _form(
    page: Page, scope: Scope, policy: Policy | None, form: dict[str, Any], errors: Mapping[str, str], status: int = 200
) -> Response:
    return page.show(
        "policies/edit.html",
        status,
        policy=policy,
        form=form,
        errors=errors,
        groups=await lists.options(scope, Group),
        resources=await lists.options(scope, Resource),
        providers=await _providers(scope),
        grants=await lists.count_grants(scope, page.now, policy_id=policy.id) if policy else 0,
        days=words.DAYS,
    )


def _form_of(page: Page, policy: Policy | None) -> dict[str, Any]:
    if policy is None:
        return {
            "group_id": page.query("group"),
            "resource_id": page.query("resource"),
            "flow_log_uploads_enabled": True,
            "conditions": {},
        }
    return {
        "group_id": policy.group_id or "",
        "resource_id": policy.resource_id,
        "description": policy.description or "",
        "flow_log_uploads_enabled": policy.flow_log_uploads_enabled,
        "conditions": {one["property"]: _shown(one) for one in policy.conditions},
    }


def _shown(one: Mapping[str, Any]) -> dict[str, Any]:
    """A stored condition as the form has it."""
    values = [str(value) for value in one["values"]]
    if one["property"] == "current_utc_datetime":
        parts = [value.split("/", 2) for value in values]
        return {
            "operator": one["operator"],
            "hours": {day: "00:00-24:00" if ranges == "true" else ranges for day, ranges, _ in parts},
            "zone": parts[0][2] if parts else "UTC",
        }
    return {"operator": one["operator"], "values": values, "text": ", ".join(values)}


def _conditions_of(form: FormData) -> list[dict[str, Any]]:
    """The conditions that are checked off."""
    found = []
    for name in form.getlist("conditions"):
        operator = str(form.get(f"{name}_operator", ""))
        match name:
            case "current_utc_datetime":
                zone = str(form.get("zone", "")).strip()
                values = [
                    f"{day}/{_whole_day(ranges)}/{zone}"
                    for day in words.DAYS
                    if (ranges := str(form.get(f"hours_{day}", "")).replace(" ", ""))
                ]
                operator = "is_in_day_of_week_time_ranges"
            case "client_verified":
                values, operator = ["true"], "is"
            case "auth_provider_id":
                values = [str(one) for one in form.getlist("auth_provider_id")]
            case _:
                values = [part.strip() for part in str(form.get(str(name), "")).split(",") if part.strip()]
        if name == "remote_ip_location_region":
            values = [value.upper() for value in values]
        found.append({"property": name, "operator": operator, "values": values})
    return found


def _whole_day(ranges: str) -> str:
    ranges = ranges.replace("–", "-")
    return "true" if ranges in ("00:00-24:00", "0-24", "true") else ranges


def _fields_of(form: FormData) -> dict[str, Any]:
    return {
        "group_id": form.get("group_id") or None,
        "resource_id": form.get("resource_id") or None,
        "description": form.get("description") or None,
        "flow_log_uploads_enabled": "flow_log_uploads_enabled" in form,
        "conditions": _conditions_of(form),
    }


async def _write(unit: UnitOfWork, policy_id: str | None, fields: dict[str, Any]) -> None:
    if policy_id is None:
        await policies.create_policy(unit, fields)
    else:
        await policies.update_policy(unit, policy_id, fields)


async def show_effect(page: Page) -> Response:
    """The panel beside the form: who gains, who loses, and which tests the change touches."""
    form = await page.form()
    policy_id = page.request.path_params.get("id")
    if policy_id is not None:
        async with page.db.scoped(page.subject) as scope:
            await scope.get(Policy, policy_id)
    try:
        effect = await effect_of(page, lambda unit: _write(unit, policy_id, _fields_of(form)))
    except (InvalidInput, NotFound):
        return page.show("policies/effect.html", effect=None)
    return page.show("policies/effect.html", effect=effect)


async def save(page: Page) -> Response:
    """Makes or changes a policy; one that breaks a policy test needs a reason."""
    form = await page.form()
    fields = _fields_of(form)
    policy_id = page.request.path_params.get("id")
    reason = str(form.get("reason", "")).strip()
    try:
        async with page.db.writing(replace(page.subject, force_reason=reason or None)) as unit:
            await _write(unit, policy_id, fields)
    except PolicyTestFailed as error:
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Policy, policy_id) if policy_id else None
            shown = {one["property"]: _typed(one, form) for one in fields["conditions"]}
            errors = {"reason": f"{str(error)[:1].upper()}{str(error)[1:]}. Change it, or say why it may."}
            return await _form(page, scope, known, {**fields, "conditions": shown}, errors, 409)
    except InvalidInput as error:
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Policy, policy_id) if policy_id else None
            shown = {one["property"]: _typed(one, form) for one in fields["conditions"]}
            return await _form(page, scope, known, {**fields, "conditions": shown}, errors_of(error), 422)
    return page.go("policies", toast="Policy added." if policy_id is None else "Policy saved.")


def _typed(one: Mapping[str, Any], form: FormData) -> dict[str, Any]:
    """A condition as it was typed."""
    hours = {day: str(form.get(f"hours_{day}", "")) for day in words.DAYS}
    return {
        "operator": one["operator"],
        "values": one["values"],
        "text": str(form.get(str(one["property"]), "")),
        "hours": hours,
        "zone": str(form.get("zone", "")),
    }


async def switch(page: Page) -> Response:
    """Turns a policy on or off."""
    form = await page.form()
    is_off = form.get("to") == "off"
    async with page.db.writing(page.subject) as unit:
        await policies.update_policy(unit, page.id(), {"is_disabled": is_off})
    return page.go("policies", toast="Policy turned off." if is_off else "Policy turned on.")


async def delete(page: Page) -> Response:
    """Asks, then deletes a policy."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            policy = await scope.get(Policy, page.id())
            group = await scope.find(Group, policy.group_id) if policy.group_id else None
            resource = await scope.get(Resource, policy.resource_id)
            grants = await lists.count_grants(scope, page.now, policy_id=policy.id)
        effect = await effect_of(page, lambda unit: policies.delete_policy(unit, policy.id))
        values: dict[str, Any] = {
            "policy": policy,
            "group": group,
            "resource": resource,
            "grants": grants,
            "effect": effect,
        }
        return page.show("policies/delete.html", **values)
    await page.form()
    async with page.db.writing(page.subject) as unit:
        await policies.delete_policy(unit, page.id())
    return page.go("policies", toast="The policy is deleted.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/policies", index),
    (["GET"], "/policies/new", edit),
    (["POST"], "/policies/new", save),
    (["POST"], "/policies/new/effect", show_effect),
    (["GET"], "/policies/{id}", edit),
    (["POST"], "/policies/{id}", save),
    (["POST"], "/policies/{id}/effect", show_effect),
    (["POST"], "/policies/{id}/switch", switch),
    (["GET", "POST"], "/policies/{id}/delete", delete),
]
