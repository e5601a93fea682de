"""Choosing an account, signing in with a code by e-mail or a link for once, signing out."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from wardgate.errors import Forbidden
from wardgate.ids import AccountId
from wardgate.portal.db.accounts import find_account
from wardgate.portal.db.tables import Account, Actor, new_id
from wardgate.portal.mail import MailNotSent
from wardgate.portal.services import sign_in
from wardgate.portal.web import security
from wardgate.portal.web.context import THEME, THEMES, WebContext, read_form

log = structlog.get_logger("wardgate.portal")
PublicHandler = Callable[[WebContext, Request], Awaitable[Response]]
CODE_COOKIE: Final = "__Host-sign-in"
RECENT_COOKIE: Final = "__Host-recent"
MAX_RECENT: Final = 10
_RECENT_LIFETIME: Final = timedelta(days=400)
_WRONG: Final = "This code is wrong, used up or too old. Ask for another."


async def choose(context: WebContext, request: Request) -> Response:
    """`/`: accounts that were used here, and a field for others."""
    recent = context.signer("recent").read(request.cookies.get(RECENT_COOKIE), context.clock.utc_now()) or []
    accounts = [found for one in recent if (found := await find_account(context.db, str(one)))]
    slug = request.query_params.get("account", "").strip()[:100]
    if slug:
        account = await find_account(context.db, slug)
        if account is not None:
            return context.go(f"/{account.slug}")
    missing = slug or None
    return context.show(request, "choose.html", 404 if missing else 200, accounts=accounts, missing=missing)


async def ask(context: WebContext, request: Request) -> Response:
    """The account's sign-in page."""
    account = await _account(context, request)
    return _asking(context, request, account)


def _asking(context: WebContext, request: Request, account: Account, status: int = 200, **values: Any) -> Response:
    given = {"email": "", "error": None, **values}
    back = security.own_path(request.query_params.get("back"), account.slug)
    can_mail = context.mailer is not None
    return context.show(request, "sign_in.html", status, account=account, back=back, can_mail=can_mail, **given)


async def send_code(context: WebContext, request: Request) -> Response:
    """Mails a code, if there is somebody to mail it to; whoever asks sees the same, after the same time."""
    account = await _account(context, request)
    form = await read_form(request)
    email = str(form.get("email", "")).strip()[:255]
    if context.mailer is None:
        raise HTTPException(403, "This portal sends no mail. Ask its operator for a sign-in link.")
    if "@" not in email:
        return _asking(context, request, account, 422, email=email, error="Write your work e-mail address here.")
    if not context.mails.passes(f"{account.id} {email.lower()}"):
        raise HTTPException(429, "Too many codes were asked for. Wait some minutes, then ask again.")
    started = context.clock.now()
    code = await sign_in.new_code()
    async with context.db.writing(context.subject(request, AccountId(account.id))) as unit:
        passcode = await sign_in.start_code(unit, email, code)
    if passcode is not None:
        context.in_background(_mail(context, request, account, passcode))  # a slow mail server shows nobody who exists
    await context.pause(max(0.0, context.same_time_s - (context.clock.now() - started)))
    back = security.own_path(str(form.get("back", "")) or None, account.slug)
    state = [account.id, passcode.id if passcode else new_id(), email, back]
    answer = context.go(f"/{account.slug}/sign-in/code")
    signed = context.signer("code").sign(state, context.clock.utc_now(), sign_in.PASSCODE_LIFETIME)
    security.set_cookie(answer, CODE_COOKIE, signed, sign_in.PASSCODE_LIFETIME)
    return answer


async def _mail(context: WebContext, request: Request, account: Account, passcode: sign_in.Passcode) -> None:
    assert context.mailer is not None
    text = (
        f"Your code to sign in to {account.name}: {passcode.text}\n\n"
        f"It works once, for 15 minutes, in the browser that asked for it, at {request.url.netloc}.\n"
        "If you did not ask for it, somebody else has typed your address; nothing has happened.\n"
    )
    try:
        await context.mailer.send(str(passcode.actor.email), f"Your code for {account.name}", text)
    except MailNotSent as error:
        context.hub.metrics.failures.labels("mail").inc()
        log.error("a code could not be mailed", problem=str(error))


async def ask_code(context: WebContext, request: Request) -> Response:
    """Where the code is typed."""
    account = await _account(context, request)
    state = _state(context, request, account)
    if state is None:
        return context.go(f"/{account.slug}/sign-in", "That took too long. Ask for a new code.")
    return context.show(request, "code.html", account=account, email=state[2], error=None)


