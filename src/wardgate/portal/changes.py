"""From committed changes to the channels they concern.

The dispatcher of each portal reads the outbox, one commit at a time, and tells the channels of that portal: receivers
of ended grants are told first and in that moment; clients whose list may be different compute it again. Everything
tolerates being told twice, and a client that missed something catches up with its next init.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import groupby
from typing import Any, Final

from wardgate.errors import DatabaseUnavailable, NotFound
from wardgate.ids import AccountId, ResourceId, TokenId
from wardgate.portal.channels import renewals
from wardgate.portal.channels.base import log
from wardgate.portal.channels.client import ClientChannel
from wardgate.portal.channels.gateway import GatewayChannel
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.lists import MAX_PATCHED
from wardgate.portal.db import access
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.tables import Device, OutboxEntry, PolicyAuthorization
from wardgate.portal.domain import subjects
from wardgate.portal.domain.filters import wire_filters
from wardgate.portal.domain.resources import gateway_view
from wardgate.wire import portal

_POLL_S: Final = 1.0
_RETRY_S: Final = 1.0


@dataclass
class Effects:
    """What one commit means, gathered from its rows."""

    refresh_actors: set[str] = field(default_factory=set)
    refresh_clients: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    resources: set[str] = field(default_factory=set)
    governed: set[str] = field(default_factory=set)
    sites: set[str] = field(default_factory=set)
    resets: dict[str, set[ResourceId]] = field(default_factory=dict)
    refiltered: set[str] = field(default_factory=set)
    moved_grants: set[str] = field(default_factory=set)
    readdressed: set[str] = field(default_factory=set)
    is_account_changed: bool = False

    @property
    def concern_anyone(self) -> bool:
        """Whether any channel has to be told; a new device, say, concerns none."""
        return any(getattr(self, each.name) for each in fields(self))


class Dispatcher:
    """Reads the outbox, as every portal of the database does, and tells the channels of this one."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wake = asyncio.Event()
        hub.db.commit_listeners.append(self.wake)

    async def start(self) -> None:
        """Begins with the changes that are committed from now on: who joins later gets the others with its init."""
        await self._hub.outbox.start()

    def wake(self) -> None:
        """Something was committed, here or elsewhere."""
        self._wake.set()

    async def run(self) -> None:
        """Dispatches until it is cancelled; a failure is logged and tried again."""
        while True:
            self._wake.clear()
            try:
                while await self.dispatch_once():
                    pass
            except DatabaseUnavailable as error:
                log.warning("changes wait for the database", why=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:
                self._hub.metrics.failures.labels("dispatch").inc()
                log.exception("changes could not be dispatched")
                await asyncio.sleep(_RETRY_S)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def dispatch_once(self) -> bool:
        """Takes the next changes; whether there may be more."""
        batch = await self._hub.outbox.read()
        if batch.is_cut_off:
            self._start_afresh()
            return True
        for _, group in groupby(batch.entries, key=lambda entry: entry.commit_id):
            await self._dispatch_surely(list(group))
        self._hub.outbox.advance(batch)
        return batch.has_more

    def _start_afresh(self) -> None:
        """Changes were missed: every device comes back and gets a fresh init."""
        self._hub.metrics.failures.labels("outbox_missed").inc()
        self._hub.lists.forget_all()
        log.error("this portal was cut off from the database for too long; its channels start afresh")
        for channel in self._hub.presence.all_channels():
            channel.close()

    async def _dispatch_surely(self, entries: Sequence[OutboxEntry]) -> None:
        """Dispatches one commit; if that fails, its account's devices start afresh instead of missing something."""
        try:
            await self._dispatch_commit(entries)
        except DatabaseUnavailable:
            raise  # all of them stay in the outbox, and their channels as they are
        except Exception:
            self._hub.metrics.failures.labels("dispatch").inc()
            log.exception("a change could not be dispatched", account_id=entries[0].account_id)
            account_id = AccountId(entries[0].account_id or "")
            self._hub.lists.forget_all(account_id)
            for channel in [*self._hub.presence.clients(account_id), *self._hub.presence.gateways(account_id)]:
                channel.close()

    async def _dispatch_commit(self, entries: Sequence[OutboxEntry]) -> None:
        account_id = entries[0].account_id
        effects = Effects()
        lag = self._hub.clock.utc_now() - entries[0].inserted_at
        self._hub.metrics.dispatch_lag.observe(max(0.0, lag.total_seconds()))
        for entry in entries:
            self._hub.metrics.changes.labels(entry.object).inc()
            rows = [one for one in (entry.before, entry.after) if one]
            if (entry.object, entry.operation) != ("devices", "insert"):  # it is in no pool yet
                self._hub.lists.forget(AccountId(account_id or ""), entry.object, rows)
        for entry in entries:
            self._look_at(entry, effects)
        if account_id is None or not effects.concern_anyone:
            return
        try:
            async with self._hub.db.scoped(subjects.system(AccountId(account_id))) as scope:
                if effects.is_account_changed:
                    await self._tell_account(scope, entries)
                await self._tell_moved_grants(scope, effects)
                await self._tell_addresses(scope, effects)
                await self._tell_filters(scope, effects)
                await self._tell_clients(scope, effects)
        except NotFound:
            self._close_account(AccountId(account_id))

    # --- what each row means ------------------------------------------------------------------------------------------

    def _look_at(self, entry: OutboxEntry, effects: Effects) -> None:
        before, after = entry.before or {}, entry.after or {}
        both = (before, after)
        match entry.object:
            case "policy_authorizations" if entry.operation == "delete":
                self._grant_ended(entry, effects)
            case "policy_authorizations" if entry.operation == "update":
                effects.moved_grants.add(after["id"])
            case "client_tokens" | "gateway_tokens" | "relay_tokens" if entry.operation == "delete":
                for channel in list(self._hub.presence.with_token(TokenId(before["id"]))):
                    channel.disconnect()
            case "accounts":
                effects.is_account_changed = entry.operation != "insert"
            case "policies":
                effects.groups |= {one["group_id"] for one in both if one.get("group_id")}
                effects.governed |= {one["resource_id"] for one in both if one}
            case "memberships":
                effects.refresh_actors |= {one["actor_id"] for one in both if one}
            case "actors" if before.get("type") != after.get("type"):
                effects.refresh_actors.add((after or before)["id"])
            case "resources":
                effects.resources.add((after or before)["id"])
                if entry.operation == "update" and before["filters"] != after["filters"]:
                    effects.refiltered.add(after["id"])
            case "static_device_pool_members":
                effects.resources |= {one["resource_id"] for one in both if one}
            case "sites" if entry.operation == "update":
                effects.sites.add(after["id"])
            case "refresh_requests":
                for client_id, resource_id in after["pairs"]:
                    effects.resets.setdefault(client_id, set()).add(ResourceId(resource_id))
            case "devices":
                self._device_changed(entry, before, after, effects)

    def _grant_ended(self, entry: OutboxEntry, effects: Effects) -> None:
        grant = entry.before or {}
        account_id = AccountId(entry.account_id or "")
        initiator, receiver = grant["initiating_device_id"], grant["receiving_device_id"]
        made_at = datetime.fromisoformat(grant["inserted_at"])
        self._hub.presence.ended.add(grant["id"])
        gateway = self._hub.presence.local_gateway(account_id, receiver)
        if gateway is not None:
            gateway.reject(initiator, grant["resource_id"], grant["id"], made_at)
        target = self._hub.presence.local_client(account_id, receiver)
        if target is not None:
            target.reject(initiator, grant["resource_id"], grant["id"], made_at)
        client = self._hub.presence.local_client(account_id, initiator)
        if client is not None and client.grant_ended(ResourceId(grant["resource_id"]), grant["id"]):
            effects.resets.setdefault(initiator, set()).add(ResourceId(grant["resource_id"]))

    def _device_changed(
        self, entry: OutboxEntry, before: dict[str, Any], after: dict[str, Any], effects: Effects
    ) -> None:
        account_id = AccountId(entry.account_id or "")
        device_id = (after or before)["id"]
        if entry.operation == "delete":
            channel = self._local(account_id, device_id)
            if channel is not None:
                channel.close()
            return
        if entry.operation == "update" and before["verified_at"] != after["verified_at"]:
            effects.refresh_clients.add(device_id)
        if entry.operation == "update" and any(before[name] != after[name] for name in ("ipv4", "ipv6")):
            effects.readdressed.add(device_id)

    def _local(self, account_id: AccountId, device_id: str) -> ClientChannel | GatewayChannel | None:
        """A device that is connected here."""
        presence = self._hub.presence
        return presence.local_client(account_id, device_id) or presence.local_gateway(account_id, device_id)

    # --- telling ------------------------------------------------------------------------------------------------------

    async def _tell_account(self, scope: Scope, entries: Iterable[OutboxEntry]) -> None:
        for entry in entries:
            if entry.object != "accounts" or entry.operation == "insert":
                continue
            if entry.operation == "delete":
                raise NotFound("the account is gone")
            before, after = entry.before or {}, entry.after or {}
            if before["config"] != after["config"]:
                config = (await scope.account()).config  # of two commits side by side, the later one's
                for client in self._hub.presence.clients(scope.account_id):
                    client.announce_config(config)
            if before["slug"] != after["slug"]:
                for gateway in self._hub.presence.gateways(scope.account_id):
                    await gateway.send_init()

    async def _tell_moved_grants(self, scope: Scope, effects: Effects) -> None:
        """Grants that end at another moment: each receiver here is told, and each client here knows when to renew."""
        for grant_id in sorted(effects.moved_grants):
            grant = await scope.find(PolicyAuthorization, grant_id)
            if grant is None:
                continue
            client = self._hub.presence.local_client(scope.account_id, grant.initiating_device_id)
            if client is not None:
                client.grant_moved(grant.id, grant.expires_at)
            receiver = self._local(scope.account_id, grant.receiving_device_id)
            facts = await renewals.stored_facts(scope, grant) if receiver is not None else None
            if receiver is not None and facts is not None:
                receiver.extend(grant, facts)

    async def _tell_addresses(self, scope: Scope, effects: Effects) -> None:
        """Devices with another tunnel address: they start afresh; pools show it to others."""
        effects.resources |= await access.pools_of_devices(scope, effects.readdressed)
        for device_id in sorted(effects.readdressed):
            device = await scope.find(Device, device_id)
            channel = self._local(scope.account_id, device_id)
            if device is not None and channel is not None:
                await channel.readdress(device.ipv4, device.ipv6)

    async def _tell_filters(self, scope: Scope, effects: Effects) -> None:
        if not effects.refiltered:
            return
        facts = await access.resource_facts(scope, effects.refiltered)
        for resource in facts.values():
            for gateway in self._hub.presence.gateways(scope.account_id):
                view = gateway_view(resource, gateway.device.version)
                if view is not None and gateway.grants.has_resource(resource.id):
                    gateway.push(portal.ResourceUpdated(resource=view))
            for client in self._hub.presence.clients(scope.account_id):
                if client.grants.has_resource(resource.id):
                    filters = wire_filters(resource.filters)
                    client.push(portal.ResourceFiltersUpdated(id=resource.id, filters=filters))

    async def _tell_clients(self, scope: Scope, effects: Effects) -> None:
        """Has each client concerned look at what changed, or at its whole list if that is too much or not known."""
        if not self._hub.presence.clients(scope.account_id):
            return
        effects.resources |= await access.resources_of_sites(scope, effects.sites)
        resources = effects.resources | effects.governed
        concerned = await self._concerned(scope, effects)
        patch = None
        if concerned and resources and len(resources) <= MAX_PATCHED:
            patch = await self._hub.lists.patch(scope, resources, lambda: {one.actor_id for one in concerned})
        for client in concerned:
            reset = effects.resets.get(client.device_id, set())
            is_patched = patch is not None and reset <= resources
            if client.actor_id in effects.refresh_actors or client.device_id in effects.refresh_clients:
                is_patched = False
            if patch is not None and is_patched:
                client.patch(patch, reset)
            else:
                client.request_refresh(reset)

    async def _concerned(self, scope: Scope, effects: Effects) -> "list[ClientChannel]":
        presence, account_id = self._hub.presence, scope.account_id
        groups = effects.groups | await access.groups_of_resources(scope, effects.resources)
        actors = await access.actors_of_groups(scope, groups)
        if actors is None:
            return presence.clients(account_id)
        concerned = dict.fromkeys(presence.clients(account_id, actors | effects.refresh_actors))
        devices = effects.refresh_clients | set(effects.resets)
        concerned |= dict.fromkeys(
            one for id_ in devices if (one := presence.local_client(account_id, id_)) is not None
        )
        listing = [ResourceId(one) for one in effects.resources]
        if listing:
            clients = presence.clients(account_id)
            concerned |= dict.fromkeys(one for one in clients if any(id_ in one.resources for id_ in listing))
        return list(concerned)

    def _close_account(self, account_id: AccountId) -> None:
        for channel in [*self._hub.presence.clients(account_id), *self._hub.presence.gateways(account_id)]:
            channel.disconnect()
