"""Resources: what can be reached, by whom."""

from typing import Any, Final

from starlette.datastructures import FormData
from starlette.responses import Response

from wardgate.errors import InvalidInput
from wardgate.portal.db import lists
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Policy, Resource, Site
from wardgate.portal.domain.resources import USER_TYPES
from wardgate.portal.services import resources
from wardgate.portal.web import words
from wardgate.portal.web.context import Handler, Page, errors_of
from wardgate.portal.web.pages.listing import MAX_CHOICES, Links, ticked, wanted

TYPES: Final = {
    "dns": "DNS name",
    "ip": "IP address",
    "cidr": "Network",
    "static_device_pool": "Device pool",
    "internet": "Internet",
}
POOL: Final = "static_device_pool"
PROTOCOLS: Final = ("tcp", "udp", "icmp")
_CREATABLE: Final = (*USER_TYPES, POOL)


async def index(page: Page) -> Response:
    """The list."""
    asked = wanted(page, "site_id", "type", "access", sort="name")
    async with page.db.scoped(page.subject) as scope:
        part = await lists.resources(scope, asked)
        ids = [row[0].id for row in part.rows]
        groups = await lists.groups_of(scope, ids)
        users = await lists.users_of(scope, ids, page.now)
        sites = await lists.options(scope, Site)
    return page.show(
        "resources/list.html",
        part=part,
        links=Links(page, part),
        groups=groups,
        users=users,
        sites=sites,
        types=TYPES,
        words=words,
    )


async def show(page: Page) -> Response:
    """One resource: who is allowed, who uses it."""
    async with page.db.scoped(page.subject) as scope:
        resource = await scope.get(Resource, page.id())
        site = await scope.find(Site, resource.site_id) if resource.site_id else None
        policies = await lists.policies(scope, lists.Wanted(size=lists.SIZES[-1], only={"resource_id": resource.id}))
        grants = await lists.grants(scope, page.now, resource_id=resource.id)
        members = await lists.pool_members(scope, resource.id) if resource.type == POOL else []
    return page.show(
        "resources/show.html",
        resource=resource,
        site=site,
        policies=policies,
        grants=grants,
        members=members,
        types=TYPES,
        words=words,
    )


async def edit(page: Page) -> Response:
    """The form of a new or an existing resource."""
    async with page.db.scoped(page.subject) as scope:
        resource = await scope.get(Resource, page.id()) if "id" in page.request.path_params else None
        members = await lists.pool_members(scope, resource.id) if resource and resource.type == POOL else []
        given = _form_of(resource, [device.id for device, _ in members], page.query("site"))
        return await _form(page, scope, resource, given, {})


async def _form(
    page: Page, scope: Scope, resource: Resource | None, form: dict[str, Any], errors: Any, status: int = 200
) -> Response:
    sites = [site for site in await lists.options(scope, Site) if site.managed_by == "account"]
    clients = await lists.clients(scope, lists.Wanted(size=MAX_CHOICES))
    return page.show(
        "resources/edit.html",
        status,
        resource=resource,
        form=form,
        errors=errors,
        sites=sites,
        clients=[(row[0], row[1]) for row in clients.rows],
        types={name: TYPES[name] for name in (_CREATABLE if resource is None else (resource.type,))}
        if resource is None or resource.type == POOL
        else {name: TYPES[name] for name in USER_TYPES},
    )


def _form_of(resource: Resource | None, members: list[str], site_id: str) -> dict[str, Any]:
    if resource is None:
        return {
            "type": "dns",
            "site_id": site_id,
            "ip_stack": "dual",
            "members": [],
            "members_were": [],
            "ports": {},
            "protocols": [],
        }
    return {
        "type": resource.type,
        "name": resource.name,
        "address": resource.address or "",
        "address_description": resource.address_description or "",
        "site_id": resource.site_id or "",
        "ip_stack": resource.ip_stack or "dual",
        "protocols": [one["protocol"] for one in resource.filters],
        "ports": {one["protocol"]: ", ".join(one.get("ports") or []) for one in resource.filters},
        "members": members,
        "members_were": members,
    }


def _fields_of(form: FormData) -> dict[str, Any]:
    kind = str(form.get("type", ""))
    ports = {name: [part.strip() for part in str(form.get(f"{name}_ports", "")).split(",") if part.strip()]
             for name in ("tcp", "udp")}  # fmt: skip
    return {
        "type": kind,
        "name": form.get("name"),
        "address": None if kind == POOL else form.get("address"),
        "address_description": form.get("address_description") or None,
        "site_id": None if kind == POOL else form.get("site_id") or None,
        "ip_stack": form.get("ip_stack") if kind == "dns" else None,
        "filters": [{"protocol": name, "ports": ports.get(str(name), [])} for name in form.getlist("protocols")],
    }


async def save(page: Page) -> Response:
    """Makes or changes a resource."""
    form = await page.form()
    fields = _fields_of(form)
    resource_id = page.request.path_params.get("id")
    add, remove = ticked(form, "members")
    try:
        async with page.db.writing(page.subject) as unit:
            if resource_id is None:
                resource = await resources.create_resource(unit, fields, _CREATABLE)
            else:
                resource = await resources.update_resource(unit, resource_id, fields)
            if resource.type == POOL:
                await resources.change_pool_members(unit, resource.id, add=add, remove=remove)
    except InvalidInput as error:
        given = {**_kept(form), **{name: form.getlist(name) for name in ("members", "members_were")}}
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Resource, resource_id) if resource_id else None
            return await _form(page, scope, known, given, errors_of(error), 422)
    if resource_id is None:
        return page.go("resources", resource.id, toast="Resource added. Nobody reaches it yet.")
    return page.go("resources", resource.id, toast="Resource saved.")


def _kept(form: FormData) -> dict[str, Any]:
    return {
        **{name: str(value) for name, value in form.items()},
        "protocols": [str(one) for one in form.getlist("protocols")],
        "ports": {name: str(form.get(f"{name}_ports", "")) for name in ("tcp", "udp")},
    }


async def delete(page: Page) -> Response:
    """Asks, then deletes a resource with its policies."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            resource = await scope.get(Resource, page.id())
            policies = await scope.all(scope.select(Policy).where(Policy.resource_id == resource.id))
            grants = await lists.count_grants(scope, page.now, resource_id=resource.id)
        return page.show("resources/delete.html", resource=resource, policies=len(policies), grants=grants)
    await page.form()
    async with page.db.writing(page.subject) as unit:
        resource = await resources.delete_resource(unit, page.id())
    return page.go("resources", toast=f"{resource.name} is deleted.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/resources", index),
    (["GET"], "/resources/new", edit),
    (["POST"], "/resources/new", save),
    (["GET"], "/resources/{id}", show),
    (["GET"], "/resources/{id}/edit", edit),
    (["POST"], "/resources/{id}/edit", save),
    (["GET", "POST"], "/resources/{id}/delete", delete),
]
