"""People and service accounts: who may sign in, in which groups, with which tokens."""

from datetime import timedelta
from typing import Any, Final

from starlette.responses import Response

from wardgate.errors import InvalidInput, NotFound
from wardgate.portal.db import lists
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Actor, ClientToken, Group
from wardgate.portal.services import actors, groups, tokens
from wardgate.portal.web.context import Handler, Page, errors_of
from wardgate.portal.web.pages.listing import MAX_CHOICES, Links, ticked, wanted

MACHINE: Final = "service_account"
KINDS: Final = {"people": lists.PEOPLE, "service-accounts": (MACHINE,)}
ROLES: Final = {"account_user": "User", "account_admin_user": "Admin"}
_TOKEN_DAYS: Final = 365


def _kind(page: Page) -> str:
    return page.request.url.path.split("/")[2]


async def index(page: Page) -> Response:
    """The list."""
    kind = _kind(page)
    async with page.db.scoped(page.subject) as scope:
        part = await lists.actors(scope, wanted(page, "status", "type", sort="name"), KINDS[kind])
        in_groups = await lists.groups_of_actors(scope, [row[0].id for row in part.rows])
    return page.show("people/list.html", kind=kind, part=part, links=Links(page, part), groups=in_groups, roles=ROLES)


async def show(page: Page) -> Response:
    """One person or service account."""
    async with page.db.scoped(page.subject) as scope:
        actor = await _actor(page, scope)
        in_groups = (await lists.groups_of_actors(scope, [actor.id])).get(actor.id, [])
        everyone = [one for one in await lists.options(scope, Group) if one.type == "managed"]
        reached = await lists.resources_of(
            scope, [group.id for group in [*in_groups, *(everyone if actor.type in lists.PEOPLE else [])]]
        )
        clients = await lists.clients(scope, lists.Wanted(size=lists.SIZES[-1]), actor.id)
        held = await scope.all(
            scope.select(ClientToken)
            .where(ClientToken.actor_id == actor.id, ClientToken.expires_at > page.now)
            .order_by(ClientToken.inserted_at.desc())
        )
    return page.show(
        "people/show.html",
        kind=_kind(page),
        actor=actor,
        groups=in_groups,
        reached=reached,
        clients=clients.rows,
        online={row[0].id: page.context.hub.presence.is_online(page.account_id, row[0].id) for row in clients.rows},
        tokens=held,
        roles=ROLES,
        token=None,
    )


async def _actor(page: Page, scope: Scope) -> Actor:
    actor = await scope.get(Actor, page.id())
    if actor.type not in KINDS[_kind(page)]:
        raise NotFound("the actor is of another kind")
    return actor


async def edit(page: Page) -> Response:
    """The form."""
    async with page.db.scoped(page.subject) as scope:
        actor = await _actor(page, scope) if "id" in page.request.path_params else None
        chosen = (await lists.groups_of_actors(scope, [actor.id])).get(actor.id, []) if actor else []
        form = {
            "name": actor.name if actor else "",
            "email": (actor.email or "") if actor else "",
            "type": actor.type if actor else "account_user",
            "allow_email_otp_sign_in": actor.allow_email_otp_sign_in if actor else True,
            "groups": [group.id for group in chosen],
            "groups_were": [group.id for group in chosen],
        }
        return await _form(page, scope, actor, form, {})


async def _form(
    page: Page, scope: Scope, actor: Actor | None, form: dict[str, Any], errors: Any, status: int = 200
) -> Response:
    static = [group for group in await lists.options(scope, Group) if group.type == "static" and not group.directory_id]
    static = static[:MAX_CHOICES]
    kind = _kind(page)
    return page.show(
        "people/edit.html", status, kind=kind, actor=actor, form=form, errors=errors, groups=static, roles=ROLES
    )


