"""The pages: what they show and change, what they refuse, and that nothing of another account is in them."""

import re
from typing import Any

import pytest

from tests.unit.portal.helpers import make_lab
from tests.unit.portal.web.conftest import Browser, Pages
from wardgate.portal.db import lists
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.tables import Actor, Group, Policy, Resource, Site
from wardgate.portal.domain.checks import RESERVED_SLUGS
from wardgate.portal.services.groups import change_members
from wardgate.portal.services.policies import delete_policy
from wardgate.portal.services.policy_tests import create_policy_test
from wardgate.portal.web.door import ACCOUNT_PAGES, first_parts
from wardgate.portal.web.security import HEADERS

LISTS = ("", "sites", "resources", "policies", "people", "groups", "service-accounts", "clients", "audit", "explain")


async def rows(pages: Pages, table: type[Any]) -> list[Any]:
    async with pages.app.state.hub.db.scoped(pages.lab.subject) as scope:
        return list(await scope.all(scope.select(table)))


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_is_shown_and_guarded(pages: Pages, browser: Browser, path: str) -> None:
    answer = await browser.client.get(f"/corp/{path}".rstrip("/"))

    assert answer.status_code == 200
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"\son[a-z]+=|style=|<script>|javascript:", answer.text)
    assert len(answer.content) < 60_000


async def test_a_resource_is_added_corrected_changed_and_deleted(pages: Pages, browser: Browser) -> None:
    site = pages.lab.site.id
    wrong = await browser.post(
        "/corp/resources/new", 422, type="cidr", name="Files", address="10.0.0.0/0", site_id=site,
        protocols=["tcp"], tcp_ports="443, 9000-8000",
    )  # fmt: skip
    assert 'value="Files"' in wrong.text
    assert 'value="443, 9000-8000"' in wrong.text
    assert wrong.text.count('aria-invalid="true"') == 1
    assert wrong.text.count('class="error"') == 2

    made = await browser.post(
        "/corp/resources/new", type="cidr", name="Files", address="10.0.0.0/24", site_id=site,
        protocols=["tcp", "icmp"], tcp_ports="443, 8000-9000",
    )  # fmt: skip
    path = made.headers["location"]
    assert "TCP 443, 8000-9000, ICMP" in await browser.get(path)
    await browser.post(f"{path}/edit", type="cidr", name="Archive", address="10.0.1.0/24", site_id=site)
    assert "10.0.1.0/24" in await browser.get(path)
    assert "Delete the resource Archive?" in await browser.get(f"{path}/delete")
    await browser.post(f"{path}/delete")

    await browser.get(path, 404)
    assert [one.name for one in await rows(pages, Resource)].count("Archive") == 0


async def test_a_policy_keeps_its_conditions_through_the_form(pages: Pages, browser: Browser) -> None:
    (policy,) = await rows(pages, Policy)
    fields = {
        "group_id": policy.group_id,
        "resource_id": policy.resource_id,
        "conditions": ["current_utc_datetime", "remote_ip_location_region", "client_verified"],
        "hours_M": "09:00-12:00,13:00-17:00",
        "hours_S": "00:00-24:00",
        "zone": "Europe/Vienna",
        "remote_ip_location_region": "at, de",
        "remote_ip_location_region_operator": "is_not_in",
    }

    await browser.post(f"/corp/policies/{policy.id}", **fields)
    (saved,) = await rows(pages, Policy)
    shown = await browser.get(f"/corp/policies/{policy.id}")
    listed = await browser.get("/corp/policies")

    assert {one["property"]: one["values"] for one in saved.conditions} == {
        "current_utc_datetime": ["M/09:00-12:00,13:00-17:00/Europe/Vienna", "S/true/Europe/Vienna"],
        "remote_ip_location_region": ["AT", "DE"],
        "client_verified": ["true"],
    }
    assert 'value="09:00-12:00,13:00-17:00"' in shown
    assert 'value="00:00-24:00"' in shown
    assert "not from AT or DE" in listed
    wrong = await browser.post(f"/corp/policies/{policy.id}", 422, **{**fields, "hours_M": "17:00-09:00"})
    assert 'value="17:00-09:00"' in wrong.text


async def test_the_editor_says_who_gains_and_a_broken_policy_test_needs_a_reason(
    pages: Pages, browser: Browser
) -> None:
    db = pages.app.state.hub.db
    async with db.writing(pages.lab.subject) as unit:
        fields = {"name": "nobody reaches it", "who": "everyone", "resource": "Lab", "expectation": "never_reaches"}
        await delete_policy(unit, str(pages.lab.policy and pages.lab.policy.id))
        _, snapshot = await db.snapshots.current(unit)
        await create_policy_test(unit, fields, snapshot)
    given: dict[str, Any] = {"group_id": pages.lab.group.id, "resource_id": pages.lab.resource.id}
    page = await browser.get("/corp/policies/new")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf

    effect = (await browser.send("/corp/policies/new/effect", 200, csrf=csrf[1], **given)).text
    incomplete = (await browser.send("/corp/policies/new/effect", 200, csrf=csrf[1], group_id="")).text
    refused = await browser.send("/corp/policies/new", 409, csrf=csrf[1], **given)

    assert "+1" in effect
    assert "Mia" in effect
    assert "would break" in effect
    assert "to see whom it concerns" in incomplete
    assert "nobody reaches it" in refused.text
    assert 'name="reason"' in refused.text
    assert await rows(pages, Policy) == []
    await browser.send("/corp/policies/new", csrf=csrf[1], reason="the auditors asked for it", **given)
    (policy,) = await rows(pages, Policy)
    shown = await browser.get(f"/corp/policies/{policy.id}/delete")
    assert "−1" in shown
    assert "Mia" in shown


