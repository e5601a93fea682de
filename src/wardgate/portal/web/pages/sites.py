"""Sites and their gateways: health, deploying, replacing tokens."""

from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from wardgate.errors import InvalidInput
from wardgate.portal.db import lists
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, Site
from wardgate.portal.services import sites, tokens
from wardgate.portal.web.context import Handler, Page, errors_of

METHODS: Final = {"service": "Linux service", "docker": "Docker", "hand": "By hand"}


@dataclass(frozen=True, slots=True)
class SiteState:
    """A site as a list shows it.

    Attributes:
        health: healthy, degraded, silent (all were seen and none is online), or off (none was ever seen).
    """

    site: Site
    resources: int
    gateways: int
    online: int
    grants: int
    health: str

    @property
    def sentence(self) -> str:
        """Its state in words."""
        if not self.gateways:
            return "No gateway yet. Nothing here can be reached."
        if not self.online:
            return "No gateway is online. Nothing here can be reached."
        many = f"{self.online} of {self.gateways} gateways online."
        if self.health == "degraded":
            return f"{many} You set this site to be healthy from {self.site.health_threshold}."
        return many


async def site_states(page: Page, scope: Scope) -> list[SiteState]:
    """All sites with their health."""
    rows = await lists.sites(scope)
    devices = await lists.gateways(scope)
    grants = await lists.grants_by_receiver(scope, page.now)
    return [
        _state(page, site, count, [one for one in devices if one.site_id == site.id], grants) for site, count in rows
    ]


def _state(page: Page, site: Site, resources: int, devices: list[Device], grants: dict[str, int]) -> SiteState:
    online = sum(is_online(page, one) for one in devices)
    if online >= site.health_threshold:
        health = "healthy"
    elif online:
        health = "degraded"
    else:
        health = "silent" if any(one.last_seen_at for one in devices) else "off"
    held = sum(grants.get(one.id, 0) for one in devices)
    return SiteState(site, resources, len(devices), online, held, health)


def is_online(page: Page, device: Device) -> bool:
    """Whether a device is connected."""
    return page.context.hub.presence.is_online(page.account_id, device.id)


async def index(page: Page) -> Response:
    """All sites."""
    async with page.db.scoped(page.subject) as scope:
        return page.show("sites/list.html", sites=await site_states(page, scope))


async def show(page: Page) -> Response:
    """One site with its gateways and resources."""
    async with page.db.scoped(page.subject) as scope:
        site = await scope.get(Site, page.id())
        devices = list(await lists.gateways(scope, site.id))
        grants = await lists.grants_by_receiver(scope, page.now)
        part = await lists.resources(scope, lists.Wanted(size=lists.SIZES[-1], only={"site_id": site.id}))
        groups = await lists.groups_of(scope, [row[0].id for row in part.rows])
        users = await lists.users_of(scope, [row[0].id for row in part.rows], page.now)
    state = _state(page, site, part.total, devices, grants)
    rows = [(one, is_online(page, one), grants.get(one.id, 0)) for one in devices]
    template = "sites/gateways.html" if page.request.headers.get("hx-request") else "sites/show.html"
    return page.show(template, state=state, site=site, gateways=rows, part=part, groups=groups, users=users)


async def edit(page: Page) -> Response:
    """The form of a new or an existing site."""
    site = None
    if "id" in page.request.path_params:
        async with page.db.scoped(page.subject) as scope:
            site = await scope.get(Site, page.id())
    given = {"name": site.name if site else "", "health_threshold": site.health_threshold if site else 1}
    return page.show("sites/edit.html", site=site, form=given, errors={})


async def save(page: Page) -> Response:
    """Makes or changes a site."""
    form = await page.form()
    site_id = page.request.path_params.get("id")
    threshold = str(form.get("health_threshold") or "1").strip()
    fields: dict[str, Any] = {"name": form.get("name"), "health_threshold": _number(threshold)}
    try:
        async with page.db.writing(page.subject) as unit:
            if site_id is None:
                site = await sites.create_site(unit, fields)
            else:
                site = await sites.update_site(unit, site_id, fields)
    except InvalidInput as error:
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Site, site_id) if site_id else None
        return page.show("sites/edit.html", 422, site=known, form=dict(form), errors=errors_of(error))
    return page.go("sites", site.id, toast="Site added." if site_id is None else "Site saved.")


def _number(text: str) -> Any:
    return int(text) if text.isdecimal() and len(text) < 10 else text


