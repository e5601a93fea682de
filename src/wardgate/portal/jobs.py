"""What the portal does by itself every minute."""

from wardgate.portal.channels.hub import Hub
from wardgate.portal.db.purge import purge


async def every_minute(hub: Hub) -> None:
    """Removes what is over, from the database and from the channels."""
    await purge(hub.db, hub.clock.utc_now())
    for client in hub.presence.all_clients():
        client.grants.prune()
    for gateway in hub.presence.all_gateways():
        gateway.grants.prune()


async def deliver_logs(hub: Hub) -> None:
    """Brings new log rows to their sinks; takes as long as the slowest of them, two minutes at most."""
    await hub.delivery.run()
