"""The bodies that change members, of groups and of pools: a mistake anywhere in them is one of the whole list.

Source: portal-domain-2, A4.2 and A4.4.
"""

from typing import Annotated, Any, Final

from pydantic import WithJsonSchema

from wardgate.errors import InvalidInput, invalid
from wardgate.portal.domain.checks import is_uuid

MAX_MEMBERS: Final = 100_000
_IDS: Final = {"type": "array", "items": {"type": "string", "format": "uuid"}}


def _listed(field: str) -> WithJsonSchema:
    item = {"type": "object", "properties": {field: {"type": "string", "format": "uuid"}}, "required": [field]}
    return WithJsonSchema({"type": "array", "items": item, "title": "All members"})


ListedActors = Annotated[Any, _listed("actor_id")]
ListedDevices = Annotated[Any, _listed("device_id")]
Changed = Annotated[
    Any, WithJsonSchema({"type": "object", "properties": {"add": _IDS, "remove": _IDS}, "title": "Changed members"})
]


def listed_ids(value: Any, field: str, key: str) -> list[str]:
    """The ids of a replacement list.

    Raises:
        InvalidInput: It is no list of objects with an id.
    """
    accepted = f"a list of objects with {key}, a UUID"
    if not isinstance(value, list):
        raise invalid(field, "is not a list", "invalid", accepted)
    ids = [one.get(key) if isinstance(one, dict) else None for one in value]
    return _checked(ids, field, accepted)


def changed_ids(value: Any, field: str, *, is_by_key: bool = False) -> tuple[list[str], list[str]]:
    """The ids to add and to remove.

    Args:
        is_by_key: Whether lists that are not of texts are named `add` and `remove` instead of the field.

    Raises:
        InvalidInput: It is something else.
    """
    accepted = "lists of UUIDs under add and remove"
    if not isinstance(value, dict):
        raise invalid(field, "is not an object with add and remove", "invalid", accepted)
    lists = []
    for key in ("add", "remove"):
        some = value.get(key)
        if some is None:
            some = []
        if not isinstance(some, list) or not all(isinstance(one, str) for one in some):
            raise invalid(key if is_by_key else field, f"{key} is not a list of texts", "invalid", accepted)
        lists.append(_checked(some, field, accepted))
    return lists[0], lists[1]


def _checked(ids: list[Any], field: str, accepted: str) -> list[str]:
    if len(ids) > MAX_MEMBERS:
        raise _too_many(field)
    if not all(is_uuid(one) for one in ids):
        raise invalid(field, "has an id that is missing or not a UUID", "invalid", accepted)
    return [str(one).lower() for one in ids]


def _too_many(field: str) -> InvalidInput:
    return invalid(field, f"has more than {MAX_MEMBERS} ids", "too_long", f"up to {MAX_MEMBERS} ids")
