"""The conversation with a relay: it joins with its secret, and is then there or not there."""

from typing import ClassVar

from wardgate.ids import RelayId, TokenId
from wardgate.portal.channels.base import CLOSE_NORMAL, Channel, Transport
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.views import cut_location
from wardgate.portal.cluster.messages import RelayRecord
from wardgate.portal.db.tables import RelayToken
from wardgate.portal.domain.subjects import Location
from wardgate.wire import portal
from wardgate.wire.portal import ApiVersion, Frame, Topic
from wardgate.wire.portal_secrets import relay_id


class RelayChannel(Channel):
    """One relay; the same secret again is the same relay, on a newer connection."""

    topic: ClassVar[Topic] = "relay"

    def __init__(
        self,
        hub: Hub,
        transport: Transport,
        *,
        token_id: TokenId,
        ipv4: str | None,
        ipv6: str | None,
        port: int,
        location: Location,
    ) -> None:
        super().__init__(hub, transport, ApiVersion.V1)
        self.token_id = token_id
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.port = port
        self.location = location
        self.stamp_secret = ""
        self.relay_id = RelayId("")

    @property
    def address(self) -> tuple[str | None, str | None, int]:
        """Where it is reached: IPv4 and IPv6 host, and the port."""
        return self.ipv4, self.ipv6, self.port

    @property
    def record(self) -> RelayRecord:
        """What other portals must know."""
        return RelayRecord(
            order=self.order,
            relay_id=self.relay_id,
            token_id=self.token_id,
            ipv4=self.ipv4,
            ipv6=self.ipv6,
            port=self.port,
            location=cut_location(self.location),
            stamp_secret=self.stamp_secret,
            replaces=self.replaces,
        )

    async def join(self, frame: Frame) -> None:
        """Registers the relay under the id that its secret gives."""
        secret = portal.decode_relay_join(frame.payload).stamp_secret
        self.leave()
        async with self.hub.db.unscoped() as session:
            if await session.get(RelayToken, self.token_id) is None:
                self.disconnect()
                return
        self.stamp_secret, self.relay_id = secret, relay_id(secret)
        self.is_joined = True
        self.reply_ok(frame)
        self.push(portal.RelayInit())
        older = self.hub.presence.add_relay(self)
        if older is not None:
            older.is_joined = False
            older.close()
        self.hub.metrics.connected.labels("relay").inc()
        self.hub.metrics.joins.labels("relay").inc()

    async def handle_message(self, frame: Frame) -> bool:
        """A relay has nothing to say beyond heartbeats."""
        return False

    def leave(self) -> None:
        """Takes the relay out of presence."""
        if self.is_joined:
            self.is_joined = False
            self.hub.metrics.connected.labels("relay").dec()
        self.hub.presence.remove_relay(self)

    def disconnect(self) -> None:
        """Its token is gone: the socket closes, and the next connect is refused."""
        self._transport.close(CLOSE_NORMAL)
