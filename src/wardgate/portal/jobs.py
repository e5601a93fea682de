"""What the portal does by itself.

`standard_jobs` names what one portal does for all of them; `prune_channels` is what each does for its own channels. A
new job is one more line here: its name, when it is due, and an async function of the hub that bears to be run twice.
"""

from wardgate.portal.channels.hub import Hub
from wardgate.portal.db import outbox, purge
from wardgate.portal.domain.schedules import Daily, Every
from wardgate.portal.scheduler import Job
from wardgate.portal.services import account_life, plans


def standard_jobs() -> list[Job]:
    """The jobs that every installation has."""
    return [
        # Half a minute past the others: the removal of a client token reaches the same rows by its cascade.
        Job("expired-grants", Every(minutes=1, offset_s=30), remove_expired_grants),
        Job("expired-tokens", Every(minutes=5), remove_expired_tokens),
        Job("account-deletions", Every(minutes=1, offset_s=45), delete_due_accounts),
        Job("account-limits", Every(minutes=30), count_limits),
        Job("old-logs", Every(minutes=5, offset_s=60), remove_old_logs),
        Job("old-flow-logs", Daily(3, 30), remove_old_flow_logs),
        Job("log-deliveries", Every(minutes=1), deliver_logs),
        Job("old-outbox-entries", Every(minutes=1, offset_s=15), remove_old_outbox_entries),
    ]


async def remove_expired_grants(hub: Hub) -> None:
    """Removes grants that are over, silently: their receivers end them by themselves."""
    await purge.remove_grants(hub.db, hub.clock.utc_now())


async def remove_expired_tokens(hub: Hub) -> None:
    """Removes expired tokens, and rotated gateway tokens past their time."""
    await purge.remove_tokens(hub.db, hub.clock.utc_now())


async def remove_old_logs(hub: Hub) -> None:
    """Removes rows of the change, session and API request logs past their retention."""
    await purge.remove_logs(hub.db, hub.clock.utc_now())


async def remove_old_flow_logs(hub: Hub) -> None:
    """Removes flows past their retention."""
    await purge.remove_flow_logs(hub.db, hub.clock.utc_now())


async def delete_due_accounts(hub: Hub) -> None:
    """Deletes accounts whose week of grace is over."""
    await account_life.sweep(hub.db, hub.clock.utc_now())


async def count_limits(hub: Hub) -> None:
    """Flags accounts that have more than they may, and those that have not any more."""
    await plans.recompute_all(hub.db)


async def remove_old_outbox_entries(hub: Hub) -> None:
    """Removes changes that every portal that is not cut off has told its channels."""
    await outbox.prune(hub.db, hub.clock.utc_now() - outbox.RETENTION)


async def deliver_logs(hub: Hub) -> None:
    """Brings new log rows to their sinks; takes as long as the slowest of them, two minutes at most."""
    await hub.delivery.run()


def prune_channels(hub: Hub) -> None:
    """Forgets grants that are over, in the channels of this portal."""
    for client in hub.presence.all_clients():
        client.grants.prune()
    for gateway in hub.presence.all_gateways():
        gateway.grants.prune()
