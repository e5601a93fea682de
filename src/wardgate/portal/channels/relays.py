"""Which relays a device holds, and when it is told about others.

Every change in the presence of relays restarts a timer of one second; a relay that is back by then was never gone. One
that has the address of a relay held, but another secret, was started again: the old one will not be back, and devices
are told at once. A device keeps the relays that live, and never loses its last one without a substitute: it would not
ask for another.
"""

from collections.abc import Callable, Iterable
from typing import Final

from wardgate.ids import RelayId
from wardgate.portal.channels.handles import RelayHandle
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import Timer
from wardgate.portal.domain.selection import MAX_RELAYS, OnlineRelay, choose_relays
from wardgate.portal.domain.subjects import Location
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import Relay, RelaysPresence
from wardgate.wire.portal_secrets import turn_credentials

DEBOUNCE_S: Final = 1.0
_Address = tuple[str | None, str | None, int]


class RelayShare:
    """The relays of one device."""

    def __init__(
        self, hub: Hub, *, public_key: str, expires_at: int, location: Location, push: Callable[[RelaysPresence], None]
    ) -> None:
        self._hub = hub
        self._public_key = public_key
        self._expires_at = expires_at
        self._location = location
        self._push = push
        self._held: dict[RelayId, _Address] = {}
        self._timer: Timer | None = None
        hub.presence.relay_listeners[self] = self._changed

    def select(self) -> tuple[Relay, ...]:
        """Chooses relays, keeping those that are held and live, and gives them as objects with credentials."""
        online = self._hub.presence.relays()
        kept = [RelayId(one) for one in sorted(self._held) if one in online]
        others = [OnlineRelay(one, channel.location) for one, channel in online.items() if one not in self._held]
        chosen = choose_relays(others, location=self._location, shuffle=self._hub.shuffled)
        ids = (kept + [one.id for one in chosen])[:MAX_RELAYS]
        if ids:
            self._held = {one: online[one].address for one in ids}
        return tuple(relay for one in ids for relay in self._objects(online[one]))

    def answer_no_relays(self) -> None:
        """The device says that it has none."""
        self._push(RelaysPresence(disconnected_ids=(), connected=self.select()))

    def close(self) -> None:
        """The device is gone."""
        self._hub.presence.relay_listeners.pop(self, None)
        if self._timer:
            self._timer.cancel()

    def _changed(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._is_restarted():
            self._settle()
        else:
            self._timer = self._hub.clock.call_later(DEBOUNCE_S, self._settle)

    def _is_restarted(self) -> bool:
        """Whether another relay has the address of one that is held and gone."""
        online = self._hub.presence.relays()
        addresses = {channel.address for channel in online.values()}
        return any(one not in online and address in addresses for one, address in self._held.items())

    def _settle(self) -> None:
        self._timer = None
        before = set(self._held)
        gone = before - set(self._hub.presence.relays())
        if not gone and len(before) >= MAX_RELAYS:
            return
        connected = self.select()
        if connected and (gone or set(self._held) != before):
            self._push(RelaysPresence(disconnected_ids=tuple(sorted(gone)), connected=connected))

    def _objects(self, channel: RelayHandle) -> Iterable[Relay]:
        username, password = turn_credentials(channel.stamp_secret, self._public_key, self._expires_at)
        for host in (channel.ipv4, channel.ipv6):
            if host is not None:
                yield Relay(
                    id=channel.relay_id,
                    addr=SocketAddr(host, channel.port),
                    username=username,
                    password=password,
                    expires_at=self._expires_at,
                )
