"""Messages between portal and client, both ways (the topic `client`)."""

from typing import Any, ClassVar, Final, Literal

from pydantic import AliasChoices, Field, model_validator

from wardgate.wire.portal_messages import ApiVersion, Message, Unknown, decode_message, event_table
from wardgate.wire.portal_values import (
    CLIENT_RESOURCE_TYPES,
    AuthorizationRef,
    Candidates,
    Filter,
    Flag,
    FlowLogsConfig,
    IceCredentials,
    Interface,
    Ipv4,
    Ipv6,
    Json,
    Key,
    OptionalSubject,
    Relay,
    StaticDevicePool,
    TaggedClientResource,
    Text,
    Unsigned,
    WireClientId,
    WireGatewayId,
    WireRelayId,
    WireResourceId,
    WireSiteId,
    forgiving_lists,
)

# --- portal to client -----------------------------------------------------------------------------------------------


class ClientInit(Message):
    """`init`: everything a client needs; replaces resources and interface, adds relays."""

    EVENT = "init"
    NEEDED_SINCE_V2 = ("flow_logs",)

    interface: Interface
    resources: tuple[TaggedClientResource, ...] = ()
    relays: tuple[Relay, ...] = ()
    authorizations: tuple[AuthorizationRef, ...] = ()
    flow_logs: FlowLogsConfig | None = None
    skipped: int = Field(0, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _forgive(cls, data: Any) -> Any:
        return forgiving_lists(data)


class ConfigChanged(Message):
    """`config_changed`: other resolvers, search domain or tunnel addresses."""

    EVENT = "config_changed"

    interface: Interface


class ResourceCreatedOrUpdated(Message):
    """`resource_created_or_updated`: the payload is the resource."""

    EVENT = "resource_created_or_updated"
    BARE = "resource"

    resource: TaggedClientResource


class ResourceDeleted(Message):
    """`resource_deleted`: the payload is the bare id."""

    EVENT = "resource_deleted"
    BARE = "resource_id"

    resource_id: WireResourceId


class RelaysPresence(Message):
    """`relays_presence`, to clients and gateways: forget the first, then add or refresh the second."""

    EVENT = "relays_presence"

    disconnected_ids: tuple[WireRelayId, ...]
    connected: tuple[Relay, ...]
    skipped: int = Field(0, exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _forgive(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("connected"), list):
            kept = forgiving_lists({"relays": data["connected"]})
            return {**data, "connected": kept["relays"], "skipped": kept.get("skipped", 0)}
        return data


class AuthorizationCreated(Message):
    """`authorization_created` (V1 `flow_created`): the gateway is ready; how to reach it."""

    EVENT = "authorization_created"
    EVENT_V1 = "flow_created"
    NEEDED_SINCE_V2 = ("flow_logs_ingest_token",)
    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset({"flow_logs_ingest_token"})
    RENAMED_FOR_OLD_CLIENTS: ClassVar[dict[str, str]] = {"site_id": "gateway_group_id"}

    resource_id: WireResourceId
    gateway_id: WireGatewayId
    gateway_public_key: Key
    gateway_ipv4: Ipv4
    gateway_ipv6: Ipv6
    site_id: WireSiteId = Field(validation_alias=AliasChoices("site_id", "gateway_group_id"))
    preshared_key: Key = Field(repr=False)
    client_ice_credentials: IceCredentials
    gateway_ice_credentials: IceCredentials
    use_iceless: Flag = False
    flow_logs_ingest_token: Text | None = Field(None, repr=False)


class AuthorizationCreationFailed(Message):
    """`authorization_creation_failed` (V1 `flow_creation_failed`): why there is no access now.

    Reasons: not_found, offline, version_mismatch, forbidden, disabled, ambiguous_address, missing_address,
    invalid_address; anything else is unknown.
    """

    EVENT = "authorization_creation_failed"
    EVENT_V1 = "flow_creation_failed"

    resource_id: WireResourceId
    reason: Text
    violated_properties: tuple[Text, ...] = ()


class GatewayIceCandidates(Message):
    """`ice_candidates`: candidates of a gateway."""

    EVENT = "ice_candidates"
    ALIASES = ("gateway_ice_candidates",)

    gateway_id: WireGatewayId
    candidates: Candidates


class InvalidateGatewayIceCandidates(Message):
    """`invalidate_ice_candidates`: candidates that a gateway no longer has."""

    EVENT = "invalidate_ice_candidates"
    ALIASES = ("invalidate_gateway_ice_candidates",)

    gateway_id: WireGatewayId
    candidates: Candidates


class PeerIceCandidates(Message):
    """`client_ice_candidates`: candidates of another client."""

    EVENT = "client_ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class InvalidatePeerIceCandidates(Message):
    """`invalidate_client_ice_candidates`: candidates that another client no longer has."""

    EVENT = "invalidate_client_ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class PeerIceCandidateError(Message):
    """`client_ice_candidate_error`: the other client is not connected."""

    EVENT = "client_ice_candidate_error"

    client_id: WireClientId
    reason: Text


class ClientDeviceAccessAuthorized(Message):
    """`client_device_access_authorized`: how to reach, or be reached by, another client."""

    EVENT = "client_device_access_authorized"
    NEEDED_SINCE_V2 = ("flow_logs_ingest_token",)
    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset(
        {"resource", "subject", "expires_at", "flow_logs_ingest_token"}
    )

    client_id: WireClientId
    client_name: Text = ""
    client_public_key: Key
    client_ipv4: Ipv4
    client_ipv6: Ipv6
    preshared_key: Key = Field(repr=False)
    local_ice_credentials: IceCredentials
    remote_ice_credentials: IceCredentials
    ice_role: Literal["controlling", "controlled"]
    use_iceless: Flag = False
    flow_logs_ingest_token: Text | None = Field(None, repr=False)
    resource: StaticDevicePool | None = None
    subject: OptionalSubject = None
    expires_at: Unsigned | None = Field(None, validation_alias=AliasChoices("expires_at", "authorization_expires_at"))


class ClientDeviceAccessDenied(Message):
    """`client_device_access_denied`: no way, or no way any more, to a device of a pool."""

    EVENT = "client_device_access_denied"
    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset({"client_id", "resource_id"})

    ipv4: Ipv4 | None = None
    ipv6: Ipv6 | None = None
    reason: Text
    client_id: WireClientId | None = None
    resource_id: WireResourceId | None = None


class ResourceFiltersUpdated(Message):
    """`resource_filters_updated`: a pool that others reach this device through has other filters."""

    EVENT = "resource_filters_updated"

    id: WireResourceId
    filters: tuple[Filter, ...]


class RejectAccess(Message):
    """`reject_access`, to gateways and target clients: that client may no longer reach that resource."""

    EVENT = "reject_access"

    client_id: WireClientId
    resource_id: WireResourceId


class DevicePoolDomainResolved(Message):
    """`device_pool_domain_resolved`: the tunnel addresses behind a device's name."""

    EVENT = "device_pool_domain_resolved"

    resource_id: WireResourceId
    domain: Text
    ipv4: Ipv4
    ipv6: Ipv6


class DevicePoolDomainResolutionFailed(Message):
    """`device_pool_domain_resolution_failed`: no such device."""

    EVENT = "device_pool_domain_resolution_failed"

    resource_id: WireResourceId
    domain: Text
    reason: Text


class Disconnect(Message):
    """`disconnect`: `token_expired` ends the session for good; other reasons mean nothing to a receiver."""

    EVENT = "disconnect"

    reason: Text


ToClient = (
    ClientInit
    | ConfigChanged
    | ResourceCreatedOrUpdated
    | ResourceDeleted
    | RelaysPresence
    | AuthorizationCreated
    | AuthorizationCreationFailed
    | GatewayIceCandidates
    | InvalidateGatewayIceCandidates
    | PeerIceCandidates
    | InvalidatePeerIceCandidates
    | PeerIceCandidateError
    | ClientDeviceAccessAuthorized
    | ClientDeviceAccessDenied
    | ResourceFiltersUpdated
    | RejectAccess
    | DevicePoolDomainResolved
    | DevicePoolDomainResolutionFailed
    | Disconnect
    | Unknown
)
_TO_CLIENT: Final = {
    version: event_table((kind for kind in ToClient.__args__ if kind is not Unknown), version) for version in ApiVersion
}


def decode_to_client(event: str, payload: Json, version: ApiVersion = ApiVersion.V2) -> ToClient:
    """Reads a message as the client does.

    Raises:
        RemoteProtocolError: The payload lacks or bends a field that the event needs.
    """
    if event == ResourceCreatedOrUpdated.EVENT and isinstance(payload, dict):
        kind = payload.get("type")
        if isinstance(kind, str) and kind not in CLIENT_RESOURCE_TYPES:
            return Unknown(event=event)
    message: ToClient = decode_message(_TO_CLIENT[version], event, payload, version)
    return message


# --- client to portal -----------------------------------------------------------------------------------------------


class SetSnownetCapabilities(Message):
    """`set_snownet_capabilities`, from clients and gateways: which ways of connecting this program knows."""

    EVENT = "set_snownet_capabilities"

    iceless: Flag = False


class RequestAuthorization(Message):
    """`request_authorization` (V1 `create_flow`): packets for a resource wait; an address names a pool's device."""

    EVENT = "request_authorization"
    EVENT_V1 = "create_flow"
    OMITTED_WHEN_NONE: ClassVar[frozenset[str]] = frozenset({"ipv4", "ipv6"})

    resource_id: WireResourceId
    connected_gateway_ids: tuple[WireGatewayId, ...] = ()
    ipv4: Text | None = None
    ipv6: Text | None = None


class ResolveDevicePoolDomain(Message):
    """`resolve_device_pool_domain`: a name was asked for that a dynamic pool's pattern covers."""

    EVENT = "resolve_device_pool_domain"

    resource_id: WireResourceId
    domain: Text


class NewGatewayCandidates(Message):
    """`new_gateway_ice_candidates`: this client's candidates, for a gateway."""

    EVENT = "new_gateway_ice_candidates"

    gateway_id: WireGatewayId
    candidates: Candidates


class WithdrawnGatewayCandidates(Message):
    """`invalidate_gateway_ice_candidates`: candidates this client lost, for a gateway."""

    EVENT = "invalidate_gateway_ice_candidates"

    gateway_id: WireGatewayId
    candidates: Candidates


class NewPeerCandidates(Message):
    """`new_client_ice_candidates`: this client's candidates, for another client."""

    EVENT = "new_client_ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class WithdrawnPeerCandidates(Message):
    """`invalidate_client_ice_candidates`: candidates this client lost, for another client."""

    EVENT = "invalidate_client_ice_candidates"

    client_id: WireClientId
    candidates: Candidates


class BroadcastGatewayCandidates(Message):
    """`broadcast_ice_candidates` of older clients: candidates for several gateways."""

    EVENT = "broadcast_ice_candidates"

    gateway_ids: tuple[WireGatewayId, ...]
    candidates: Candidates


class BroadcastWithdrawnGatewayCandidates(Message):
    """`broadcast_invalidated_ice_candidates` of older clients: lost candidates for several gateways."""

    EVENT = "broadcast_invalidated_ice_candidates"

    gateway_ids: tuple[WireGatewayId, ...]
    candidates: Candidates


class NoRelays(Message):
    """`no_relays`, from clients and gateways: send some."""

    EVENT = "no_relays"


class RequestDeviceAccess(Message):
    """`request_device_access`: an old experiment; read and ignored."""

    EVENT = "request_device_access"
    BARE = "ignored"

    ignored: object = None


FromClient = (
    SetSnownetCapabilities
    | RequestAuthorization
    | ResolveDevicePoolDomain
    | NewGatewayCandidates
    | WithdrawnGatewayCandidates
    | NewPeerCandidates
    | WithdrawnPeerCandidates
    | BroadcastGatewayCandidates
    | BroadcastWithdrawnGatewayCandidates
    | NoRelays
    | RequestDeviceAccess
    | Unknown
)
_FROM_CLIENT: Final = {
    version: event_table((kind for kind in FromClient.__args__ if kind is not Unknown), version)
    for version in ApiVersion
}


def decode_from_client(event: str, payload: Json, version: ApiVersion = ApiVersion.V2) -> FromClient:
    """Reads a client's message as the portal does.

    Raises:
        RemoteProtocolError: The payload lacks or bends a field that the event needs.
    """
    message: FromClient = decode_message(_FROM_CLIENT[version], event, payload, version)
    return message
