"""What carries messages between portals: to all others, or to one; at most once, in order for each sender.

Neither call waits. What cannot be sent now is not sent: the caller is told, or finds out because nothing comes back.
"""

from collections.abc import Callable
from typing import Final, Protocol

ALL: Final = "all"
MAX_MESSAGE: Final = 512 * 1024
"""Bytes of one message; a NATS server takes 1 MiB unless it is told otherwise."""

Received = Callable[[str, bytes], None]
"""Called with `all` or the receiver's id, and the message."""


class Bus(Protocol):
    """One portal's connection to the others."""

    @property
    def is_connected(self) -> bool:
        """Whether a message that is sent now has a chance."""

    def listen(self, received: Received, connected: Callable[[], None]) -> None:
        """Says who takes messages, and who is told that the connection stands (again)."""

    async def start(self) -> None:
        """Begins to connect, for as long as it takes."""

    def send(self, target: str, message: bytes) -> bool:
        """Sends to one portal, or to `ALL` others; false if that is not possible now."""

    async def close(self) -> None:
        """Sends what is queued, then leaves."""


class LocalNetwork:
    """Portals in one process; a test can take the network away, lose what a portal says, and hold messages back.

    Attributes:
        is_up: Whether portals are connected.
        lost: Portals whose messages nobody gets, and who get none, without knowing it.
    """

    def __init__(self) -> None:
        self._buses: dict[str, LocalBus] = {}
        self._held: list[tuple[str, str, bytes]] | None = None
        self.is_up = True
        self.lost: set[str] = set()

    def bus(self, node_id: str) -> "LocalBus":
        """A new portal's connection."""
        return LocalBus(self, node_id)

    def join(self, node_id: str, bus: "LocalBus") -> None:
        """Adds a portal."""
        self._buses[node_id] = bus

    def leave(self, node_id: str) -> None:
        """Takes a portal out."""
        self._buses.pop(node_id, None)

    def carry(self, sender: str, target: str, message: bytes) -> None:
        """Delivers at once, unless messages are held back."""
        if self._held is not None:
            self._held.append((sender, target, message))
            return
        for node_id, bus in list(self._buses.items()):
            if node_id != sender and target in (ALL, node_id) and not self.lost & {sender, node_id}:
                bus.take(target, message)

    def hold(self) -> None:
        """Keeps messages back from now on."""
        self._held = []

    def release(self) -> None:
        """Delivers what was held back."""
        held, self._held = self._held or [], None
        for message in held:
            self.carry(*message)

    def restore(self) -> None:
        """Gives the network back."""
        self.is_up = True
        for bus in list(self._buses.values()):
            bus.connected()


class LocalBus:
    """A connection within the process; alone in its network, it reaches nobody."""

    def __init__(self, network: LocalNetwork, node_id: str) -> None:
        self._network = network
        self._node_id = node_id
        self._is_open = False
        self.take: Received = lambda target, message: None
        self.connected: Callable[[], None] = lambda: None

    @property
    def is_connected(self) -> bool:
        """Whether a message that is sent now has a chance."""
        return self._is_open and self._network.is_up

    def listen(self, received: Received, connected: Callable[[], None]) -> None:
        """Says who takes messages, and who is told that the connection stands (again)."""
        self.take, self.connected = received, connected

    async def start(self) -> None:
        """Joins the network."""
        self._is_open = True
        self._network.join(self._node_id, self)
        if self._network.is_up:
            self.connected()

    def send(self, target: str, message: bytes) -> bool:
        """Sends to one portal, or to `ALL` others; false if that is not possible now."""
        if not self.is_connected or len(message) > MAX_MESSAGE:
            return False
        self._network.carry(self._node_id, target, message)
        return True

    async def close(self) -> None:
        """Leaves the network."""
        self._is_open = False
        self._network.leave(self._node_id)