async def check_code(context: WebContext, request: Request) -> Response:
    """Signs in with a code."""
    account = await _account(context, request)
    form = await read_form(request)
    state = _state(context, request, account)
    if state is None:
        return context.go(f"/{account.slug}/sign-in", "That took too long. Ask for a new code.")
    if not context.attempts.passes(f"{account.id} {context.trusted_ip(request)}"):
        raise HTTPException(429)
    code = str(form.get("code", "")).strip().lower()[:32]
    started = context.clock.now()
    actor = await _taken(context, request, account, str(state[1]), code)
    await context.pause(max(0.0, context.same_time_s - (context.clock.now() - started)))
    if actor is None:
        return context.show(request, "code.html", 422, account=account, email=state[2], error=_WRONG)
    context.mails.forget(f"{account.id} {str(state[2]).lower()}")
    return await enter(context, request, account, actor, state[3])


async def take_link(context: WebContext, request: Request) -> Response:
    """Signs in with a link for once; a page asks first, so that whoever only looks at links does not use it up."""
    account = await _account(context, request)
    if request.method == "GET":
        return context.show(request, "link.html", account=account)
    passcode_id, _, text = request.path_params["link"].partition(".")
    if not context.attempts.passes(f"{account.id} {context.trusted_ip(request)}"):
        raise HTTPException(429)
    actor = await _taken(context, request, account, passcode_id, text)
    if actor is None:
        raise HTTPException(403, "This link was used already, or is older than 15 minutes. Ask for another.")
    return await enter(context, request, account, actor, None)


async def _taken(context: WebContext, request: Request, account: Account, passcode_id: str, text: str) -> Actor | None:
    async with context.db.scoped(context.subject(request, AccountId(account.id))) as scope:
        return await sign_in.take_passcode(context.db, scope, passcode_id, text, context.clock.utc_now())


async def enter(context: WebContext, request: Request, account: Account, actor: Actor, back: str | None) -> Response:
    """Opens a session; only admins get one."""
    if account.is_disabled:
        raise HTTPException(403, "This account is disabled. Ask its operator.")
    account_id = AccountId(account.id)
    try:
        async with context.db.writing(context.subject(request, account_id, actor)) as unit:
            session = await sign_in.open_session(unit, actor)
    except Forbidden:
        raise HTTPException(403, "Only admins may use these pages. Your app works without them.") from None
    now = context.clock.utc_now()
    answer = context.go(back or f"/{account.slug}")
    lifetime = session.expires_at - now
    name = security.session_cookie(account_id)
    security.set_cookie(answer, name, context.signer("session").sign(session.id, now, lifetime), lifetime)
    security.drop_cookie(answer, CODE_COOKIE)
    _remember(context, request, answer, account)
    return answer


def _remember(context: WebContext, request: Request, answer: Response, account: Account) -> None:
    now = context.clock.utc_now()
    recent = context.signer("recent").read(request.cookies.get(RECENT_COOKIE), now) or []
    accounts = [account.id, *(one for one in recent if one != account.id)][:MAX_RECENT]
    signed = context.signer("recent").sign(accounts, now, _RECENT_LIFETIME)
    security.set_cookie(answer, RECENT_COOKIE, signed, _RECENT_LIFETIME)


async def sign_out(context: WebContext, request: Request) -> Response:
    """Ends the session of this browser."""
    account = await _account(context, request)
    account_id, now = AccountId(account.id), context.clock.utc_now()
    name = security.session_cookie(account_id)
    session_id = context.signer("session").read(request.cookies.get(name), now)
    if isinstance(session_id, str):
        async with context.db.writing(context.subject(request, account_id)) as unit:
            await sign_in.end_session(unit, session_id)
    answer = context.go(f"/{account.slug}/sign-in", "You are signed out.")
    security.drop_cookie(answer, name)
    return answer


async def set_theme(context: WebContext, request: Request) -> Response:
    """Light, dark, or as the system has it."""
    form = await read_form(request)
    theme, back = str(form.get("theme", "")), str(form.get("back", "/"))
    is_own = back.startswith("/") and not back.startswith("//") and "\\" not in back and back.isprintable()
    answer = context.go(back if is_own else "/")
    if theme in THEMES:
        answer.set_cookie(THEME, theme, max_age=int(_RECENT_LIFETIME.total_seconds()), path="/", samesite="lax")
    else:
        answer.delete_cookie(THEME, path="/")
    return answer


async def _account(context: WebContext, request: Request) -> Account:
    account = await find_account(context.db, request.path_params["account"])
    if account is None:
        raise HTTPException(404)
    return account


def _state(context: WebContext, request: Request, account: Account) -> list[Any] | None:
    state = context.signer("code").read(request.cookies.get(CODE_COOKIE), context.clock.utc_now())
    return state if isinstance(state, list) and len(state) == 4 and state[0] == account.id else None


ROUTES: Final[list[tuple[list[str], str, PublicHandler]]] = [
    (["GET"], "/", choose),
    (["POST"], "/theme", set_theme),
    (["GET"], "/{account}/sign-in", ask),
    (["POST"], "/{account}/sign-in", send_code),
    (["GET"], "/{account}/sign-in/code", ask_code),
    (["POST"], "/{account}/sign-in/code", check_code),
    (["GET", "POST"], "/{account}/sign-in/link/{link}", take_link),
    (["POST"], "/{account}/sign-out", sign_out),
]
