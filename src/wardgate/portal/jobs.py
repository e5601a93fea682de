"""What the portal does by itself.

`standard_jobs` names what one portal does for all of them; `prune_channels` is what each does for its own channels. A
new job is one more line here: its name, when it is due, and an async function of the hub that bears to be run twice.
"""

from wardgate.portal.channels.hub import Hub
from wardgate.portal.db import outbox, purge
from wardgate.portal.domain.schedules import Every
from wardgate.portal.scheduler import Job


def standard_jobs() -> list[Job]:
    """The jobs that every installation has."""
    return [
        # Half a minute past the others: the removal of a client token reaches the same rows by its cascade.
        Job("expired-grants", Every(minutes=1, offset_s=30), remove_expired_grants),
        Job("expired-tokens", Every(minutes=5), remove_expired_tokens),
        Job("old-change-logs", Every(minutes=5, offset_s=60), remove_old_change_logs),
        Job("old-outbox-entries", Every(minutes=1, offset_s=15), remove_old_outbox_entries),
    ]


async def remove_expired_grants(hub: Hub) -> None:
    """Removes grants that are over, silently: their receivers end them by themselves."""
    await purge.remove_grants(hub.db, hub.clock.utc_now())


async def remove_expired_tokens(hub: Hub) -> None:
    """Removes expired tokens, and rotated gateway tokens past their time."""
    await purge.remove_tokens(hub.db, hub.clock.utc_now())


async def remove_old_change_logs(hub: Hub) -> None:
    """Removes change-log rows past their retention."""
    await purge.remove_change_logs(hub.db, hub.clock.utc_now())


async def remove_old_outbox_entries(hub: Hub) -> None:
    """Removes changes that every portal that is not cut off has told its channels."""
    await outbox.prune(hub.db, hub.clock.utc_now() - outbox.RETENTION)


def prune_channels(hub: Hub) -> None:
    """Forgets grants that are over, in the channels of this portal."""
    for client in hub.presence.all_clients():
        client.grants.prune()
    for gateway in hub.presence.all_gateways():
        gateway.grants.prune()
