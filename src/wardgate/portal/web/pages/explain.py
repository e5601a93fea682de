"""Why somebody reaches something, or does not."""

from typing import Any, Final

from starlette.responses import Response

from wardgate.portal.db import lists
from wardgate.portal.db.tables import Resource
from wardgate.portal.domain.checks import is_uuid
from wardgate.portal.services.explanations import Question, explain_access
from wardgate.portal.web.context import Handler, Page


async def show(page: Page) -> Response:
    """The form, and the answer once both are chosen."""
    who, to = page.query("who"), page.query("to")
    explanation: Any = None
    async with page.db.scoped(page.subject) as scope:
        people = await lists.actors(scope, lists.Wanted(size=1000), (*lists.PEOPLE, "service_account"))
        resources = await lists.options(scope, Resource)
        if is_uuid(who) and is_uuid(to):
            asked = Question(who, to)
            answer = await explain_access(page.db, scope, asked, page.now, page.context.hub.presence)
            explanation = answer.explanation
    actor = next((row[0] for row in people.rows if row[0].id == who), None)
    resource = next((one for one in resources if one.id == to), None)
    return page.show(
        "explain.html",
        people=[row[0] for row in people.rows],
        resources=resources,
        who=who,
        to=to,
        actor=actor,
        resource=resource,
        explanation=explanation,
    )


ROUTES: Final[list[tuple[list[str], str, Handler]]] = [(["GET"], "/explain", show)]
