"""Signing in to the pages, and what does not get anybody in."""

import asyncio
import re
from datetime import timedelta

import pytest

from tests.unit.portal.helpers import make_lab
from tests.unit.portal.web.conftest import Pages
from wardgate.portal.db.identity_tables import OneTimePasscode, PortalSession
from wardgate.portal.db.log_tables import SessionLog
from wardgate.portal.db.purge import remove_tokens
from wardgate.portal.services import sign_in
from wardgate.portal.services.actors import create_actor, update_actor
from wardgate.portal.web.security import own_path

ADA = "ada@corp.example"


async def test_a_code_by_mail_signs_an_admin_in(pages: Pages) -> None:
    browser = pages.browser()

    assert (
        (await browser.client.get("/corp/sites")).headers["location"].startswith("/corp/sign-in?back=%2Fcorp%2Fsites")
    )
    answer = await browser.send("/corp/sign-in", email=ADA, back="/corp/sites")
    assert answer.headers["location"] == "/corp/sign-in/code"
    assert "on its way" in await browser.get("/corp/sign-in/code")
    entered = await browser.send("/corp/sign-in/code", code=f" {pages.mailbox.code().upper()} ")

    assert entered.headers["location"] == "/corp/sites"
    assert "Vienna" in await browser.get("/corp/sites")
    async with pages.app.state.hub.db.unscoped() as session:
        rows = (await session.scalars(SessionLog.__table__.select())).all()
    assert len(rows) == 1


async def test_the_cookies_are_for_this_host_and_out_of_reach_of_scripts(pages: Pages) -> None:
    answer = await pages.browser().send(await pages.link_for(ADA))

    cookies = [
        value for name, value in answer.headers.multi_items() if name == "set-cookie" and "__Host-session" in value
    ]
    assert len(cookies) == 1
    assert all(word in cookies[0] for word in ("Secure", "HttpOnly", "SameSite=lax", "Path=/", "Max-Age=28800"))
    assert "Domain" not in cookies[0]


@pytest.mark.parametrize("email", ["nobody@corp.example", "mia@corp.example"])
async def test_who_may_not_sign_in_sees_what_everybody_sees_and_gets_no_mail(pages: Pages, email: str) -> None:
    stranger, admin = pages.browser(), pages.browser()

    theirs, hers = await stranger.send("/corp/sign-in", email=email), await admin.send("/corp/sign-in", email=ADA)
    page, known = await stranger.get("/corp/sign-in/code"), await admin.get("/corp/sign-in/code")
    refused = await stranger.send("/corp/sign-in/code", status=422, code="aaaaaa")
    wrong = await admin.send("/corp/sign-in/code", status=422, code="aaaaaa")

    assert theirs.headers["location"] == hers.headers["location"]
    assert page.replace(email, ADA) == known
    assert refused.text.replace(email, ADA) == wrong.text
    assert [mail[0] for mail in pages.mailbox.mails] == [ADA]


async def test_no_answer_waits_for_the_mail_server(pages: Pages) -> None:
    taken = asyncio.Event()

    class Slow:
        async def send(self, to: str, subject: str, text: str) -> None:
            await taken.wait()
            await pages.mailbox.send(to, subject, text)

    pages.app.state.web.mailer = Slow()
    async with asyncio.timeout(10):
        await pages.browser().send("/corp/sign-in", email=ADA)

    assert pages.mailbox.mails == []
    taken.set()
    await asyncio.gather(*pages.app.state.web.background)
    assert len(pages.mailbox.mails) == 1


async def test_hashing_leaves_the_event_loop_alone(pages: Pages) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await sign_in.new_code()
    counting.cancel()

    assert turns > 100


async def test_a_code_takes_three_attempts_and_fifteen_minutes_at_most(pages: Pages) -> None:
    browser = pages.browser()
    await browser.send("/corp/sign-in", email=ADA)
    for _ in range(3):
        await browser.send("/corp/sign-in/code", status=422, code="wrong1")
    await browser.send("/corp/sign-in/code", status=422, code=pages.mailbox.code())

    await browser.send("/corp/sign-in", email=ADA)
    pages.clock.advance(15 * 60 + 1)
    answer = await browser.send("/corp/sign-in/code", code=pages.mailbox.code())

    assert answer.headers["location"] == "/corp/sign-in"


async def test_a_code_works_once_and_in_its_own_browser_alone(pages: Pages) -> None:
    browser, other = pages.browser(), pages.browser()
    await browser.send("/corp/sign-in", email=ADA)
    code = pages.mailbox.code()

    elsewhere = await other.send("/corp/sign-in/code", code=code)
    assert elsewhere.headers["location"] == "/corp/sign-in"
    kept = dict(browser.client.cookies)
    await browser.send("/corp/sign-in/code", code=code)
    other.client.cookies.update(kept)
    await other.send("/corp/sign-in/code", status=422, code=code)


