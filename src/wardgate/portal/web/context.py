"""What every page has: the account, who is signed in, the time, and how it is shown."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from wardgate import __version__
from wardgate.errors import InvalidInput
from wardgate.ids import AccountId, ActorId
from wardgate.portal.auth.signing import Signer
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Clock
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Account, Actor
from wardgate.portal.domain.subjects import Location, Subject
from wardgate.portal.mail import Mailer
from wardgate.portal.web import security
from wardgate.portal.web.render import Renderer

MAX_FORM: Final = 256 * 1024
MAX_FIELDS: Final = 2000
TOAST: Final = "__Host-toast"
THEME: Final = "theme"
THEMES: Final = ("light", "dark")
_TOAST_LIFETIME: Final = timedelta(minutes=1)
_MAX_THROTTLED: Final = 10_000


class Throttle:
    """So many tries for a key in a while; each try makes the while longer."""

    def __init__(self, clock: Clock, most: int, window_s: float) -> None:
        self._clock, self._most, self._window_s = clock, most, window_s
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def passes(self, key: str) -> bool:
        """Counts a try, and says whether it may go on."""
        now = self._clock.now()
        tries, until = self._tries.pop(key, (0, 0.0))
        tries = tries + 1 if until > now else 1
        self._tries[key] = tries, now + self._window_s
        while len(self._tries) > _MAX_THROTTLED:
            self._tries.popitem(last=False)
        return tries <= self._most

    def forget(self, key: str) -> None:
        """The tries led somewhere."""
        self._tries.pop(key, None)


@dataclass
class WebContext:
    """The pages' tools; one for each application.

    Attributes:
        same_time_s: How long sign-in steps take, whoever is asked for.
        pause: Waits; a test does not.
    """

    hub: Hub
    mailer: Mailer | None
    trusted_ip: Callable[[Request], str | None]
    trusted_location: Callable[[Request], Location]
    same_time_s: float = 1.0
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    renderer: Renderer = field(default_factory=Renderer)

    def __post_init__(self) -> None:
        self.mails = Throttle(self.hub.clock, most=3, window_s=300.0)
        self.attempts = Throttle(self.hub.clock, most=30, window_s=300.0)
        self.background: set[asyncio.Task[None]] = set()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something that no answer waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    @property
    def db(self) -> Database:
        """The database."""
        return self.hub.db

    @property
    def clock(self) -> Clock:
        """The clock."""
        return self.hub.clock

    @cached_property
    def _key(self) -> bytes:
        return self.db.keyring.derive("cookies and links of the pages")

    def signer(self, purpose: str) -> Signer:
        """Signs what goes to browsers for one purpose."""
        return Signer(self._key, purpose)

    def values(self, request: Request) -> dict[str, Any]:
        """What every template may use."""
        theme = request.cookies.get(THEME)
        return {
            "version": __version__,
            "now": self.clock.utc_now(),
            "theme": theme if theme in THEMES else None,
            "path": request.url.path,
            "host": request.url.netloc,
            "query": request.query_params,
            "toast": self.signer("toast").read(request.cookies.get(TOAST), self.clock.utc_now()),
        }

    def show(self, request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page for anybody."""
        answer = self.renderer.answer(template, {**self.values(request), **values}, status, security.NOT_KEPT)
        if TOAST in request.cookies:
            security.drop_cookie(answer, TOAST)
        return answer

    def go(self, path: str, toast: str | None = None) -> Response:
        """Sends the browser to another page, which says `toast` once."""
        answer = RedirectResponse(path, 303, security.NOT_KEPT)
        if toast is not None:
            signed = self.signer("toast").sign(toast[:300], self.clock.utc_now(), _TOAST_LIFETIME)
            security.set_cookie(answer, TOAST, signed, _TOAST_LIFETIME)
        return answer

    def subject(
        self, request: Request, account_id: AccountId, actor: Actor | None = None, provider_id: str | None = None
    ) -> Subject:
        """Who a request acts for."""
        who: dict[str, Any] = {}
        if actor is not None:
            who = {
                "actor_id": ActorId(actor.id),
                "actor_type": actor.type,
                "actor_name": actor.name,
                "actor_email": actor.email,
                "auth_provider_id": provider_id,
            }
        user_agent = request.headers.get("user-agent")
        place = self.trusted_location(request)
        return Subject(
            account_id, "web", remote_ip=self.trusted_ip(request), user_agent=user_agent, location=place, **who
        )


async def read_form(request: Request) -> FormData:
    """The fields of a form.

    Raises:
        HTTPException: It is too large, or no form.
    """
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HTTPException(411, "A form needs its length.")
    if int(length) > MAX_FORM:
        raise HTTPException(413, "The form is too large.")
    return await request.form(max_files=0, max_fields=MAX_FIELDS)


@dataclass
class Page:
    """A request of an admin who is signed in.

    Attributes:
        session_id: Of the row that the cookie names.
    """

    context: WebContext
    request: Request
    account: Account
    actor: Actor
    subject: Subject
    session_id: str
    now: datetime

    @property
    def db(self) -> Database:
        """The database."""
        return self.context.db

    @property
    def account_id(self) -> AccountId:
        """The account's id."""
        return self.subject.account_id

    @property
    def csrf(self) -> str:
        """What forms of this session carry."""
        return self.context.signer("form").tag(self.session_id)

    def id(self, name: str = "id") -> str:
        """An id of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str:
        """A trimmed parameter of the query; empty if it is not there."""
        return self.request.query_params.get(name, "").strip()[:255]

    def path(self, *parts: str) -> str:
        """A page of the account."""
        return "/".join(["", self.account.slug, *(quote(part, safe="") for part in parts)])

    async def form(self) -> FormData:
        """The fields that were sent.

        Raises:
            HTTPException: They are not from a page of this session.
        """
        form = await read_form(self.request)
        tag = form.get(security.FORM_FIELD)
        if not isinstance(tag, str) or not self.context.signer("form").is_tag(self.session_id, tag):
            raise HTTPException(403, "This page was open for too long, or came from elsewhere. Load it again.")
        return form

    def show(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page of the account."""
        known = {"account": self.account, "me": self.actor, "base": f"/{self.account.slug}", "csrf": self.csrf}
        return self.context.show(self.request, template, status, **known, **values)

    def go(self, *parts: str, toast: str | None = None) -> Response:
        """Sends the browser to another page of the account."""
        return self.context.go(self.path(*parts), toast)


Handler = Callable[[Page], Awaitable[Response]]


def errors_of(error: InvalidInput) -> Mapping[str, str]:
    """What to say at each field of the form; problems inside lists are their list's."""
    found: dict[str, str] = {}
    for name, texts in error.fields.items():
        found.setdefault(name.partition("[")[0].partition(".")[0], _sentence(texts[0]))
    return found


_SENTENCES: Final = {
    "can't be blank": "Write something here.",
    "has already been taken": "Another one has this already. Choose another.",
    "is invalid": "This does not fit here. Look at the example.",
    "does not exist": "It is not there any more. Choose another.",
}
_VERBS: Final = ("is ", "has ", "may ", "must ", "should ", "needs ", "does ", "can't ", "ends ", "overlaps ")


def _sentence(text: str) -> str:
    """What the rules say of a field, as a sentence that stands alone."""
    if text in _SENTENCES:
        return _SENTENCES[text]
    text = f"This {text}" if text.startswith(_VERBS) else text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."
