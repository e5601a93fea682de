"""The first account of a portal, made through the link that `wardgate portal serve` prints while there is none."""

import re
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wardgate.errors import InvalidInput
from wardgate.ids import AccountId
from wardgate.portal.db.accounts import count_accounts, find_actor
from wardgate.portal.domain import subjects
from wardgate.portal.services.accounts import create_account
from wardgate.portal.services.sites import create_site
from wardgate.portal.web.context import WebContext, errors_of, read_form
from wardgate.portal.web.pages.sign_in import PublicHandler, enter

PURPOSE: Final = "first account"


async def first_account_path(context: WebContext) -> str | None:
    """The path of the form with its key; `None` if there is an account already."""
    if await count_accounts(context.db):
        return None
    return f"/sign-up?key={context.signer(PURPOSE).tag(PURPOSE)}"


async def ask(context: WebContext, request: Request) -> Response:
    """The form."""
    await _check(context, request)
    return context.show(request, "sign_up.html", form={}, errors={})


async def make(context: WebContext, request: Request) -> Response:
    """Makes the account with its first admin and a site, and signs the admin in."""
    await _check(context, request)
    form = {name: str(value).strip() for name, value in (await read_form(request)).items()}
    slug = form.get("slug") or re.sub(r"[^a-z0-9]+", "_", form.get("company", "").lower()).strip("_")
    admin = {"name": form.get("name"), "email": form.get("email"), "type": "account_admin_user"}
    fields = {"name": form.get("company"), "slug": slug}
    try:
        account = await create_account(context.db, fields, admin={**admin, "allow_email_otp_sign_in": True})
    except InvalidInput as error:
        return context.show(request, "sign_up.html", 422, form=form, errors=_by_field(error, form))
    subject = subjects.system(AccountId(account.id))
    async with context.db.writing(subject) as unit:
        await create_site(unit, {"name": "Default Site"})
        actor = await find_actor(unit, str(form.get("email")))
    assert actor is not None
    return await enter(context, request, account, actor, None)


def _by_field(error: InvalidInput, form: dict[str, str]) -> dict[str, Any]:
    errors = dict(errors_of(error))
    if not form.get("company"):
        errors["company"] = errors.get("name", "Write something here.")
    return errors


async def _check(context: WebContext, request: Request) -> None:
    signer = context.signer(PURPOSE)
    if await count_accounts(context.db) or not signer.is_tag(PURPOSE, request.query_params.get("key", "")):
        raise HTTPException(403, "This link works once, for the first account. Ask the portal's operator for another.")


ROUTES: Final[list[tuple[list[str], str, PublicHandler]]] = [
    (["GET"], "/sign-up", ask),
    (["POST"], "/sign-up", make),
]
