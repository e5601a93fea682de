"""The pages of a portal with one account, asked as a browser asks."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from wardgate.portal.app import create_app
from wardgate.portal.config import Settings
from wardgate.portal.db.tables import Account
from wardgate.portal.services import sign_in
from wardgate.portal.services.actors import create_actor

HOST = "https://portal.example"


@dataclass
class Mailbox:
    """Keeps the mails that were sent."""

    mails: list[tuple[str, str, str]] = field(default_factory=list)

    async def send(self, to: str, subject: str, text: str) -> None:
        self.mails.append((to, subject, text))

    def code(self) -> str:
        found = re.search(r": ([a-z0-9]{6})\n", self.mails[-1][2])
        assert found
        return found[1]


@dataclass
class Browser:
    """Follows no redirect by itself, keeps cookies, and fills forms as they are."""

    client: httpx.AsyncClient

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path, headers={"accept": "text/html"})
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        return answer.text

    async def post(self, path: str, status: int = 303, **fields: Any) -> httpx.Response:
        page = await self.client.get(path, headers={"accept": "text/html"})
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        return await self.send(path, status, **({"csrf": found[1]} if found else {}), **fields)

    async def send(self, path: str, status: int = 303, **fields: Any) -> httpx.Response:
        """A form from wherever the path's own page is not."""
        answer = await self.client.post(path, data=fields, headers={"sec-fetch-site": "same-origin"})
        await asyncio.sleep(0)  # what the answer did not wait for has its turn
        assert answer.status_code == status, (path, answer.status_code, answer.text[:2000])
        return answer


@dataclass
class Pages:
    """An application and its mailbox."""

    app: FastAPI
    mailbox: Mailbox
    lab: Lab
    clock: ManualClock

    def browser(self) -> Browser:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return Browser(httpx.AsyncClient(transport=transport, base_url=HOST))

    async def link_for(self, email: str) -> str:
        db, link = self.app.state.hub.db, await sign_in.new_link()
        async with db.writing(self.lab.subject) as unit:
            passcode = await sign_in.start_link(unit, email, link)
            account = await unit.session.get(Account, self.lab.account.id)
        return f"/{account.slug}/sign-in/link/{passcode.id}.{passcode.text}"


async def no_pause(seconds: float) -> None:
    assert seconds >= 0


@pytest.fixture
async def pages(database_url: str, clock: ManualClock) -> AsyncIterator[Pages]:
    settings = Settings(listen="127.0.0.1:0", database=database_url, secret_key=SECRET_KEY)
    app = create_app(settings, clock=clock)
    mailbox = Mailbox()
    app.state.web.mailer = mailbox
    app.state.web.pause = no_pause
    db = app.state.hub.db
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        fields = {"name": "Ada Admin", "type": "account_admin_user", "email": "ada@corp.example"}
        await create_actor(unit, {**fields, "allow_email_otp_sign_in": True})
    yield Pages(app, mailbox, lab, clock)
    await db.close()


@pytest.fixture
async def browser(pages: Pages) -> AsyncIterator[Browser]:
    """Signed in as the admin."""
    browser = pages.browser()
    await browser.send(await pages.link_for("ada@corp.example"))
    yield browser
    await browser.client.aclose()
