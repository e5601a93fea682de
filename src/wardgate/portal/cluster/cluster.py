"""This portal among the others: who is connected where, and messages between channels of different portals.

Each portal numbers what it announces (`Delta`) and says every two seconds how far it is (`Beat`). Who missed
something asks for everything (`Want`) and gets it (`Snapshot`). A portal that is not heard for six seconds is taken
for dead, unless it is this one that has lost the bus: then it keeps what it knew, since relays need no message to be
useful.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wardgate.errors import RemoteProtocolError
from wardgate.ids import ClientId, GatewayId
from wardgate.portal.channels.base import log
from wardgate.portal.channels.handles import Grant
from wardgate.portal.clock import Clock, Timer
from wardgate.portal.cluster import messages
from wardgate.portal.cluster.bus import ALL, Bus
from wardgate.portal.cluster.directory import Directory, gateway_wins, newer_wins
from wardgate.portal.cluster.messages import Delta, Message, Record, Snapshot
from wardgate.portal.cluster.remote import Refs
from wardgate.portal.cluster.sealing import Derive, Sealer
from wardgate.portal.metrics import Metrics
from wardgate.wire import portal

if TYPE_CHECKING:
    from wardgate.portal.presence import Presence

BEAT_S: Final = 2.0
LOST_S: Final = 6.0
_WANT_S: Final = 1.0
_MAX_BUFFERED: Final = 2000


@dataclass(slots=True)
class _Series:
    """Where we are in what another portal announces."""

    heard_at: float
    position: int = 0
    wanted_at: float | None = None
    buffered: deque[Delta] = field(default_factory=lambda: deque(maxlen=_MAX_BUFFERED))
    parts: dict[int, Snapshot] = field(default_factory=dict)


class Cluster:
    """The other portals, as this one sees them. It is the `Sender` of the handles on their devices."""

    def __init__(
        self, node_id: str, bus: Bus, presence: "Presence", *, clock: Clock, metrics: Metrics, derive: Derive
    ) -> None:
        self.node_id = node_id
        self.refs = Refs()
        self.wake: Callable[[], None] = lambda: None
        self._bus = bus
        self._presence = presence
        self._directory: Directory = presence.remote
        self._clock = clock
        self._metrics = metrics
        self._sealer = Sealer(node_id, derive)
        self._series: dict[str, _Series] = {}
        self._position = 0
        self._dirty: dict[int, Record | None] = {}
        self._is_flush_due = False
        self._connected_at = clock.now()
        self._timer: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._directory.sender = self
        self._directory.arrived = self._resolve
        self._directory.relays_changed = presence.tell_about_relays
        presence.announce = self._announce
        bus.listen(self._received, self._connected)

    @property
    def is_connected(self) -> bool:
        """Whether other portals can be reached."""
        return self._bus.is_connected

    @property
    def node_ids(self) -> list[str]:
        """The other portals that are heard."""
        return sorted(self._series)

    async def start(self) -> None:
        """Begins to listen and to tell."""
        await self._bus.start()
        self._tick()

    async def close(self) -> None:
        """Says goodbye."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._flush()
        self._send(ALL, messages.Bye())
        await self._bus.close()

    # --- telling ----------------------------------------------------------------------------------------------------

    def send(self, node_id: str, message: Message) -> bool:
        """Sends to one portal; false if that is not possible now."""
        self._flush()
        is_sent = self._send(node_id, message)
        if not is_sent:
            self._metrics.bus_dropped.labels("undeliverable").inc()
        return is_sent

    def committed(self) -> None:
        """Something was committed here: the others look at the outbox."""
        self._send(ALL, messages.Wake())

    def _send(self, target: str, message: Message) -> bool:
        if not self._bus.is_connected:
            return False
        return self._bus.send(target, self._sealer.seal(target, messages.encode(message)))

    def _announce(self, order: int, record: Record | None) -> None:
        """A channel of ours came or changed, or left; told with what else happens in this turn of the loop."""
        self._dirty[order] = record
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        dirty, self._dirty = self._dirty, {}
        entries = list(dirty.items())
        for start in range(0, len(entries), messages.MAX_RECORDS):
            some = entries[start : start + messages.MAX_RECORDS]
            self._position += 1
            changed = tuple(record for _, record in some if record is not None)
            gone = tuple(order for order, record in some if record is None)
            self._send(ALL, Delta(self._position, changed, gone))

    def _tick(self) -> None:
        self._timer = self._clock.call_later(BEAT_S, self._tick)
        self._presence.watch_silence()
        self._flush()
        self._send(ALL, messages.Beat(self._position, self._presence.count()))
        now = self._clock.now()
        if self._bus.is_connected and now - self._connected_at > LOST_S:
            for node_id in [one for one, series in self._series.items() if now - series.heard_at > LOST_S]:
                log.warning("a portal is not heard any more", node=node_id)
                self._drop(node_id)

    def _drop(self, node_id: str) -> None:
        self._series.pop(node_id, None)
        self._directory.drop(node_id)
        self.refs.refuse_all(node_id)
        self._metrics.nodes.set(len(self._series) + 1)

    def _connected(self) -> None:
        """The bus stands: what others know of us, and we of them, may be old."""
        self._connected_at = self._clock.now()
        for series in self._series.values():
            series.heard_at = self._connected_at
        self._flush()
        self._send(ALL, messages.Hello())
        self._send(ALL, messages.Beat(self._position, self._presence.count()))
        self.wake()

    # --- hearing ----------------------------------------------------------------------------------------------------

    def _received(self, target: str, sealed: bytes) -> None:
        try:
            sender_id, data = self._sealer.open(target, sealed)
            message = messages.decode(data)
        except RemoteProtocolError as error:
            self._metrics.bus_dropped.labels("malformed").inc()
            log.warning("a message on the bus was not one of our portals", problem=str(error))
            return
        if sender_id == self.node_id:
            return
        if target == ALL:
            self._hear(sender_id, message)
        else:
            self._take(sender_id, message)

    def _hear(self, sender_id: str, message: Message) -> None:
        """What is said to all."""
        if isinstance(message, messages.Bye):
            self._drop(sender_id)
            return
        series = self._heard(sender_id)
        match message:
            case messages.Hello():
                self._tell_everything(sender_id)
            case messages.Wake():
                self.wake()
            case messages.Delta():
                self._follow(sender_id, series, message)
            case messages.Beat(position, count):
                node = self._directory.nodes.get(sender_id)
                known = len(node.records) if node else 0
                if position != series.position or count != known:
                    self._want(sender_id, series)

    def _heard(self, sender_id: str) -> _Series:
        series = self._series.get(sender_id)
        if series is None:
            series = self._series[sender_id] = _Series(self._clock.now())
            self._metrics.nodes.set(len(self._series) + 1)
            log.info("a portal is heard", node=sender_id)
        series.heard_at = self._clock.now()
        return series

    def _follow(self, sender_id: str, series: _Series, delta: Delta) -> None:
        if series.wanted_at is not None:
            series.buffered.append(delta)
        if delta.position == series.position + 1:
            series.position = delta.position
            self._directory.change(sender_id, delta.changed, delta.gone)
        elif delta.position > series.position:
            self._want(sender_id, series, delta)

    def _want(self, sender_id: str, series: _Series, delta: Delta | None = None) -> None:
        """We missed something of a portal."""
        now = self._clock.now()
        if series.wanted_at is None:
            series.buffered.clear()
            if delta is not None:
                series.buffered.append(delta)
        elif now - series.wanted_at < _WANT_S:
            return
        series.wanted_at = now
        self._send(sender_id, messages.Want())

    def _complete(self, sender_id: str, series: _Series, part: Snapshot) -> None:
        if any(other.position != part.position for other in series.parts.values()):
            series.parts.clear()
        series.parts[part.part] = part
        if len(series.parts) < part.parts:
            return
        parts, series.parts = series.parts, {}
        if series.wanted_at is None and part.position <= series.position:
            return  # nothing was missed
        series.position, series.wanted_at = part.position, None
        self._directory.replace(sender_id, (record for one in parts.values() for record in one.records))
        missed, series.buffered = series.buffered, deque(maxlen=_MAX_BUFFERED)
        for delta in missed:
            self._follow(sender_id, series, delta)

    def _tell_everything(self, node_id: str) -> None:
        """Sends all our records as they are now; the loop gets its turn in between."""
        self._flush()
        task = asyncio.get_running_loop().create_task(
            self._send_records(node_id, self._position, list(self._presence.records()))
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_records(self, node_id: str, position: int, records: list[Record]) -> None:
        size = messages.MAX_RECORDS
        parts = max(1, -(-len(records) // size))
        for part in range(parts):
            some = tuple(records[part * size : (part + 1) * size])
            self._send(node_id, Snapshot(position, part, parts, some))
            await asyncio.sleep(0)

    def _take(self, sender_id: str, message: Message) -> None:
        """What is said to us alone. A sender that is not heard may have been cut off since it said this."""
        if isinstance(message, messages.Want | messages.Snapshot):
            series = self._heard(sender_id)
            if isinstance(message, messages.Want):
                self._tell_everything(sender_id)
            else:
                self._complete(sender_id, series, message)
            return
        if sender_id not in self._series:
            self._metrics.bus_dropped.labels("stranger").inc()
            return
        try:
            match message:
                case messages.Push():
                    self._deliver(message)
                case messages.Authorize():
                    self._authorize(sender_id, message)
                case messages.Acknowledge(ref, is_taken):
                    if not self.refs.answer(ref, is_taken):
                        self._metrics.ignored.labels("late_acknowledgement").inc()
        except RemoteProtocolError as error:
            self._metrics.bus_dropped.labels("malformed").inc()
            log.warning("a message of another portal was malformed", problem=str(error), node=sender_id)

    def _deliver(self, message: messages.Push) -> None:
        if message.topic == "client":
            client = self._presence.local_client(message.account_id, message.device_id)
            to_client = portal.decode_to_client(message.event, message.payload)
            if client is not None and isinstance(to_client, portal.Message):
                client.push(to_client)
                return
        else:
            gateway = self._presence.local_gateway(message.account_id, message.device_id)
            to_gateway = portal.decode_to_gateway(message.event, message.payload)
            if gateway is not None and isinstance(to_gateway, portal.Message):
                gateway.push(to_gateway)
                return
        self._metrics.bus_dropped.labels("device_gone").inc()

    def _authorize(self, sender_id: str, message: messages.Authorize) -> None:
        made_at = datetime.fromtimestamp(message.authorized_at, UTC) if message.authorized_at is not None else None
        grant = Grant(message.authorization_id, datetime.fromtimestamp(message.expires_at, UTC), made_at)
        if message.topic == "client":
            client = self._presence.local_client(message.account_id, message.device_id)
            access = portal.decode_to_client(message.event, message.payload)
            if client is not None and isinstance(access, portal.ClientDeviceAccessAuthorized):
                client.admit(access, message.resource_id, grant)
            return
        if message.authorization_id in self._presence.ended:
            return  # whoever asked reads of the end as well, and has no use for an answer
        gateway = self._presence.local_gateway(message.account_id, message.device_id)
        create = portal.decode_to_gateway(message.event, message.payload)
        if gateway is None or not isinstance(create, portal.CreateAuthorization) or not gateway.is_joined:
            self._answer(sender_id, create.ref if isinstance(create, portal.CreateAuthorization) else "", False)
            return
        gateway.expect(
            create.ref,
            lambda ref: self._acknowledge(sender_id, ref, message.authorization_id),
            lambda ref: self._answer(sender_id, ref, False),
        )
        gateway.create(create, grant)

    def _acknowledge(self, node_id: str, ref: str, authorization_id: str) -> None:
        if authorization_id not in self._presence.ended:
            self._answer(node_id, ref, True)

    def _answer(self, node_id: str, ref: str, is_taken: bool) -> None:
        self.send(node_id, messages.Acknowledge(ref, is_taken))

    # --- one place for each device ------------------------------------------------------------------------------------

    def _resolve(self, node_id: str, record: Record) -> None:
        """Closes our connection of a device that another portal has with more right."""
        match record:
            case messages.ClientRecord():
                client = self._presence.local_client(record.account_id, ClientId(record.id))
                if client is not None and newer_wins(record, client):
                    self._presence.remove_client(client)
                    client.close()
            case messages.GatewayRecord():
                gateway = self._presence.local_gateway(record.account_id, GatewayId(record.id))
                if gateway is not None:
                    same_key = record.device.public_key == gateway.device.public_key
                    if gateway_wins(record, gateway, same_key=same_key):
                        self._presence.remove_gateway(gateway)
                        gateway.close()
            case messages.RelayRecord():
                relay = self._presence.local_relay(record.id)
                if relay is not None and newer_wins(record, relay):
                    self._presence.remove_relay(relay)
                    relay.close()
