"""Why the user could not reach something: what `status` shows, in bounded form."""

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from wardgate.ids import ResourceId
from wardgate.wire.ip import TCP, UDP, FlowKey

KEPT_DENIALS: Final = 64
KEPT_REFUSALS: Final = 64


@dataclass(frozen=True, slots=True)
class Denial:
    """Access to a resource was not given, or ended.

    Attributes:
        reason: The portal's word, or ours: `access_removed`, `resource_changed`, `gateway_lost`.
        violated_properties: The conditions that do not hold, if the portal named them.
        flows_cut: How many running flows it ended.
    """

    resource_id: ResourceId
    resource_name: str
    reason: str
    at: float
    violated_properties: tuple[str, ...] = ()
    flows_cut: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """Packets that were refused: by our own filter (`filter`), or by the gateway (`gateway_prohibited`)."""

    resource_id: ResourceId | None
    protocol: int
    destination: str
    port: int
    reason: str
    packets: int
    at: float


class Denials:
    """The latest of both."""

    def __init__(self) -> None:
        self.denials: deque[Denial] = deque(maxlen=KEPT_DENIALS)
        self._refusals: OrderedDict[tuple[ResourceId | None, int, str, int, str], Refusal] = OrderedDict()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The latest refusals, oldest first."""
        return tuple(self._refusals.values())

    def deny(self, denial: Denial) -> None:
        """Notes a denial; one like the last of its resource replaces it."""
        same = [one for one in self.denials if (one.resource_id, one.reason) == (denial.resource_id, denial.reason)]
        if same and not denial.flows_cut:
            self.denials.remove(same[-1])
        self.denials.append(denial)

    def refuse(self, resource_id: ResourceId | None, flow: FlowKey, reason: str, now: float) -> None:
        """Notes a refused packet by its key."""
        port = flow.destination.port if flow.protocol in (TCP, UDP) else 0
        key = (resource_id, flow.protocol, flow.destination.host, port, reason)
        old = self._refusals.pop(key, None)
        count = 1 if old is None else old.packets + 1
        self._refusals[key] = Refusal(resource_id, flow.protocol, flow.destination.host, port, reason, count, now)
        if len(self._refusals) > KEPT_REFUSALS:
            self._refusals.popitem(last=False)
