"""The objects of the REST API: what comes in, what goes out. Field names are the data model's."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictBool,
    WithJsonSchema,
)

from wardgate.portal.domain.checks import is_uuid

Item = TypeVar("Item")

ActorType = Literal["account_user", "account_admin_user", "service_account", "api_client"]
ResourceType = Literal["dns", "ip", "cidr", "internet", "static_device_pool", "dynamic_device_pool"]
IpStack = Literal["dual", "ipv4_only", "ipv6_only"]


def _trimmed(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _dashed(value: object) -> object:
    if isinstance(value, UUID) or is_uuid(value):
        return value
    raise ValueError("needs a UUID such as 6f0a3c1e-93a5-4f1c-8d0e-1c5b9a1f7e42")


def _iso(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def is_none(value: object) -> bool:
    """Whether a field is left out of an answer."""
    return value is None


Text = Annotated[str, BeforeValidator(_trimmed)]
Id = Annotated[UUID, BeforeValidator(_dashed)]
"""A UUID in its dashed form; no other is taken."""
Instant = Annotated[
    datetime, PlainSerializer(_iso, str), WithJsonSchema({"type": "string", "format": "date-time"}, "serialization")
]
"""ISO 8601 in UTC, always with microseconds."""


class Out(BaseModel):
    """An answer's object, read from a row's attributes."""

    model_config = ConfigDict(from_attributes=True)


class In(BaseModel):
    """A request's object: unknown fields are ignored, strings are trimmed, absent fields stay as they are."""

    model_config = ConfigDict(extra="ignore")

    def given(self) -> dict[str, Any]:
        """The fields that the request named."""
        return self.model_dump(mode="json", exclude_unset=True)


class Data(BaseModel, Generic[Item]):
    """The envelope of one object."""

    data: Item


class Metadata(BaseModel):
    """Where a page stands in its list."""

    count: int = Field(description="All rows that match.")
    limit: int
    next_page: str | None
    prev_page: str | None


class Page(BaseModel, Generic[Item]):
    """The envelope of a list."""

    data: list[Item]
    metadata: Metadata


class Deleted(BaseModel):
    """What is left of a deleted token."""

    id: UUID


class DeletedCount(BaseModel):
    """How many were deleted."""

    deleted_count: int


class Limit(BaseModel):
    """How much of a plan's limit is used."""

    used: int
    available: int
    total: int


class AccountOut(Out):
    """An account."""

    id: UUID
    slug: str
    key: str
    name: str
    legal_name: str | None = None
    limits: dict[str, Limit] = {}


class ActorOut(Out):
    """A person, a service account or an API client."""

    id: UUID
    name: str
    type: ActorType
    email: str | None
    allow_email_otp_sign_in: bool
    is_disabled: bool
    last_seen_at: Instant | None = None
    created_by_directory_id: UUID | None = None
    inserted_at: Instant
    updated_at: Instant


class ActorIn(In):
    """What can be changed of an actor. People have an e-mail address; service accounts and API clients have none."""

    name: Text | None = None
    type: Text | None = None
    email: Text | None = None
    allow_email_otp_sign_in: StrictBool | None = None
    is_disabled: StrictBool | None = None


class ActorNew(ActorIn):
    """A new person or service account."""

    name: Text | None
    type: Annotated[Text | None, Field(description="account_user, account_admin_user or service_account")]


class ClientTokenOut(Out):
    """A client token's metadata."""

    id: UUID
    actor_id: UUID
    expires_at: Instant | None
    inserted_at: Instant
    updated_at: Instant


class ClientTokenCreated(ClientTokenOut):
    """A client token with its secret, this once."""

    token: str


class ClientTokenIn(In):
    """What can be said of a new client token."""

    expires_at: Annotated[
        Text | None,
        Field(description="In the future.", json_schema_extra={"format": "date-time"}),
    ]


class GroupOut(Out):
    """A group."""

    id: UUID
    name: str
    email: str | None = None
    entity_type: str
    directory_id: UUID | None = None
    idp_id: str | None = None
    synced_at: Instant | None = None
    inserted_at: Instant
    updated_at: Instant


class GroupIn(In):
    """What can be changed of a group."""

    name: Text | None = None


class GroupNew(In):
    """A new group."""

    name: Text | None


class MemberOut(Out):
    """An actor in a group."""

    id: UUID
    name: str
    type: ActorType


class MembersChanged(BaseModel):
    """Who is in a group now."""

    actor_ids: list[UUID]


class SiteOut(Out):
    """A site."""

    id: UUID
    name: str


class SiteIn(In):
    """What can be changed of a site."""

    name: Text | None = None


class SiteNew(In):
    """A new site."""

    name: Text | None


