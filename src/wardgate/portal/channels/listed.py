"""One resource as some clients see it: its message is made once for all of them."""

import json
from collections.abc import Iterator, Mapping

from wardgate.ids import ResourceId
from wardgate.portal.domain.resources import ResourceFacts, view_for
from wardgate.portal.domain.versions import Sight
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, ClientResource


class Listed:
    """A resource in the lists of clients.

    Attributes:
        facts: What is stored.
        view: What clients of one sight are told.
    """

    __slots__ = ("_frames", "_json", "facts", "view")

    def __init__(self, facts: ResourceFacts, view: ClientResource) -> None:
        self.facts = facts
        self.view = view
        self._json: dict[bool, str] = {}
        self._frames: dict[tuple[ApiVersion, bool], bytes] = {}

    @classmethod
    def of(cls, facts: ResourceFacts, sight: Sight) -> "Listed | None":
        """The resource for clients of a sight; `None` if it is hidden from them."""
        view = view_for(facts, sight)
        return None if view is None else cls(facts, view)

    def json(self, *, old_client: bool) -> str:
        """The JSON text of the view."""
        text = self._json.get(old_client)
        if text is None:
            payload = portal.ResourceCreatedOrUpdated(resource=self.view).payload(old_client=old_client)
            text = self._json[old_client] = json.dumps(payload, separators=(",", ":"), allow_nan=False)
        return text

    def update(self, version: ApiVersion, *, old_client: bool) -> bytes:
        """The frame that tells a client of it."""
        frame = self._frames.get((version, old_client))
        if frame is None:
            message = portal.ResourceCreatedOrUpdated(resource=self.view)
            text = portal.encode_frame(portal.push("client", message, version, old_client=old_client))
            frame = self._frames[version, old_client] = text.encode()
        return frame


class FactsOf(Mapping[ResourceId, ResourceFacts]):
    """The facts of a client's resources."""

    __slots__ = ("_listed",)

    def __init__(self, listed: Mapping[ResourceId, Listed]) -> None:
        self._listed = listed

    def __getitem__(self, resource_id: ResourceId) -> ResourceFacts:
        return self._listed[resource_id].facts

    def __contains__(self, resource_id: object) -> bool:
        return resource_id in self._listed

    def __iter__(self) -> Iterator[ResourceId]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


class ViewsOf(Mapping[ResourceId, ClientResource]):
    """The views of a client's resources."""

    __slots__ = ("_listed",)

    def __init__(self, listed: Mapping[ResourceId, Listed]) -> None:
        self._listed = listed

    def __getitem__(self, resource_id: ResourceId) -> ClientResource:
        return self._listed[resource_id].view

    def __contains__(self, resource_id: object) -> bool:
        return resource_id in self._listed

    def __iter__(self) -> Iterator[ResourceId]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)