async def test_a_policy_is_turned_off_and_on_in_its_row(pages: Pages, browser: Browser) -> None:
    (policy,) = await rows(pages, Policy)
    page = await browser.get("/corp/policies")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf

    await browser.send(f"/corp/policies/{policy.id}/switch", to="off", csrf=csrf[1])

    assert [one.is_disabled for one in await rows(pages, Policy)] == [True]
    assert "Turn on" in await browser.get("/corp/policies?status=off")


async def test_people_and_groups(pages: Pages, browser: Browser) -> None:
    (group,) = [one for one in await rows(pages, Group) if one.type == "static"]
    made = await browser.post(
        "/corp/people/new", name="Ivan", email="ivan@corp.example", type="account_user", groups=[group.id]
    )
    ivan = made.headers["location"]
    assert "Lab" in await browser.get(ivan)
    taken = await browser.post("/corp/people/new", 422, name="X", email="IVAN@corp.example", type="account_user")
    assert "Another one has this already" in taken.text

    unticked: dict[str, Any] = {
        "name": "Ivan",
        "email": "ivan@corp.example",
        "type": "account_user",
        "groups_were": [group.id],
    }
    await browser.post(f"{ivan}/edit", **unticked)
    assert "through Engineering" not in await browser.get(ivan)
    await browser.post("/corp/groups/new", name="Data", members=[ivan.rpartition("/")[2]])
    assert "Data" in await browser.get(ivan)


async def test_a_form_changes_only_the_boxes_that_were_ticked_or_unticked(pages: Pages, browser: Browser) -> None:
    (group,) = [one for one in await rows(pages, Group) if one.type == "static"]
    ivan, olga = [
        (await browser.post("/corp/people/new", name=name, email=f"{name}@corp.example", type="account_user"))
        .headers["location"]
        .rpartition("/")[2]
        for name in ("Ivan", "Olga")
    ]
    page = await browser.get(f"/corp/groups/{group.id}/edit")
    assert f'name="members_were" value="{pages.lab.actor.id}"' in page
    async with pages.app.state.hub.db.writing(pages.lab.subject) as unit:
        await change_members(unit, group.id, add=[olga])  # while the form is open

    given: dict[str, Any] = {"members_were": [pages.lab.actor.id], "members": [ivan]}
    await browser.post(f"/corp/groups/{group.id}/edit", name=group.name, **given)

    async with pages.app.state.hub.db.scoped(pages.lab.subject) as scope:
        members = {one.id for one in await lists.members(scope, group.id)}
    assert members == {ivan, olga}


async def test_the_last_admin_stays(pages: Pages, browser: Browser) -> None:
    (ada,) = [one for one in await rows(pages, Actor) if one.type == "account_admin_user"]

    await browser.post(f"/corp/people/{ada.id}/delete", 403)

    assert ada.id in {one.id for one in await rows(pages, Actor)}


async def test_a_gateway_is_deployed_with_a_token_that_is_shown_once(pages: Pages, browser: Browser) -> None:
    site = pages.lab.site.id
    shown = await browser.post(f"/corp/sites/{site}/deploy", 200, name="berlin-1")
    token = re.search(r"WARDGATE_TOKEN=&#34;([^&]+)&#34;", shown.text)
    waiting = re.search(r'hx-get="([^"]+/waiting)"', shown.text)

    assert token
    assert waiting
    assert "Waiting for berlin-1" in await browser.get(waiting[1])
    assert token[1] not in await browser.get(f"/corp/sites/{site}")
    assert "berlin-1" in await browser.get(f"/corp/sites/{site}")


async def test_a_service_account_gets_a_token_which_can_be_revoked(pages: Pages, browser: Browser) -> None:
    path = (await browser.post("/corp/service-accounts/new", name="Backup")).headers["location"]
    page = await browser.get(path)
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf
    shown = await browser.send(f"{path}/tokens", 200, csrf=csrf[1])
    assert "WARDGATE_TOKEN=" in shown.text
    revoke = re.search(r'action="([^"]+/revoke)"', await browser.get(path))
    assert revoke

    await browser.send(revoke[1], csrf=csrf[1])

    assert "No token works now" in await browser.get(path)


