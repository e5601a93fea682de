"""Clients: whose they are, whether they are verified, what they use now."""

from typing import Final

from starlette.responses import Response

from wardgate.errors import InvalidInput
from wardgate.portal.db import lists
from wardgate.portal.db.tables import Actor
from wardgate.portal.services import devices
from wardgate.portal.web.context import Handler, Page
from wardgate.portal.web.pages.listing import Links, wanted


async def index(page: Page) -> Response:
    """The list."""
    async with page.db.scoped(page.subject) as scope:
        part = await lists.clients(scope, wanted(page, "trust", sort="seen", is_descending=True))
    online = {row[0].id: page.context.hub.presence.is_online(page.account_id, row[0].id) for row in part.rows}
    return page.show("clients/list.html", part=part, links=Links(page, part), online=online)


async def show(page: Page) -> Response:
    """One client."""
    async with page.db.scoped(page.subject) as scope:
        device = await devices.get_client(scope, page.id())
        owner = await scope.get(Actor, str(device.actor_id))
        grants = await lists.grants(scope, page.now, initiating_device_id=device.id)
    is_online = page.context.hub.presence.is_online(page.account_id, device.id)
    return page.show("clients/show.html", device=device, owner=owner, grants=grants, is_online=is_online)


async def rename(page: Page) -> Response:
    """Renames a client."""
    form = await page.form()
    try:
        async with page.db.writing(page.subject) as unit:
            await devices.update_client(unit, page.id(), {"name": form.get("name")})
    except InvalidInput as error:
        return page.go("clients", page.id(), toast=f"Not renamed: {error}.")
    return page.go("clients", page.id(), toast="Client renamed.")


async def verify(page: Page) -> Response:
    """Verifies a client, or takes that back, which ends its authorizations."""
    form = await page.form()
    is_verified = form.get("to") == "verified"
    async with page.db.writing(page.subject) as unit:
        device = await devices.set_verified(unit, page.id(), is_verified)
    return page.go("clients", page.id(), toast=f"{device.name} is {'' if is_verified else 'no longer '}verified.")


async def delete(page: Page) -> Response:
    """Deletes a client; it comes back if its token still works."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            device = await devices.get_client(scope, page.id())
            grants = await lists.count_grants(scope, page.now, initiating_device_id=device.id)
        return page.show("clients/delete.html", device=device, grants=grants)
    await page.form()
    async with page.db.writing(page.subject) as unit:
        device = await devices.delete_client(unit, page.id())
    return page.go("clients", toast=f"{device.name} is deleted.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/clients", index),
    (["GET"], "/clients/{id}", show),
    (["POST"], "/clients/{id}/name", rename),
    (["POST"], "/clients/{id}/verify", verify),
    (["GET", "POST"], "/clients/{id}/delete", delete),
]
