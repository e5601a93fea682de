"""The four logs: changes, sessions, requests to this API, and flows."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from wardgate.errors import NotFound
from wardgate.portal.api.context import Authenticated
from wardgate.portal.api.lists import Paged
from wardgate.portal.api.objects import Data, Metadata, Page
from wardgate.portal.api.problems import BadRequest
from wardgate.portal.db.logs import LogQuery, find_log, log_page
from wardgate.portal.db.purge import LOG_RETENTION
from wardgate.portal.domain.log_ids import Stream
from wardgate.portal.services.log_objects import log_object

router = APIRouter(tags=["Logs"])
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_T = TypeVar("_T")


class ChangeLogOut(BaseModel):
    """A row that was changed: both sides of it, without secrets. Without a subject the portal itself did it."""

    type: Literal["change"]
    log_id: str
    timestamp: Instant
    object: str = Field(description="The table.")
    operation: Literal["insert", "update", "delete"]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    subject: dict[str, Any] | None


class SessionLogOut(BaseModel):
    """A device that connected, or a person who signed in."""

    type: Literal["session"]
    log_id: str
    timestamp: Instant
    context: Literal["client", "gateway", "portal"]
    subject: dict[str, Any]


class ApiRequestLogOut(BaseModel):
    """A request to this API."""

    type: Literal["api_request"]
    log_id: str
    timestamp: Instant
    actor_id: UUID
    api_token_id: UUID
    method: str
    path: str
    content_length: int | None
    request_id: str | None
    user_agent: str | None
    ip: str | None
    ip_region: str | None
    ip_city: str | None
    ip_lat: float | None
    ip_lon: float | None


class OuterOut(BaseModel):
    """A path that a flow took."""

    src_ip: str | None
    src_port: int | None
    dst_ip: str
    dst_port: int
    path_activated_at: Instant | None


class FlowLogOut(BaseModel):
    """Traffic that one side of an authorization reported."""

    type: Literal["flow"]
    log_id: str
    timestamp: Instant
    role: Literal["initiator", "responder"]
    protocol: Literal["tcp", "udp"]
    initiator_device_id: UUID
    responder_device_id: UUID
    policy_authorization_id: UUID
    policy_id: UUID
    flow_start: Instant
    flow_end: Instant | None
    last_packet: Instant | None
    authorized_at: Instant
    authorization_expires_at: Instant
    initiator_auth_provider_id: UUID | None
    initiator_actor_id: UUID | None
    initiator_actor_name: str | None
    initiator_actor_email: str | None
    initiator_client_version: str | None
    initiator_device_os_name: str | None
    initiator_device_os_version: str | None
    initiator_device_serial: str | None
    initiator_device_uuid: str | None
    initiator_device_identifier_for_vendor: str | None
    initiator_device_firebase_installation_id: str | None
    resource_id: UUID
    resource_name: str
    resource_address: str | None
    inner_src_ip: str
    inner_src_port: int
    inner_dst_ip: str
    inner_dst_port: int
    inner_domain: str | None
    outers: list[OuterOut] | None
    rx_packets: int | None
    tx_packets: int | None
    rx_bytes: int | None
    tx_bytes: int | None


AnyLogOut = Annotated[ChangeLogOut | SessionLogOut | ApiRequestLogOut | FlowLogOut, Field(discriminator="type")]


@router.get("/logs")
async def list_logs(
    caller: Authenticated,
    place: Paged,
    type: Annotated[Stream, Query(description="Which log.")],
    begin: Annotated[Instant | None, Query(description="RFC 3339; 90 days before the end if it is not given.")] = None,
    end: Annotated[Instant | None, Query(description="RFC 3339; now if it is not given.")] = None,
    actor_id: Annotated[UUID | None, Query(description="Who acted; of a flow, who began it.")] = None,
    actor_email: Annotated[str | None, Query(description="The same by e-mail address; not for `api_request`.")] = None,
) -> Page[AnyLogOut]:
    """Lists one of the logs, the newest first; of flows, those that were open at any time between begin and end."""
    if actor_email is not None and type == "api_request":
        raise BadRequest("actor_email: the actors of API requests have no e-mail address")
    until = _instant("end", end) if end is not None else caller.context.clock.utc_now()
    since = _instant("begin", begin) if begin is not None else _before(until, LOG_RETENTION)
    if since > until:
        raise BadRequest("begin: must not be after end")
    wanted = LogQuery(type, since, until, str(actor_id) if actor_id else None, actor_email)
    async with caller.db.scoped(caller.subject) as scope:
        found = await log_page(scope, wanted, limit=place.limit, cursor=place.cursor)
    metadata = Metadata(count=found.count, limit=found.limit, next_page=found.next_page, prev_page=found.prev_page)
    return Page[AnyLogOut].model_validate({"data": [log_object(row) for row in found.rows], "metadata": metadata})


@router.get("/logs/{log_id}")
async def read_log(caller: Authenticated, log_id: str) -> Data[AnyLogOut]:
    """Reads a row of any log; the first character of its id says of which."""
    if not re.fullmatch(r"[0-9a-fA-F]{24}", log_id):
        raise BadRequest("log_id: must be 24 hexadecimal characters")
    async with caller.db.scoped(caller.subject) as scope:
        row = await find_log(scope, log_id)
    if row is None:
        raise NotFound(f"there is no log {log_id}")
    return Data[AnyLogOut].model_validate({"data": log_object(row)})


def _instant(name: str, text: str) -> datetime:
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text.upper().replace(" ", "T")).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"{name}: must be an RFC 3339 instant such as 2026-11-23T12:00:00Z") from None


def _before(at: datetime, while_: timedelta) -> datetime:
    return at - while_ if at - datetime.min.replace(tzinfo=UTC) > while_ else datetime.min.replace(tzinfo=UTC)
