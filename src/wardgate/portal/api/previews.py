"""What a change would do, before it is made: takes the request that would make it, and sends it through its own route
within a transaction that is rolled back.
"""

import json
import re
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.types import Message

from wardgate.errors import WardgateError
from wardgate.ids import AccountId, DeviceId
from wardgate.portal.api.context import TRIAL, Authenticated, Caller
from wardgate.portal.api.hours import HoursOut, hours_out, zone_of
from wardgate.portal.api.lists import Paged
from wardgate.portal.api.objects import Metadata
from wardgate.portal.api.places import slice_of
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db.devices import ids_of_clients
from wardgate.portal.db.engine import Database, Trial
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.domain.reach import ChangeKind, Hours, PairChange, counted
from wardgate.portal.services import previews
from wardgate.portal.services.previews import Preview, TestState, name_of_actor, name_of_resource

router = APIRouter(tags=["Why and what if"])
_PATH: Final = re.compile(
    r"/(policies|groups|actors|resources|sites|clients)(/[0-9A-Za-z-]{1,64}(/(memberships|pool_members|verify|unverify))?)?"
)


class ChangeIn(BaseModel):
    """A request that would change something."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"]
    path: str = Field(max_length=200, description="Such as `/policies/{id}`.")
    body: dict[str, Any] | None = Field(None, description="The body that the request itself would have.")


class PreviewIn(BaseModel):
    """One change, or several that are made one after the other."""

    method: Literal["POST", "PUT", "PATCH", "DELETE"] | None = None
    path: str | None = Field(None, max_length=200)
    body: dict[str, Any] | None = None
    changes: list[ChangeIn] | None = Field(None, min_length=1, max_length=previews.MAX_CHANGES)
    as_of: datetime | None = Field(None, description="Puts the changes on what the policies were at that time.")


class Named(BaseModel):
    """Something by its id and name."""

    id: UUID
    name: str


class PairOut(BaseModel):
    """What becomes of one actor's access to one resource."""

    kind: ChangeKind
    actor: Named
    resource: Named
    is_online: bool = Field(description="Whether a client of the actor is connected now.")
    policies_before: list[UUID]
    policies_after: list[UUID]
    hours_lost: HoursOut | None = None
    hours_gained: HoursOut | None = None


class TestOut(BaseModel):
    """What becomes of a policy test."""

    id: UUID
    name: str
    state: TestState
    count: int = Field(0, description="How many pairs would not be as the test has them.")
    examples: list[dict[str, str | None]] = []


class PreviewOut(BaseModel):
    """The answer."""

    revision: int = Field(description="The account's access revision that this is true of.")
    as_of: datetime | None
    is_complete: bool = Field(description="False if there are more pairs than are looked at.")
    pairs: dict[ChangeKind, int]
    actors: dict[ChangeKind, int]
    ended_authorizations: int
    tests: list[TestOut]
    changes: list[PairOut]


class PreviewPage(BaseModel):
    """The answer with one page of its pairs."""

    data: PreviewOut
    metadata: Metadata


@router.post("/preview")
async def preview(caller: Authenticated, request: Request, place: Paged, wanted: PreviewIn) -> PreviewPage:
    """Says who would gain, lose or get other access by a change, and which policy tests it would break."""
    changes = _changes(wanted)
    as_of = wanted.as_of
    if as_of is not None and as_of.tzinfo is None:
        as_of = as_of.replace(tzinfo=UTC)

    async def make(unit: UnitOfWork) -> None:
        for change in changes:
            await _send(request, caller, unit, change)

    found = await previews.preview(caller.db, caller.subject, make, as_of)
    pairs, actors = counted(found.changes)
    some, metadata = slice_of(found.changes, place, f"{found.revision} {as_of}")
    shown = PreviewOut(
        revision=found.revision,
        as_of=as_of,
        is_complete=found.is_complete,
        pairs=dict(pairs),
        actors=dict(actors),
        ended_authorizations=found.ended_authorizations,
        tests=[TestOut.model_validate({**(one.failure or {}), **_fields(one)}) for one in found.tests],
        changes=await _shown(caller, found, list(some)),
    )
    return PreviewPage(data=shown, metadata=metadata)


def _fields(one: previews.TestEffect) -> dict[str, Any]:
    return {"id": one.id, "name": one.name, "state": one.state}


def _changes(wanted: PreviewIn) -> list[ChangeIn]:
    if wanted.changes is not None:
        changes = wanted.changes
        if wanted.method is not None or wanted.path is not None:
            raise BadRequest("body: give either `changes`, or one `method` and `path`")
    elif wanted.method is None or wanted.path is None:
        raise BadRequest("body: `method` and `path` are needed, or a list of `changes`")
    else:
        changes = [ChangeIn(method=wanted.method, path=wanted.path, body=wanted.body)]
    for one in changes:
        if not _PATH.fullmatch(one.path):
            raise BadRequest(
                f"path: {one.path!r} is not one of policies, groups, actors, resources, sites, clients and what is"
                " below them; changes of tokens and of settings cannot be previewed"
            )
    return changes


async def _send(request: Request, caller: Caller, unit: UnitOfWork, change: ChangeIn) -> None:
    """Sends a request to its route, as the caller, in the unit of work; what the route raises is raised."""
    body = b"" if change.body is None else json.dumps(change.body).encode()
    context = replace(caller.context, db=cast(Database, Trial(unit)))
    length = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": request.scope["asgi"],
        "http_version": "1.1",
        "method": change.method,
        "scheme": request.scope["scheme"],
        "path": change.path,
        "raw_path": change.path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": length if body else [],
        "client": request.scope.get("client"),
        "server": request.scope.get("server"),
        "app": request.app,
        "state": {},
        TRIAL: (context, caller.subject),
    }
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    async with AsyncExitStack() as stack:
        scope["fastapi_middleware_astack"] = stack
        await request.app.router(scope, receive, send)
    if not 200 <= status < 300:
        raise WardgateError(f"{change.method} {change.path} answered {status}")


async def _shown(caller: Caller, found: Preview, some: list[PairChange]) -> list[PairOut]:
    account_id = AccountId(caller.subject.account_id)
    async with caller.db.scoped(caller.subject) as scope:
        clients = await ids_of_clients(scope, {one.actor_id for one in some})
    online = caller.context.presence.is_online
    return [
        PairOut(
            kind=one.kind,
            actor=Named(id=UUID(one.actor_id), name=name_of_actor(one.actor_id, found.after, found.before)),
            resource=Named(id=UUID(one.resource_id), name=name_of_resource(one.resource_id, found.after, found.before)),
            is_online=any(online(account_id, DeviceId(client)) for client in clients.get(one.actor_id, ())),
            policies_before=[UUID(policy) for policy in one.policies_before],
            policies_after=[UUID(policy) for policy in one.policies_after],
            hours_lost=_hours(found, one, one.hours_lost),
            hours_gained=_hours(found, one, one.hours_gained),
        )
        for one in some
    ]


def _hours(found: Preview, change: PairChange, hours: Hours) -> HoursOut | None:
    if not hours:
        return None
    before = [found.before.policies[one] for one in change.policies_before]
    after = [found.after.policies[one] for one in change.policies_after]
    zone = zone_of(condition for policy in (*before, *after) for condition in policy.conditions)
    return hours_out(hours, found.week, zone)
