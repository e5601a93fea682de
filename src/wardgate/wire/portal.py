"""Frames of the portal protocol, and every message in them, as both ends use them.

A websocket carries text frames, each a JSON object with `topic`, `event`, `payload` and `ref` (the Phoenix V1 form).
References are integers, counted by the component from 0 on each connection; the portal echoes them in replies and
pushes with none. Payloads are read and made by the message types, which this module exports for all three topics.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn

from wardgate.errors import RemoteProtocolError
from wardgate.wire.portal_client import (
    AuthorizationCreated,
    AuthorizationCreationFailed,
    BroadcastGatewayCandidates,
    BroadcastWithdrawnGatewayCandidates,
    ClientDeviceAccessAuthorized,
    ClientDeviceAccessDenied,
    ClientInit,
    ConfigChanged,
    DevicePoolDomainResolutionFailed,
    DevicePoolDomainResolved,
    Disconnect,
    FromClient,
    GatewayIceCandidates,
    InvalidateGatewayIceCandidates,
    InvalidatePeerIceCandidates,
    NewGatewayCandidates,
    NewPeerCandidates,
    NoRelays,
    PeerIceCandidateError,
    PeerIceCandidates,
    RejectAccess,
    RelaysPresence,
    RequestAuthorization,
    RequestDeviceAccess,
    ResolveDevicePoolDomain,
    ResourceCreatedOrUpdated,
    ResourceDeleted,
    ResourceFiltersUpdated,
    SetSnownetCapabilities,
    ToClient,
    WithdrawnGatewayCandidates,
    WithdrawnPeerCandidates,
    decode_from_client,
    decode_to_client,
)
from wardgate.wire.portal_gateway import (
    NEVER_IN_PRACTICE,
    AuthorizationAcknowledged,
    AuthorizedClient,
    BroadcastClientCandidates,
    BroadcastWithdrawnClientCandidates,
    ClientIceCandidates,
    CreateAuthorization,
    FromGateway,
    GatewayInit,
    InvalidateClientIceCandidates,
    ResourceUpdated,
    ToGateway,
    decode_from_gateway,
    decode_to_gateway,
)
from wardgate.wire.portal_messages import ApiVersion, Message, Unknown
from wardgate.wire.portal_relay import RelayInit, RelayJoin, ToRelay, decode_relay_join, decode_to_relay
from wardgate.wire.portal_values import (
    AuthorizationRef,
    CidrResource,
    ClientResource,
    DnsResource,
    Do53Server,
    DohServer,
    DynamicDevicePool,
    Filter,
    FlowLogsConfig,
    GatewayCidrResource,
    GatewayConfig,
    GatewayDnsResource,
    GatewayInterface,
    GatewayInternetResource,
    GatewayResource,
    IceCredentials,
    Interface,
    InternetResource,
    Json,
    LegacyDnsServer,
    PoolDevice,
    Relay,
    Site,
    StaticDevicePool,
    Subject,
    is_allowed,
    is_candidate,
    is_uuid,
    key_text,
)

JOIN: Final = "phx_join"
REPLY: Final = "phx_reply"
LEAVE: Final = "phx_leave"
ERROR: Final = "phx_error"
CLOSE: Final = "phx_close"
HEARTBEAT: Final = "heartbeat"
HEARTBEAT_TOPIC: Final = "phoenix"
Topic = Literal["client", "gateway", "relay"]

TOKEN_EXPIRED: Final = "token_expired"
UNMATCHED_TOPIC: Final = "unmatched topic"
UNKNOWN_MESSAGE: Final = "unknown_message"
INVALID_REF: Final = "invalid_ref"


@dataclass(frozen=True, slots=True)
class Frame:
    """One websocket message.

    Attributes:
        topic: `client`, `gateway`, `relay`, or `phoenix` for heartbeats.
        event: What the payload is.
        payload: Any JSON value.
        ref: The request's number; `None` on a push.
    """

    topic: str
    event: str
    payload: Json
    ref: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The portal's answer to one frame: `error` holds the reason if it is a refusal.

    Attributes:
        confirms: Whether the response was the `{}` that confirms a join or heartbeat; `null` does not.
    """

    ref: int
    error: str | None = None
    confirms: bool = True


