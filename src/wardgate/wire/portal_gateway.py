"""Messages between portal and gateway, both ways (the topic `gateway`)."""

from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, WrapValidator, model_validator

from wardgate.wire.portal_client import Disconnect, NoRelays, RejectAccess, RelaysPresence, SetSnownetCapabilities
from wardgate.wire.portal_messages import ApiVersion, Message, Unknown, decode_message, event_table
from wardgate.wire.portal_values import (
    AuthorizationRef,
    Candidates,
    Flag,
    FlowLogsConfig,
    GatewayConfig,
    GatewayInterface,
    IceCredentials,
    Ipv4,
    Ipv6,
    Json,
    Key,
    OptionalSubject,
    OptionalText,
    Relay,
    TaggedGatewayResource,
    Text,
    Unsigned,
    WireClientId,
    WireModel,
    forgiving_lists,
    lenient,
)

NEVER_IN_PRACTICE: Final = 2145916800
"""2038-01-01: the expiry of a gateway's relay credentials, so that they survive reconnects."""


# --- portal to gateway ----------------------------------------------------------------------------------------------


class GatewayInit(Message):
    """`init`: a gateway's addresses, relays and the grants that are still valid; others are to be dropped."""

    EVENT = "init"
    NEEDED_SINCE_V2 = ("flow_logs",)

    interface: GatewayInterface
    config: GatewayConfig
    relays: tuple[Relay, ...] = ()
    account_slug: OptionalText = None
    authorizations: tuple[AuthorizationRef, ...] = ()
    flow_logs: FlowLogsConfig | None = None
    skipped: int = Field(0, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _forgive(cls, data: Any) -> Any:
        return forgiving_lists(data)


class AuthorizedClient(WireModel):
    """The client of a grant, as its gateway is told; the second half serves gateways before 1.6."""

    id: WireClientId
    public_key: Key
    preshared_key: Key = Field(repr=False)
    ipv4: Ipv4
    ipv6: Ipv6
    version: OptionalText = None
    device_os_name: OptionalText = None
    device_os_version: OptionalText = None
    device_serial: OptionalText = None
    device_uuid: OptionalText = None
    identifier_for_vendor: OptionalText = None
    firebase_installation_id: OptionalText = None


class CreateAuthorization(Message):
    """`create_authorization` (V1 `authorize_flow`): let a client in; `ref` goes back with the acknowledgement."""

    EVENT = "create_authorization"
    EVENT_V1 = "authorize_flow"
    NEEDED_SINCE_V2 = ("flow_logs_ingest_token",)
    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset({"flow_logs_ingest_token"})

    ref: Text
    resource: TaggedGatewayResource
    client: AuthorizedClient
    gateway_ice_credentials: IceCredentials
    client_ice_credentials: IceCredentials
    expires_at: Unsigned | None = None
    use_iceless: Flag = False
    subject: OptionalSubject = None
    flow_logs_ingest_token: Annotated[Text | None, WrapValidator(lenient)] = Field(None, repr=False)


class ClientIceCandidates(Message):
    """`ice_candidates`: candidates of a client."""

    EVENT = "ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class InvalidateClientIceCandidates(Message):
    """`invalidate_ice_candidates`: candidates that a client no longer has."""

    EVENT = "invalidate_ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class ResourceUpdated(Message):
    """`resource_updated`: other filters; the payload is the resource, ignored by gateways that do not know it."""

    EVENT = "resource_updated"
    BARE = "resource"

    resource: TaggedGatewayResource


ToGateway = (
    GatewayInit
    | CreateAuthorization
    | ClientIceCandidates
    | InvalidateClientIceCandidates
    | RejectAccess
    | ResourceUpdated
    | RelaysPresence
    | Disconnect
    | Unknown
)
_TO_GATEWAY: Final = {
    version: event_table((kind for kind in ToGateway.__args__ if kind is not Unknown), version)
    for version in ApiVersion
}


def decode_to_gateway(event: str, payload: Json, version: ApiVersion = ApiVersion.V2) -> ToGateway:
    """Reads a message as the gateway does.

    Raises:
        RemoteProtocolError: The payload lacks or bends a field that the event needs.
    """
    message: ToGateway = decode_message(_TO_GATEWAY[version], event, payload, version)
    return message


# --- gateway to portal ----------------------------------------------------------------------------------------------


class AuthorizationAcknowledged(Message):
    """`authorization_created` (V1 `flow_authorized`): the client is let in."""

    EVENT = "authorization_created"
    EVENT_V1 = "flow_authorized"

    ref: Text


class BroadcastClientCandidates(Message):
    """`broadcast_ice_candidates`: this gateway's candidates, for clients."""

    EVENT = "broadcast_ice_candidates"

    client_ids: tuple[WireClientId, ...]
    candidates: Candidates


class BroadcastWithdrawnClientCandidates(Message):
    """`broadcast_invalidated_ice_candidates`: candidates this gateway lost, for clients."""

    EVENT = "broadcast_invalidated_ice_candidates"

    client_ids: tuple[WireClientId, ...]
    candidates: Candidates


FromGateway = (
    SetSnownetCapabilities
    | AuthorizationAcknowledged
    | BroadcastClientCandidates
    | BroadcastWithdrawnClientCandidates
    | NoRelays
    | Unknown
)
_FROM_GATEWAY: Final = {
    version: event_table((kind for kind in FromGateway.__args__ if kind is not Unknown), version)
    for version in ApiVersion
}


def decode_from_gateway(event: str, payload: Json, version: ApiVersion = ApiVersion.V2) -> FromGateway:
    """Reads a gateway's message as the portal does.

    Raises:
        RemoteProtocolError: The payload lacks or bends a field that the event needs.
    """
    message: FromGateway = decode_message(_FROM_GATEWAY[version], event, payload, version)
    return message
