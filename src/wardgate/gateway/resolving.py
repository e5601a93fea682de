"""Names that clients announced and that the host resolves now."""

from collections import deque
from dataclasses import dataclass
from typing import Final

from wardgate.ids import ClientId
from wardgate.tunnel.events import Resolve
from wardgate.wire.control import AssignedIps

MAX_RESOLVING: Final = 1000
TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Announced:
    """Who waits for an answer about which name."""

    client_id: ClientId
    message: AssignedIps
    deadline: float


class Resolving:
    """Requests to the host's resolver; a repeated announcement waits for the request that runs."""

    def __init__(self) -> None:
        self._by_id: dict[int, Announced] = {}
        self._id_by_announcement: dict[tuple[ClientId, AssignedIps], int] = {}
        self._requests: deque[Resolve] = deque()
        self._next_id = 1
        self.refused = 0

    def start(self, client_id: ClientId, message: AssignedIps, now: float) -> bool:
        """Asks for a name, unless that is under way; returns whether there was room (else counted)."""
        if (client_id, message) in self._id_by_announcement:
            return True
        if len(self._by_id) >= MAX_RESOLVING:
            self.refused += 1
            return False
        request_id = self._next_id
        self._next_id += 1
        self._by_id[request_id] = Announced(client_id, message, now + TIMEOUT_S)
        self._id_by_announcement[client_id, message] = request_id
        self._requests.append(Resolve(request_id, message.domain))
        return True

    def finish(self, request_id: int) -> Announced | None:
        """Ends a request; `None` if it is not known any more."""
        announced = self._by_id.pop(request_id, None)
        if announced is not None:
            del self._id_by_announcement[announced.client_id, announced.message]
        return announced

    def expire(self, now: float) -> list[Announced]:
        """Ends requests that were not answered in time."""
        due = [request_id for request_id, one in self._by_id.items() if now >= one.deadline]
        return [one for request_id in due if (one := self.finish(request_id)) is not None]

    def poll_request(self) -> Resolve | None:
        """The next name to look up."""
        return self._requests.popleft() if self._requests else None

    def poll_timeout(self) -> float | None:
        """When the oldest request has waited long enough."""
        return min((one.deadline for one in self._by_id.values()), default=None)