@dataclass(frozen=True, slots=True)
class Closed:
    """The portal ended the channel: to be taken for a dropped connection."""


@dataclass(frozen=True, slots=True)
class ChannelError:
    """The portal's channel failed; ignored, for the socket close follows."""


Control = Reply | Closed | ChannelError


def encode_frame(frame: Frame) -> str:
    """The text that goes into a websocket message."""
    data = {"topic": frame.topic, "event": frame.event, "payload": frame.payload, "ref": frame.ref}
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def encode_init(init: ClientInit, resources: Iterable[str], *, old_client: bool = False) -> bytes:
    """The frame of a client's init, as bytes.

    Args:
        init: Everything but its resources.
        resources: The JSON text of each, made for clients of the same age.
    """
    payload = init.payload(old_client=old_client)
    assert isinstance(payload, dict)
    texts = {name: json.dumps(value, separators=(",", ":"), allow_nan=False) for name, value in payload.items()}
    texts["resources"] = f"[{','.join(resources)}]"
    joined = ",".join(f'"{name}":{text}' for name, text in texts.items())
    return f'{{"topic":"client","event":"{init.EVENT}","payload":{{{joined}}},"ref":null}}'.encode()


def decode_frame(text: str | bytes, *, complete: bool = False) -> Frame:
    """Reads a websocket message.

    Args:
        text: The message; binary ones are no frames.
        complete: Whether all four keys must be there, as the portal demands of components.

    Raises:
        RemoteProtocolError: The text is not a frame.
    """
    data = _parse_json(text)
    if not isinstance(data, dict):
        raise RemoteProtocolError("frame is not a JSON object")
    if complete and not data.keys() >= {"topic", "event", "payload", "ref"}:
        raise RemoteProtocolError("frame lacks a key")
    topic, event, ref = data.get("topic"), data.get("event"), data.get("ref")
    if not isinstance(topic, str) or not isinstance(event, str):
        raise RemoteProtocolError("topic and event of a frame are texts")
    if ref is not None and (isinstance(ref, bool) or not isinstance(ref, int) or not 0 <= ref < 2**64):
        raise RemoteProtocolError("reference of a frame is not an unsigned integer")
    return Frame(topic, event, data.get("payload"), ref)


