"""Messages between portal and relay, both ways (the topic `relay`)."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from wardgate.wire.portal_client import Disconnect
from wardgate.wire.portal_messages import ApiVersion, Message, Unknown, decode_message, event_table
from wardgate.wire.portal_values import Json, Text

_STAMP_SECRET: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def _stamp_secret(value: str) -> str:
    if not _STAMP_SECRET.fullmatch(value):
        raise ValueError("is not 64 lower-case hex digits")
    return value


class RelayJoin(Message):
    """The payload of a relay's `phx_join`: the secret that its credentials and its id derive from."""

    EVENT = "phx_join"

    stamp_secret: Annotated[Text, AfterValidator(_stamp_secret)] = Field(repr=False)


class RelayInit(Message):
    """`init`: the relay is known; empty."""

    EVENT = "init"


ToRelay = RelayInit | Disconnect | Unknown
_TO_RELAY: Final = {
    version: event_table((kind for kind in ToRelay.__args__ if kind is not Unknown), version) for version in ApiVersion
}


def decode_to_relay(event: str, payload: Json) -> ToRelay:
    """Reads a message as the relay does.

    Raises:
        RemoteProtocolError: The payload is not what the event needs.
    """
    message: ToRelay = decode_message(_TO_RELAY[ApiVersion.V1], event, payload, ApiVersion.V1)
    return message


def decode_relay_join(payload: Json) -> RelayJoin:
    """Reads the payload of a relay's join.

    Raises:
        RemoteProtocolError: There is no well-formed secret in it.
    """
    message = decode_message({RelayJoin.EVENT: RelayJoin}, RelayJoin.EVENT, payload, ApiVersion.V1)
    assert isinstance(message, RelayJoin)
    return message
