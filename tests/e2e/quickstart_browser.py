"""An admin's first minutes in a real browser: `python -m tests.e2e.quickstart_browser LINK`, on the portal's host.

Says on standard output what somebody would copy from the pages, one JSON object a line, and waits for what the pages
wait for.
"""

import json
import re
import shutil
import sys

from playwright.sync_api import Page, sync_playwright

WAIT_MS = 60_000
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


def main(link: str) -> None:
    """The pages, as they lead from one to the next."""
    program = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.set_default_timeout(WAIT_MS)
        _first_account(page, link)
        _gateway(page)
        _resource_and_policy(page)
        _client(page)
        _say("problems", problems)
        browser.close()


def _say(what: str, value: object) -> None:
    print(json.dumps({what: value}), flush=True)


def _first_account(page: Page, link: str) -> None:
    page.goto(link)
    page.fill("#company", "Example Orchard")
    page.fill("#name", "Alice Arden")
    page.fill("#email", "alice@example.com")
    page.click("text=Make the account")
    page.wait_for_selector("text=Four steps to the first resource")


def _gateway(page: Page) -> None:
    page.click("text=Deploy a gateway")
    page.click("text=Default Site")
    page.click(".actions >> text=Deploy gateway")
    page.fill("#name", "office-1")
    page.click("text=Make the token")
    page.wait_for_selector("text=Waiting for office-1")
    _say("gateway", _token(page, "#command-hand"))
    page.wait_for_selector("text=office-1 is online.")
    _say("online", True)


def _resource_and_policy(page: Page) -> None:
    page.click("text=Add what it should reach")
    page.locator(".choices label", has_text="IP address").click()
    page.fill("#address", "10.9.0.2")
    page.fill("#name", "Wiki")
    page.click("button.main")
    page.wait_for_selector("text=Nobody reaches this yet")
    page.click(".head >> text=Allow a group")
    page.select_option("#group_id", label="Everyone")
    page.click("button.main")
    page.wait_for_selector("text=Policy added.")


def _client(page: Page) -> None:
    page.click("nav >> text=People")
    page.click("tbody >> text=Alice Arden")
    page.click("text=Make a token")
    _say("client", _token(page, "#token"))
    page.click("text=I have kept it")
    for _ in range(WAIT_MS // 500):
        page.reload()
        if page.locator("text=Online").count():
            break
        page.wait_for_timeout(500)
    _say("seen", page.locator("text=Online").count() > 0)


def _token(page: Page, place: str) -> str:
    found = re.search(r'WARDGATE_TOKEN="([^"]+)"', page.locator(place).inner_text())
    assert found
    return found[1]


if __name__ == "__main__":
    main(sys.argv[1])