def _parse_json(text: str | bytes) -> Any:
    if isinstance(text, bytes):
        raise RemoteProtocolError("frame is binary")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RemoteProtocolError("frame is not JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def join(topic: Topic, ref: int, payload: Json = None) -> Frame:
    """The first frame of a component; a relay's payload is `RelayJoin(...).payload()`."""
    return Frame(topic, JOIN, payload, ref)


def heartbeat(ref: int) -> Frame:
    """Keeps a connection alive; due every 10 s."""
    return Frame(HEARTBEAT_TOPIC, HEARTBEAT, {}, ref)


def push(
    topic: Topic,
    message: Message,
    version: ApiVersion = ApiVersion.V2,
    *,
    ref: int | None = None,
    old_client: bool = False,
) -> Frame:
    """A message as a frame: components number theirs, the portal's have no reference."""
    return Frame(topic, message.event_names(version)[0], message.payload(old_client=old_client), ref)


def reply_ok(topic: str, ref: int | None) -> Frame:
    """The portal's confirmation: the response is exactly `{}`, all else fails at real receivers."""
    return Frame(topic, REPLY, {"status": "ok", "response": {}}, ref)


def reply_error(topic: str, ref: int | None, reason: str) -> Frame:
    """The portal's refusal."""
    return Frame(topic, REPLY, {"status": "error", "response": {"reason": reason}}, ref)


def closed(topic: str) -> Frame:
    """The portal ends a channel."""
    return Frame(topic, CLOSE, {}, None)


def decode_control(frame: Frame) -> Control | None:
    """What a component must know of the frame itself; `None` if it carries a message.

    Raises:
        RemoteProtocolError: A reply of another shape, or without its number.
    """
    if frame.event == CLOSE:
        return Closed()
    if frame.event == ERROR:
        return ChannelError()
    if frame.event != REPLY:
        return None
    payload = frame.payload
    if frame.ref is None or not isinstance(payload, dict):
        raise RemoteProtocolError("reply without a reference or a payload")
    response = payload.get("response")
    if payload.get("status") == "ok" and (response is None or response == {}):
        return Reply(frame.ref, confirms=response is not None)
    if payload.get("status") == "error" and isinstance(response, dict) and isinstance(response.get("reason"), str):
        return Reply(frame.ref, error=str(response["reason"]), confirms=False)
    raise RemoteProtocolError("reply of an unknown shape")


__all__ = [
    "CLOSE",
    "ERROR",
    "HEARTBEAT",
    "HEARTBEAT_TOPIC",
    "INVALID_REF",
    "JOIN",
    "LEAVE",
    "NEVER_IN_PRACTICE",
    "REPLY",
    "TOKEN_EXPIRED",
    "UNKNOWN_MESSAGE",
    "UNMATCHED_TOPIC",
    "ApiVersion",
    "AuthorizationAcknowledged",
    "AuthorizationCreated",
    "AuthorizationCreationFailed",
    "AuthorizationRef",
    "AuthorizedClient",
    "BroadcastClientCandidates",
    "BroadcastGatewayCandidates",
    "BroadcastWithdrawnClientCandidates",
    "BroadcastWithdrawnGatewayCandidates",
    "ChannelError",
    "CidrResource",
    "ClientDeviceAccessAuthorized",
    "ClientDeviceAccessDenied",
    "ClientIceCandidates",
    "ClientInit",
    "ClientResource",
    "Closed",
    "ConfigChanged",
    "Control",
    "CreateAuthorization",
    "DevicePoolDomainResolutionFailed",
    "DevicePoolDomainResolved",
    "Disconnect",
    "DnsResource",
    "Do53Server",
    "DohServer",
    "DynamicDevicePool",
    "Filter",
    "FlowLogsConfig",
    "Frame",
    "FromClient",
    "FromGateway",
    "GatewayCidrResource",
    "GatewayConfig",
    "GatewayDnsResource",
    "GatewayIceCandidates",
    "GatewayInit",
    "GatewayInterface",
    "GatewayInternetResource",
    "GatewayResource",
    "IceCredentials",
    "Interface",
    "InternetResource",
    "InvalidateClientIceCandidates",
    "InvalidateGatewayIceCandidates",
    "InvalidatePeerIceCandidates",
    "Json",
    "LegacyDnsServer",
    "Message",
    "NewGatewayCandidates",
    "NewPeerCandidates",
    "NoRelays",
    "PeerIceCandidateError",
    "PeerIceCandidates",
    "PoolDevice",
    "RejectAccess",
    "Relay",
    "RelayInit",
    "RelayJoin",
    "RelaysPresence",
    "Reply",
    "RequestAuthorization",
    "RequestDeviceAccess",
    "ResolveDevicePoolDomain",
    "ResourceCreatedOrUpdated",
    "ResourceDeleted",
    "ResourceFiltersUpdated",
    "ResourceUpdated",
    "SetSnownetCapabilities",
    "Site",
    "StaticDevicePool",
    "Subject",
    "ToClient",
    "ToGateway",
    "ToRelay",
    "Topic",
    "Unknown",
    "WithdrawnGatewayCandidates",
    "WithdrawnPeerCandidates",
    "closed",
    "decode_control",
    "decode_frame",
    "decode_from_client",
    "decode_from_gateway",
    "decode_relay_join",
    "decode_to_client",
    "decode_to_gateway",
    "decode_to_relay",
    "encode_frame",
    "encode_init",
    "heartbeat",
    "is_allowed",
    "is_candidate",
    "is_uuid",
    "join",
    "key_text",
    "push",
    "reply_error",
    "reply_ok",
]