class LastSeen(Out):
    """What was last seen of a device."""

    public_key: str | None = None
    last_seen_at: Instant | None = None
    last_seen_version: str | None = None
    last_seen_user_agent: str | None = None
    last_seen_remote_ip: str | None = None
    last_seen_remote_ip_location_region: str | None = None
    last_seen_remote_ip_location_city: str | None = None
    last_seen_remote_ip_location_lat: float | None = None
    last_seen_remote_ip_location_lon: float | None = None


class GatewayOut(LastSeen):
    """A gateway."""

    id: UUID
    name: str
    ipv4: str
    ipv6: str
    online: bool
    gateway_token_id: UUID | None = None
    rotated_at: Instant | None = None


class GatewayProvisioned(GatewayOut):
    """A gateway made ahead of its first connect, with its token, this once."""

    token: str


class GatewayIn(In):
    """What can be said of a gateway; a new one without a name gets five random letters."""

    name: Text | None = None


class TokenCreated(BaseModel):
    """A token, this once."""

    id: UUID
    token: str


class FilterObject(BaseModel):
    """What a resource allows."""

    protocol: Annotated[str, Field(description="tcp, udp or icmp")]
    ports: Annotated[list[str], Field(description="`N` or `N - M`; none stand for all")] = []


class ResourceOut(Out):
    """A resource. `ip_stack` and `site_id` are there only where they mean something."""

    id: UUID
    name: str
    type: ResourceType
    address: str | None
    address_description: str | None = None
    filters: list[FilterObject]
    ip_stack: Annotated[IpStack | None, Field(exclude_if=is_none)] = None
    site_id: Annotated[UUID | None, Field(exclude_if=is_none)] = None


class ResourceIn(In):
    """What can be changed of a resource."""

    name: Text | None = None
    type: Text | None = None
    address: Text | None = None
    address_description: Text | None = None
    ip_stack: Text | None = None
    site_id: Id | None = None
    filters: list[FilterObject] | None = None


class ResourceNew(ResourceIn):
    """A new resource: dns, ip or cidr."""

    name: Text | None
    type: Annotated[Text | None, Field(description="dns, ip or cidr")]
    address: Text | None
    site_id: Id | None


class DevicePoolNew(In):
    """A new pool of devices; a dynamic one has a pattern of host names as its address."""

    name: Text | None
    type: Annotated[Text | None, Field(description="static_device_pool or dynamic_device_pool")]
    address: Text | None = None
    address_description: Text | None = None
    filters: list[FilterObject] | None = None


class ConditionObject(BaseModel):
    """A limit on a policy."""

    property: str = "remote_ip_location_region"
    operator: str = "is_in"
    values: list[str] = []


class PolicyOut(Out):
    """A policy."""

    id: UUID
    group_id: UUID | None
    resource_id: UUID
    description: str | None = None
    flow_log_uploads_enabled: bool
    is_disabled: bool
    conditions: list[ConditionObject]


class PolicyIn(In):
    """What can be changed of a policy; `conditions` replaces the whole list."""

    group_id: Id | None = None
    resource_id: Id | None = None
    description: Text | None = None
    flow_log_uploads_enabled: StrictBool | None = None
    is_disabled: StrictBool | None = None
    conditions: list[ConditionObject] | None = None


class PolicyNew(PolicyIn):
    """A new policy."""

    group_id: Id | None
    resource_id: Id | None


class ClientOut(LastSeen):
    """A person's device."""

    id: UUID
    firezone_id: str | None
    actor_id: UUID
    name: str
    hostname: str | None = None
    ipv4: str
    ipv6: str
    online: bool
    device_serial: str | None = None
    device_uuid: str | None = None
    identifier_for_vendor: str | None = None
    firebase_installation_id: str | None = None
    last_attested_device_serial: str | None = None
    last_attested_device_uuid: str | None = None
    last_attested_mdm_device_id: str | None = None
    last_attested_cert_serial: str | None = None
    last_attested_cert_fingerprint: str | None = None
    last_attested_at: Instant | None = None
    verified_at: Instant | None = None
    created_at: Instant
    updated_at: Instant


class ClientIn(In):
    """What can be changed of a client; its host name is what dynamic pools look at."""

    name: Text | None = None
    hostname: Text | None = None


class PoolMemberOut(Out):
    """A device in a pool."""

    id: UUID
    name: str
    last_seen_at: Instant | None = None


class PoolMembersChanged(BaseModel):
    """Which devices are in a pool now."""

    device_ids: list[UUID]


class Reason(BaseModel):
    """One reason of an explanation.

    Attributes:
        code: For programs.
        text: For people.
    """

    code: str
    text: str
    policy_id: UUID | None = None


class ExplanationOut(BaseModel):
    """Whether an actor can reach a resource now, and why."""

    allowed: bool
    reasons: list[Reason]
