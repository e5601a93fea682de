"""The first page: is all well, what wants a look, what changed; of an empty account, what comes first."""

from datetime import timedelta
from typing import Final

from starlette.responses import Response

from wardgate.portal.db import lists
from wardgate.portal.db.logs import LogQuery, log_page
from wardgate.portal.web import words
from wardgate.portal.web.context import Handler, Page
from wardgate.portal.web.pages.sites import site_states


async def show(page: Page) -> Response:
    """`/`."""
    async with page.db.scoped(page.subject) as scope:
        counts = await lists.counts(scope)
        sites = await site_states(page, scope)
        grants = await lists.count_grants(scope, page.now)
        log = await log_page(scope, LogQuery("change", page.now - timedelta(days=90), page.now), limit=8)
    steps = _first_steps(page, counts, grants)
    online = page.context.hub.presence
    return page.show(
        "overview.html",
        counts=counts,
        sites=sites,
        wants=[one for one in sites if one.health in ("degraded", "silent") and one.gateways],
        clients_online=len(online.clients(page.account_id)),
        gateways_online=len(online.gateways(page.account_id)),
        grants=grants,
        changes=[(row, words.change(row)) for row in log.rows],
        steps=steps,
        is_first=grants == 0 and not all(done for _, _, _, done in steps),
    )


def _first_steps(page: Page, counts: dict[str, int], grants: int) -> list[tuple[str, str, str, bool]]:
    return [
        ("Deploy a gateway", "It stands beside what you want to reach and needs no open port.", page.path("sites"),
         counts["gateways"] > 0),
        ("Add a resource", "A name, an address or a network behind the gateway.", page.path("resources", "new"),
         counts["resources"] > 1),
        ("Allow a group to reach it", "Nobody reaches anything until a policy says so.", page.path("policies", "new"),
         counts["policies"] > 0),
        ("Connect a client", "People sign in with the app; servers use a token.", page.path("clients"),
         counts["clients"] > 0),
    ]  # fmt: skip


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [(["GET"], "", show), (["GET"], "/", show)]
