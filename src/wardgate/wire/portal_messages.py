"""What every message of the portal protocol has in common: an event name per version, a payload, a total decoder."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, ClassVar, Final, TypeVar

from pydantic import ValidationError, ValidationInfo, model_validator

from wardgate.errors import RemoteProtocolError
from wardgate.wire.portal_values import Json, WireModel

_M = TypeVar("_M", bound="Message")


class ApiVersion(IntEnum):
    """Which pair of websocket paths a conversation uses; a few events and needs differ."""

    V1 = 1
    V2 = 2


class Message(WireModel):
    """One event and its payload.

    `EVENT` is the V2 name. A message that carries one value as its whole payload names that field in `BARE`.
    """

    EVENT: ClassVar[str]
    EVENT_V1: ClassVar[str | None] = None
    ALIASES: ClassVar[tuple[str, ...]] = ()
    BARE: ClassVar[str | None] = None
    NEEDED_SINCE_V2: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _has_what_v2_needs(self, info: ValidationInfo) -> "Message":
        if (info.context or {}).get("version") == ApiVersion.V2:
            for name in self.NEEDED_SINCE_V2:
                if getattr(self, name) is None:
                    raise ValueError(f"{name} is missing")
        return self

    @classmethod
    def event_names(cls, version: ApiVersion) -> tuple[str, ...]:
        """The names that a receiver of that version answers to."""
        own = cls.EVENT_V1 if version is ApiVersion.V1 and cls.EVENT_V1 else cls.EVENT
        return (own, *cls.ALIASES)

    def payload(self, *, old_client: bool = False) -> Json:
        """The JSON payload.

        Args:
            old_client: Whether sites go by the name of clients before mid-2025.
        """
        data: dict[str, Any] = self.model_dump(mode="json", context={"old_client": old_client})
        result: Json = data[self.BARE] if self.BARE else data
        return result


class Unknown(WireModel):
    """An event that this program does not know: ignored, so that a newer peer can add some."""

    event: str


def event_table(kinds: Iterable[type[_M]], version: ApiVersion) -> dict[str, type[_M]]:
    """The messages of one direction by the event names of a version."""
    return {name: kind for kind in kinds for name in kind.event_names(version)}


def decode_message(table: Mapping[str, type[_M]], event: str, payload: Json, version: ApiVersion) -> _M | Unknown:
    """Reads a payload as the message that its event names.

    Raises:
        RemoteProtocolError: The payload is not what the event needs.
    """
    kind = table.get(event)
    if kind is None:
        return Unknown(event=event)
    data: Json = {kind.BARE: payload} if kind.BARE else payload
    if data is None and not kind.model_fields:
        data = {}
    try:
        return kind.model_validate(data, context={"version": version})
    except ValidationError as error:
        raise RemoteProtocolError(f"{event}: {_first_problem(error)}") from None


_MAX_DETAIL: Final = 200


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place} {first['msg']}".strip()[:_MAX_DETAIL]