async def test_more_than_three_mails_in_five_minutes_are_refused(pages: Pages) -> None:
    browser = pages.browser()
    for _ in range(3):
        await browser.send("/corp/sign-in", email=ADA)

    await browser.send("/corp/sign-in", status=429, email=ADA.upper())
    pages.clock.advance(301)
    await browser.send("/corp/sign-in", email=ADA)

    assert len(pages.mailbox.mails) == 4


async def test_a_link_signs_in_once_and_only_looking_does_not_use_it_up(pages: Pages) -> None:
    link, browser = await pages.link_for(ADA), pages.browser()

    assert "works once" in await browser.get(link)
    assert (await browser.send(link)).headers["location"] == "/corp"
    refused = await pages.browser().send(link, status=403)

    assert "used already" in refused.text


async def test_what_is_over_is_removed(pages: Pages) -> None:
    db = pages.app.state.hub.db
    await pages.browser().send(await pages.link_for(ADA))
    await pages.browser().send("/corp/sign-in", email=ADA)

    async def left() -> tuple[int, int]:
        async with db.scoped(pages.lab.subject) as scope:
            rows = [await scope.all(scope.select(OneTimePasscode)), await scope.all(scope.select(PortalSession))]
            return len(rows[0]), len(rows[1])

    await remove_tokens(db, pages.clock.utc_now())
    assert await left() == (1, 1)
    await remove_tokens(db, pages.clock.utc_now() + timedelta(minutes=15))
    assert await left() == (0, 1)
    await remove_tokens(db, pages.clock.utc_now() + timedelta(hours=8))
    assert await left() == (0, 0)


async def test_passcodes_are_hashed(pages: Pages) -> None:
    await pages.browser().send("/corp/sign-in", email=ADA)

    async with pages.app.state.hub.db.unscoped() as session:
        row = (
            await session.scalars(OneTimePasscode.__table__.select().with_only_columns(OneTimePasscode.code_hash))
        ).one()
    assert row.startswith("$argon2id$")
    assert pages.mailbox.code() not in row


async def test_users_are_told_that_pages_are_for_admins(pages: Pages) -> None:
    async with pages.app.state.hub.db.writing(pages.lab.subject) as unit:
        await update_actor(unit, pages.lab.actor.id, {"allow_email_otp_sign_in": True})
    browser = pages.browser()
    await browser.send("/corp/sign-in", email="mia@corp.example")

    refused = await browser.send("/corp/sign-in/code", status=403, code=pages.mailbox.code())

    assert "Only admins" in refused.text


async def test_signing_out_ends_the_session_wherever_its_cookie_was_copied(pages: Pages) -> None:
    browser, copy = pages.browser(), pages.browser()
    await browser.send(await pages.link_for(ADA))
    copy.client.cookies.update(browser.client.cookies)
    await copy.get("/corp/sites")

    await browser.send("/corp/sign-out")

    assert (await copy.client.get("/corp/sites")).status_code == 303


@pytest.mark.parametrize("how", ["expired", "disabled", "demoted", "deleted", "forged", "foreign"])
async def test_a_session_ends_with_what_it_hangs_on(pages: Pages, how: str) -> None:
    db, browser = pages.app.state.hub.db, pages.browser()
    await browser.send(await pages.link_for(ADA))
    await browser.get("/corp/sites")
    async with db.writing(pages.lab.subject) as unit:
        other = {"name": "Bob", "type": "account_admin_user", "email": "bob@corp.example"}
        await create_actor(unit, other)
        row = (await unit.all(unit.select(PortalSession)))[0]
        if how == "disabled":
            await update_actor(unit, row.actor_id, {"is_disabled": True})
        elif how == "demoted":
            await update_actor(unit, row.actor_id, {"type": "account_user"})
        elif how == "deleted":
            await unit.delete(row)
    if how == "expired":
        pages.clock.advance(timedelta(hours=8, seconds=1).total_seconds())
    if how == "forged":
        name = next(one for one in browser.client.cookies if "session" in one)
        browser.client.cookies[name] = pages.app.state.web.signer("code").sign(
            row.id, pages.clock.utc_now(), timedelta(1)
        )
    if how == "foreign":
        await make_lab(db, slug="other")
        assert (await browser.client.get("/other/sites")).status_code == 303
        return

    answer = await browser.client.get("/corp/sites")

    assert answer.status_code == 303
    assert "/corp/sign-in" in answer.headers["location"]


@pytest.mark.parametrize(
    "back",
    ["//evil.example", "https://evil.example", "/corp//evil.example\\", "/other/sites", "/corpx", "javascript:alert(1)",
     "/corp/\nx"],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(back: str) -> None:
    assert own_path(back, "corp") in (None, "/corp//evil.example")


def test_own_pages_are_found_again() -> None:
    assert own_path("/corp/resources?site_id=1", "corp") == "/corp/resources?site_id=1"


async def test_the_first_account_is_made_once_through_the_link(database_url: str, pages: Pages) -> None:
    refused = await pages.browser().client.get("/sign-up?key=x")
    signer = pages.app.state.web.signer("first account")
    late = await pages.browser().client.get(f"/sign-up?key={signer.tag('first account')}")

    assert refused.status_code == late.status_code == 403
    assert re.search("for the first account", late.text)
