"""Groups: their members, and what they reach."""

from typing import Any, Final

from starlette.responses import Response

from wardgate.errors import InvalidInput
from wardgate.portal.db import lists
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Group
from wardgate.portal.services import groups
from wardgate.portal.web.context import Handler, Page, errors_of
from wardgate.portal.web.pages.listing import MAX_CHOICES, Links, ticked, wanted


async def _counts(scope: Scope, some: list[Group]) -> dict[str, int]:
    counts = await lists.count_members(scope, [group.id for group in some])
    if any(group.type == "managed" for group in some):
        everyone = await lists.count_people(scope)
        counts |= {group.id: everyone for group in some if group.type == "managed"}
    return counts


async def index(page: Page) -> Response:
    """The list."""
    async with page.db.scoped(page.subject) as scope:
        part = await lists.groups(scope, wanted(page, sort="name"))
        some = [row[0] for row in part.rows]
        counts = await _counts(scope, some)
        reached = await lists.resources_of(scope, [group.id for group in some])
    resources: dict[str, int] = {}
    for policy, group, _ in reached:
        resources[group.id] = resources.get(group.id, 0) + (not policy.is_disabled)
    return page.show("groups/list.html", part=part, links=Links(page, part), members=counts, resources=resources)


async def show(page: Page) -> Response:
    """One group."""
    async with page.db.scoped(page.subject) as scope:
        group = await scope.get(Group, page.id())
        members = await lists.members(scope, group.id)
        total = (await _counts(scope, [group])).get(group.id, 0)
        reached = await lists.resources_of(scope, [group.id])
    return page.show("groups/show.html", group=group, members=members, total=total, reached=reached)


async def edit(page: Page) -> Response:
    """The form."""
    async with page.db.scoped(page.subject) as scope:
        group = await scope.get(Group, page.id()) if "id" in page.request.path_params else None
        members = [actor.id for actor in await lists.members(scope, group.id, MAX_CHOICES)] if group else []
        form = {"name": group.name if group else "", "members": members, "members_were": members}
        return await _form(page, scope, group, form, {})


async def _form(
    page: Page, scope: Scope, group: Group | None, form: dict[str, Any], errors: Any, status: int = 200
) -> Response:
    part = await lists.actors(scope, lists.Wanted(size=MAX_CHOICES), (*lists.PEOPLE, "service_account"))
    people = [row[0] for row in part.rows]
    return page.show("groups/edit.html", status, group=group, form=form, errors=errors, people=people)


async def save(page: Page) -> Response:
    """Makes or changes a group."""
    form = await page.form()
    group_id = page.request.path_params.get("id")
    add, remove = ticked(form, "members")
    try:
        async with page.db.writing(page.subject) as unit:
            fields = {"name": form.get("name")}
            if group_id is None:
                group = await groups.create_group(unit, fields)
            else:
                group = await groups.update_group(unit, group_id, fields)
            await groups.change_members(unit, group.id, add=add, remove=remove)
    except InvalidInput as error:
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Group, group_id) if group_id else None
            given: dict[str, Any] = {name: form.getlist(name) for name in ("members", "members_were")}
            given["name"] = form.get("name")
            return await _form(page, scope, known, given, errors_of(error), 422)
    return page.go("groups", group.id, toast="Group added." if group_id is None else "Group saved.")


async def delete(page: Page) -> Response:
    """Asks, then deletes a group."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            group = await scope.get(Group, page.id())
            total = (await _counts(scope, [group])).get(group.id, 0)
            reached = await lists.resources_of(scope, [group.id])
        return page.show("groups/delete.html", group=group, members=total, policies=len(reached))
    await page.form()
    async with page.db.writing(page.subject) as unit:
        group = await groups.delete_group(unit, page.id())
    return page.go("groups", toast=f"{group.name} is deleted.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/groups", index),
    (["GET"], "/groups/new", edit),
    (["POST"], "/groups/new", save),
    (["GET"], "/groups/{id}", show),
    (["GET"], "/groups/{id}/edit", edit),
    (["POST"], "/groups/{id}/edit", save),
    (["GET", "POST"], "/groups/{id}/delete", delete),
]