async def save(page: Page) -> Response:
    """Makes or changes one."""
    form = await page.form()
    kind, actor_id = _kind(page), page.request.path_params.get("id")
    fields: dict[str, Any] = {"name": form.get("name")}
    if kind == "people":
        fields |= {
            "email": form.get("email"),
            "type": form.get("type"),
            "allow_email_otp_sign_in": "allow_email_otp_sign_in" in form,
        }
    elif actor_id is None:
        fields["type"] = MACHINE
    add, remove = ticked(form, "groups")
    try:
        async with page.db.writing(page.subject) as unit:
            if actor_id is None:
                actor = await actors.create_actor(unit, fields)
            else:
                await _actor(page, unit)
                actor = await actors.update_actor(unit, actor_id, fields)
            for group_id in add:
                await groups.change_members(unit, group_id, add=[actor.id])
            for group_id in remove:
                await groups.change_members(unit, group_id, remove=[actor.id])
    except InvalidInput as error:
        async with page.db.scoped(page.subject) as scope:
            known = await scope.find(Actor, actor_id) if actor_id else None
            return await _form(
                page,
                scope,
                known,
                {**fields, **{name: form.getlist(name) for name in ("groups", "groups_were")}},
                errors_of(error),
                422,
            )
    return page.go(kind, actor.id, toast=f"{actor.name} is {'added' if actor_id is None else 'saved'}.")


async def switch(page: Page) -> Response:
    """Turns somebody off, which ends their sessions, or on."""
    form = await page.form()
    is_off = form.get("to") == "off"
    async with page.db.writing(page.subject) as unit:
        actor = await _actor(page, unit)
        await actors.update_actor(unit, actor.id, {"is_disabled": is_off})
    return page.go(_kind(page), actor.id, toast=f"{actor.name} is turned {'off' if is_off else 'on'}.")


async def delete(page: Page) -> Response:
    """Asks, then deletes somebody."""
    if page.request.method == "GET":
        async with page.db.scoped(page.subject) as scope:
            actor = await _actor(page, scope)
            clients = await lists.clients(scope, lists.Wanted(), actor.id)
        return page.show("people/delete.html", kind=_kind(page), actor=actor, clients=clients.total)
    await page.form()
    async with page.db.writing(page.subject) as unit:
        actor = await _actor(page, unit)
        await actors.delete_actor(unit, actor.id)
    return page.go(_kind(page), toast=f"{actor.name} is deleted.")


async def make_token(page: Page) -> Response:
    """Makes a client token and shows it, once."""
    await page.form()
    async with page.db.writing(page.subject) as unit:
        actor = await _actor(page, unit)
        fields = {"expires_at": page.now + timedelta(days=_TOKEN_DAYS if actor.type == MACHINE else 7)}
        issued = await tokens.create_client_token(
            unit, actor.id, fields, actor_types=(MACHINE, "account_user", "account_admin_user")
        )
    return page.show("people/token.html", kind=_kind(page), actor=actor, token=issued.text, row=issued.row)


async def revoke_token(page: Page) -> Response:
    """Revokes a client token; who is connected with it is cut off."""
    await page.form()
    async with page.db.writing(page.subject) as unit:
        actor = await _actor(page, unit)
        await tokens.delete_client_token(unit, actor.id, page.id("token"))
    return page.go(_kind(page), actor.id, toast="The token is revoked.")


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [
    route
    for kind in KINDS
    for route in (
        (["GET"], f"/{kind}", index),
        (["GET"], f"/{kind}/new", edit),
        (["POST"], f"/{kind}/new", save),
        (["GET"], f"/{kind}/{{id}}", show),
        (["GET"], f"/{kind}/{{id}}/edit", edit),
        (["POST"], f"/{kind}/{{id}}/edit", save),
        (["POST"], f"/{kind}/{{id}}/switch", switch),
        (["GET", "POST"], f"/{kind}/{{id}}/delete", delete),
        (["POST"], f"/{kind}/{{id}}/tokens", make_token),
        (["POST"], f"/{kind}/{{id}}/tokens/{{token}}/revoke", revoke_token),
    )
]