@pytest.mark.parametrize("guard", ["csrf", "origin", "site"])
async def test_forms_of_other_sites_change_nothing(pages: Pages, browser: Browser, guard: str) -> None:
    page = await browser.get("/corp/groups/new")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page)
    assert csrf
    fields = {"name": "Evil", "csrf": csrf[1]}
    headers = {"sec-fetch-site": "same-origin"}
    if guard == "csrf":
        fields["csrf"] = "x" + csrf[1][1:]
    elif guard == "origin":
        headers = {"origin": "https://evil.example"}
    else:
        headers = {"sec-fetch-site": "cross-site"}

    answer = await browser.client.post("/corp/groups/new", data=fields, headers=headers)

    assert answer.status_code == 403
    assert "Evil" not in {one.name for one in await rows(pages, Group)}


async def test_a_form_that_is_too_large_is_refused(pages: Pages, browser: Browser) -> None:
    answer = await browser.client.post(
        "/corp/groups/new", data={"name": "x" * 300_000}, headers={"sec-fetch-site": "same-origin"}
    )

    assert answer.status_code == 413


async def test_lists_are_searched_sorted_and_cut_by_the_address(pages: Pages, browser: Browser) -> None:
    for number in range(30):
        await browser.post("/corp/groups/new", name=f"Team {number:02}")

    first = await browser.get("/corp/groups?q=team&size=10")
    last = await browser.get("/corp/groups?q=team&size=10&page=3&sort=-name")
    beyond = await browser.get("/corp/groups?q=100%25_&page=999999&sort=nonsense&size=7")

    assert re.findall(r">(Team \d\d)<", first) == [f"Team {n:02}" for n in range(10)]
    assert re.findall(r">(Team \d\d)<", last) == [f"Team {n:02}" for n in range(9, -1, -1)]
    assert "1–10 of 30" in first
    assert "Nothing fits" in beyond


def account_paths() -> list[tuple[str, str]]:
    return [(method, path) for module in ACCOUNT_PAGES for methods, path, _ in module.ROUTES for method in methods]


@pytest.mark.parametrize(("method", "path"), account_paths())
async def test_no_page_shows_or_changes_what_is_another_accounts(
    pages: Pages, browser: Browser, method: str, path: str
) -> None:
    if "{" not in path:
        pytest.skip("the path names nothing")
    db = pages.app.state.hub.db
    other = await make_lab(db, slug="other")
    async with db.writing(other.subject) as unit:
        gateway = await create_device(unit, type="gateway", site_id=other.site.id, name="their-gateway")
        client = await create_device(unit, type="client", actor_id=other.actor.id, name="their-laptop", firezone_id="x")
        before = await dump(unit)
    noun = path.split("/")[1]
    ids = {
        "sites": other.site.id, "resources": other.resource.id, "policies": other.policy.id if other.policy else "",
        "people": other.actor.id, "service-accounts": other.actor.id, "groups": other.group.id, "clients": client.id,
        "audit": "c" + "0" * 23,
    }  # fmt: skip
    filled = path.replace("{id}", ids[noun]).replace("{gateway}", gateway.id).replace("{token}", other.client_token_id)
    csrf = re.search(r'name="csrf" value="([^"]+)"', await browser.get("/corp/groups/new"))
    assert csrf

    if method == "GET":
        text = await browser.get(f"/corp{filled}", 404)
    else:
        text = (await browser.send(f"/corp{filled}", 404, csrf=csrf[1], name="stolen", to="off")).text

    assert "their-" not in text
    async with db.scoped(other.subject) as scope:
        assert await dump(scope) == before


async def dump(scope: Any) -> list[list[str]]:
    tables: list[type[Any]] = [Site, Resource, Policy, Actor, Group]
    return [sorted(f"{one.id} {vars(one).get('name')}" for one in await scope.all(scope.select(one))) for one in tables]


async def test_static_files_are_kept_for_ever_and_nothing_else_is_served(pages: Pages, browser: Browser) -> None:
    page = await browser.get("/corp")
    style = re.search(r'href="(/static/app.css\?v=[0-9a-f]+)"', page)
    assert style
    answer = await browser.client.get(style[1])

    assert answer.headers["cache-control"].endswith("immutable")
    assert answer.headers["content-type"].startswith("text/css")
    for path in (
        "/static/../render.py",
        "/static/vendor/../../render.py",
        "/static/LICENSES.txt",
        "/static/%2e%2e/door.py",
    ):
        assert (await browser.client.get(path)).status_code == 404, path


async def test_the_doors_keep_to_themselves(pages: Pages, browser: Browser) -> None:
    rest = await browser.client.get("/sites")
    page = await browser.client.get("/nothing/here", headers={"accept": "text/html"})

    assert rest.status_code == 401
    assert rest.headers["content-type"].startswith("application/problem+json")
    assert page.status_code == 404
    assert "text/html" in page.headers["content-type"]
    assert (await browser.client.get("/healthz")).json()["status"] == "ok"


def test_no_account_can_be_called_as_another_door(pages: Pages) -> None:
    others = first_parts(pages.app.router.routes)

    assert {one for one in others if one.isidentifier() and one not in RESERVED_SLUGS} == set()


async def test_the_theme_is_kept(pages: Pages, browser: Browser) -> None:
    await browser.send("/theme", theme="dark", back="/corp/sites")

    assert 'data-theme="dark"' in await browser.get("/corp/sites")
    assert (await browser.send("/theme", theme="", back="//evil.example")).headers["location"] == "/"
