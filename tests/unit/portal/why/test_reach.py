"""Who reaches what, as a list."""

from typing import Any
from uuid import UUID

import pytest

from tests.unit.portal.api.conftest import Portal
from tests.unit.portal.helpers import ManualClock
from tests.unit.portal.why.test_explanations import VERIFIED
from tests.unit.portal.why.test_previews import group_of, payments, people


async def pairs(portal: Portal, query: str) -> list[tuple[str, str, bool]]:
    answer = await portal.ask("GET", f"/reach?{query}", status=200)
    return [(one["actor"]["name"], one["resource"]["name"], one["is_always"]) for one in answer["data"]]


async def account(portal: Portal) -> dict[str, str]:
    ann, ben, cid = await people(portal, "Ann", "Ben", "Cid")
    crew, staff = await group_of(portal, "Crew", [ann, ben]), await group_of(portal, "Staff", [ben, cid])
    resource = await payments(portal)
    site = (await portal.ask("GET", f"/resources/{resource}", status=200))["data"]["site_id"]
    wiki = (await portal.make("resource", name="Wiki", type="ip", address="10.0.0.1", site_id=site))["id"]
    await portal.make("policy", group_id=crew, resource_id=resource, conditions=[VERIFIED])
    await portal.make("policy", group_id=staff, resource_id=resource)
    await portal.make("policy", group_id=staff, resource_id=wiki)
    return {"ann": ann, "ben": ben, "crew": crew, "staff": staff, "payments": resource, "wiki": wiki, "site": site}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("actor={ben}", [("Ben", "Payments DB", True), ("Ben", "Wiki", True)]),
        ("actor={ann}", [("Ann", "Payments DB", False)]),
        ("group={crew}", [("Ann", "Payments DB", False), ("Ben", "Payments DB", False)]),
        ("resource={wiki}", [("Ben", "Wiki", True), ("Cid", "Wiki", True)]),
        ("site={site}&actor={ann}", [("Ann", "Payments DB", False)]),
        ("group={staff}&resource={wiki}&actor={ann}", []),
    ],
)
async def test_pairs_are_those_of_what_was_asked(portal: Portal, query: str, expected: Any) -> None:
    ids = await account(portal)

    assert await pairs(portal, query.format(**ids)) == expected


async def test_a_site_has_all_pairs_of_its_resources_in_pages(portal: Portal) -> None:
    ids = await account(portal)

    first = await portal.ask("GET", f"/reach?site={ids['site']}&limit=3", status=200)
    cursor = first["metadata"]["next_page"]
    second = await portal.ask("GET", f"/reach?site={ids['site']}&limit=3&page_cursor={cursor}", status=200)

    assert (first["metadata"]["count"], first["actors"], first["resources"]) == (5, 3, 2)
    assert len(first["data"]) + len(second["data"]) == 5
    ben = first["data"][1]
    assert [one["group"]["name"] for one in ben["policies"]] == ["Crew", "Staff"]
    assert ben["site"]["name"] == "Berlin"


async def test_reach_of_another_time(portal: Portal, clock: ManualClock) -> None:
    ids = await account(portal)
    then = clock.utc_now().isoformat().replace("+", "%2B")
    clock.advance(60)
    await portal.ask("DELETE", f"/groups/{ids['staff']}", status=200)

    assert await pairs(portal, f"actor={ids['ben']}") == [("Ben", "Payments DB", False)]
    assert len(await pairs(portal, f"actor={ids['ben']}&as_of={then}")) == 2


@pytest.mark.parametrize(("query", "status"), [("", 422), (f"actor={UUID(int=1)}", 404), ("actor=me", 400)])
async def test_questions_that_cannot_be_answered(portal: Portal, query: str, status: int) -> None:
    await portal.ask("GET", f"/reach?{query}", status=status)