async def delete(page: Page) -> Response:
    """Asks, then deletes a site with all that stands in it."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            site = await scope.get(Site, page.id())
            devices = list(await lists.gateways(scope, site.id))
            grants = await lists.grants_by_receiver(scope, page.now)
            part = await lists.resources(scope, lists.Wanted(only={"site_id": site.id}))
        return page.show("sites/delete.html", state=_state(page, site, part.total, devices, grants), site=site)
    await page.form()
    async with page.db.writing(page.subject) as unit:
        site = await sites.delete_site(unit, page.id())
    return page.go("sites", toast=f"{site.name} is deleted.")


async def deploy(page: Page) -> Response:
    """Names a gateway; then shows the command with its token, once."""
    async with page.db.scoped(page.subject) as scope:
        site = await scope.get(Site, page.id())
    if page.request.method == "GET":
        return page.show("sites/deploy.html", site=site, form={"name": ""}, errors={}, gateway=None)
    form = await page.form()
    try:
        async with page.db.writing(page.subject) as unit:
            name = str(form.get("name", "")).strip()
            gateway = await sites.create_gateway(unit, site.id, {"name": name} if name else {})
            issued = await tokens.create_gateway_token(unit, gateway.id)
    except InvalidInput as error:
        return page.show("sites/deploy.html", 422, site=site, form=dict(form), errors=errors_of(error), gateway=None)
    return _command(page, site, gateway, issued.text)


def _command(page: Page, site: Site, gateway: Device, token: str) -> Response:
    settings = page.context.hub.settings
    url = settings.external_url or f"{page.request.url.scheme}://{page.request.url.netloc}"
    url = url.replace("https://", "wss://", 1).replace("http://", "ws://", 1)
    values: dict[str, Any] = {"token": token, "url": url, "methods": METHODS, "form": {}, "errors": {}}
    return page.show("sites/deploy.html", site=site, gateway=gateway, is_seen=False, **values)


async def waiting(page: Page) -> Response:
    """The part of the deploy page that turns green when the gateway joins."""
    async with page.db.scoped(page.subject) as scope:
        gateway = await sites.get_gateway(scope, page.id(), page.id("gateway"))
    return page.show("sites/waiting.html", site_id=page.id(), gateway=gateway, is_online=is_online(page, gateway))


async def gateway(page: Page) -> Response:
    """One gateway."""
    async with page.db.scoped(page.subject) as scope:
        site = await scope.get(Site, page.id())
        device = await sites.get_gateway(scope, site.id, page.id("gateway"))
        grants = await lists.grants(scope, page.now, receiving_device_id=device.id)
    return page.show("sites/gateway.html", site=site, gateway=device, is_online=is_online(page, device), grants=grants)


async def rename_gateway(page: Page) -> Response:
    """Renames a gateway."""
    form = await page.form()
    try:
        async with page.db.writing(page.subject) as unit:
            await sites.update_gateway(unit, page.id(), page.id("gateway"), {"name": form.get("name")})
    except InvalidInput as error:
        return page.go("sites", page.id(), "gateways", page.id("gateway"), toast=f"Not renamed: {error}.")
    return page.go("sites", page.id(), "gateways", page.id("gateway"), toast="Gateway renamed.")


async def replace_token(page: Page) -> Response:
    """Gives a gateway another token; the old one works until the new one is used."""
    await page.form()
    async with page.db.writing(page.subject) as unit:
        site = await unit.get(Site, page.id())
        device = await sites.get_gateway(unit, site.id, page.id("gateway"))
        issued = await tokens.rotate_gateway_token(unit, device.id)
    return _command(page, site, device, issued.text)


async def delete_gateway(page: Page) -> Response:
    """Deletes a gateway with its token and grants."""
    await page.form()
    async with page.db.writing(page.subject) as unit:
        device = await sites.delete_gateway(unit, page.id(), page.id("gateway"))
    return page.go("sites", page.id(), toast=f"{device.name} is deleted.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    (["GET"], "/sites", index),
    (["GET"], "/sites/new", edit),
    (["POST"], "/sites/new", save),
    (["GET"], "/sites/{id}", show),
    (["GET"], "/sites/{id}/edit", edit),
    (["POST"], "/sites/{id}/edit", save),
    (["GET", "POST"], "/sites/{id}/delete", delete),
    (["GET", "POST"], "/sites/{id}/deploy", deploy),
    (["GET"], "/sites/{id}/gateways/{gateway}", gateway),
    (["GET"], "/sites/{id}/gateways/{gateway}/waiting", waiting),
    (["POST"], "/sites/{id}/gateways/{gateway}/name", rename_gateway),
    (["POST"], "/sites/{id}/gateways/{gateway}/token", replace_token),
    (["POST"], "/sites/{id}/gateways/{gateway}/delete", delete_gateway),
]
