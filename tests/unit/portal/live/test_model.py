"""Random changes against an account with live sockets; after each, what peers were told is what is so.

`WARDGATE_LIVE_SEEDS` is the number of seeds, `WARDGATE_LIVE_FIRST_SEED` the first and `WARDGATE_LIVE_STEPS` the length.
"""

import os
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.unit.portal.live.fold import ClientFold, GatewayFold
from tests.unit.portal.live.world import World
from tests.unit.portal.sockets.harness import key
from wardgate.portal.db import access
from wardgate.portal.db.purge import remove_grants
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.tables import Actor, Device, Policy, PolicyAuthorization
from wardgate.portal.domain.authorizations import connectable
from wardgate.portal.domain.conditions import Circumstances
from wardgate.portal.domain.resources import client_view
from wardgate.portal.services import devices, groups, policies, resources, sites, tokens
from wardgate.wire import portal

SEEDS = int(os.environ.get("WARDGATE_LIVE_SEEDS", "3"))
FIRST = int(os.environ.get("WARDGATE_LIVE_FIRST_SEED", "1"))
STEPS = int(os.environ.get("WARDGATE_LIVE_STEPS", "30"))
CLIENTS = {"laptop": "mia", "phone": "mia", "ugo-laptop": "ugo", "printer": "pia"}
GATEWAYS = {"gw-vienna": "vienna", "gw-graz": "graz"}
GROUPS = ("engineering", "oncall", "finance", "everyone", "nobody")
RESOURCES = ("lab", "web", "wiki", "ledger", "spare")
OTHERS = ("eve-laptop", "gw-rival")


def _hours(*values: str) -> list[dict[str, Any]]:
    operator = "is_in_day_of_week_time_ranges"
    return [{"property": "current_utc_datetime", "operator": operator, "values": list(values)}]


CONDITIONS: list[list[dict[str, Any]]] = [
    [],
    [],
    _hours("M/true/UTC"),
    _hours("M/12:00-12:20/UTC", "M/12:40-13:30/UTC"),
    _hours("M/12:15-12:45/UTC"),
    _hours("M/13:00-14:00/Europe/Vienna"),
    [{"property": "client_verified", "operator": "is", "values": ["true"]}],
    [{"property": "remote_ip", "operator": "is_in_cidr", "values": ["10.0.0.0/8"]}],
]


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_what_peers_were_told_is_what_is_so(world: World, seed: int) -> None:
    model = Model(world, random.Random(seed))
    for step in range(STEPS):
        name = await model.step()
        await world.quiesce()
        await model.check(f"seed {seed}, step {step}: {name}")
    await model.check_against_fresh_starts()


class Model:
    """The folds of all peers, by the program that keeps them."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._folds: dict[str, ClientFold | GatewayFold] = {}
        self._read: dict[str, tuple[object, int]] = {}
        self._programs = 0
        self._silence = {name: world.peers[name].bytes_of_events for name in OTHERS}

    # --- steps --------------------------------------------------------------------------------------------------------

    async def step(self) -> str:
        """One random thing happens."""
        steps: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (8, self._ask),
            (10, self._change),
            (3, self._time_passes),
            (2, self._client_comes_back),
            (2, self._gateway_comes_back),
            (1, self._client_leaves),
            (1, self._signs_in_anew),
        ]
        [(_, chosen)] = self._rng.choices(steps, [weight for weight, _ in steps])
        await self._return_all(keep=chosen is self._client_leaves)
        self.last = chosen.__name__
        await chosen()
        return self.last

    async def _return_all(self, *, keep: bool) -> None:
        for name in CLIENTS:
            if name not in self._world.peers and not keep and self._rng.random() < 0.5:
                await self._world.dial_again(name, "client")

    def _online(self) -> list[str]:
        return [name for name in CLIENTS if name in self._world.peers]

    async def _ask(self) -> None:
        if not self._online():
            return
        client = self._rng.choice(self._online())
        listed = [name for name in RESOURCES if self._world.id(name) in self._client(client).resources]
        pools = [view for view in self._client(client).resources.values() if view.get("devices")]
        if pools and self._rng.random() < 0.3:
            address = pools[0]["devices"][0]["ipv4"].partition("/")[0]
            message = portal.RequestAuthorization.model_validate({"resource_id": pools[0]["id"], "ipv4": address})
            await self._world.peers[client].send(message)
        elif listed:
            await self._world.ask(client, self._rng.choice(listed))
        await self._world.quiesce()
        if self._rng.random() < 0.9:
            await self._acknowledge()

    async def _acknowledge(self) -> None:
        for name in GATEWAYS:
            peer = self._world.peers[name]
            for frame in [one for one in peer.unread if one.event in ("create_authorization", "authorize_flow")]:
                peer.unread.remove(frame)
                payload: Any = frame.payload
                await self._world.acknowledge(name, payload["ref"])

    async def _change(self) -> None:
        changes: list[Callable[[UnitOfWork], Awaitable[object]]] = [
            self._add_policy,
            self._change_policy,
            self._change_policy,
            self._delete_policy,
            self._change_members,
            self._change_members,
            self._change_resource,
            self._change_pool,
            self._verify,
            self._readdress,
            self._rename_site,
        ]
        count = self._rng.choice((1, 1, 1, 2, 3))
        names = []
        async with self._world.change() as unit:
            for change in self._rng.choices(changes, k=count):
                names.append(change.__name__)
                await change(unit)
        self.last = " ".join(names)

    async def _add_policy(self, unit: UnitOfWork) -> None:
        rng, world = self._rng, self._world
        fields = {
            "group_id": world.id(rng.choice(GROUPS)),
            "resource_id": world.id(rng.choice((*RESOURCES, "printers"))),
            "conditions": rng.choice(CONDITIONS),
            "flow_log_uploads_enabled": rng.random() < 0.8,
            "is_disabled": rng.random() < 0.1,
        }
        taken = unit.select(Policy).filter_by(group_id=fields["group_id"], resource_id=fields["resource_id"])
        if not await unit.all(taken):
            await policies.create_policy(unit, fields)

    async def _policy(self, unit: UnitOfWork) -> Policy | None:
        rows = sorted(await unit.all(unit.select(Policy)), key=lambda row: (row.inserted_at, row.id))
        known = {self._world.id(name): name for name in (*RESOURCES, "printers", *GROUPS)}
        rows.sort(key=lambda row: (known[row.resource_id], known.get(row.group_id or "", "")))
        return self._rng.choice(rows) if rows else None

    async def _change_policy(self, unit: UnitOfWork) -> None:
        policy = await self._policy(unit)
        if policy is None:
            return
        fields: dict[str, Any] = self._rng.choice(
            [
                {"conditions": self._rng.choice(CONDITIONS)},
                {"conditions": self._rng.choice(CONDITIONS)},
                {"is_disabled": not policy.is_disabled},
                {"flow_log_uploads_enabled": not policy.flow_log_uploads_enabled},
            ]
        )
        await policies.update_policy(unit, policy.id, fields)

    async def _delete_policy(self, unit: UnitOfWork) -> None:
        policy = await self._policy(unit)
        if policy is not None:
            await policies.delete_policy(unit, policy.id)

    async def _change_members(self, unit: UnitOfWork) -> None:
        group = self._world.id(self._rng.choice(("engineering", "oncall", "finance")))
        actor = self._world.id(self._rng.choice(("mia", "mia", "ugo", "pia")))
        if self._rng.random() < 0.5:
            await groups.change_members(unit, group, add=[actor])
        else:
            await groups.change_members(unit, group, remove=[actor])

    async def _change_resource(self, unit: UnitOfWork) -> None:
        rng, world = self._rng, self._world
        name = rng.choice(RESOURCES)
        fields: dict[str, Any] = rng.choice(
            [
                {"name": f"{name} {rng.randrange(100)}"},
                {"filters": [{"protocol": "tcp", "ports": [str(rng.randrange(1, 9))]}]},
                {"filters": []},
                {"address": f"{rng.randrange(9)}.corp.example" if name == "web" else f"10.{rng.randrange(9)}.0.0/24"},
                {"site_id": world.id(rng.choice(("vienna", "graz")))},
            ]
        )
        await resources.update_resource(unit, world.id(name), fields)

    async def _change_pool(self, unit: UnitOfWork) -> None:
        members = self._rng.choice((["printer"], ["printer", "ugo-laptop"], []))
        await resources.set_pool_members(unit, self._world.id("printers"), [self._world.id(one) for one in members])

    async def _verify(self, unit: UnitOfWork) -> None:
        client = self._world.id(self._rng.choice(tuple(CLIENTS)))
        await devices.set_verified(unit, client, self._rng.random() < 0.5)

    async def _readdress(self, unit: UnitOfWork) -> None:
        device = self._world.id(self._rng.choice((*CLIENTS, *GATEWAYS)))
        fields = {"ipv4": f"100.64.{self._rng.randrange(200, 250)}.{self._rng.randrange(1, 250)}"}
        taken = [row.ipv4 for row in await unit.all(unit.select(Device))]
        if fields["ipv4"] not in taken:
            await devices.change_addresses(unit, device, fields)

    async def _rename_site(self, unit: UnitOfWork) -> None:
        name = f"site {self._rng.randrange(10_000)}"
        await sites.update_site(unit, self._world.id(self._rng.choice(("vienna", "graz"))), {"name": name})

    async def _time_passes(self) -> None:
        await self._world.advance(self._rng.choice((1, 40, 600)), step=30)
        if self._rng.random() < 0.5:
            await remove_grants(self._world.db, self._world.clock.utc_now())

    def _new_key(self) -> dict[str, str]:
        self._programs += 1
        return {"public_key": key(f"program {self._programs}")} if self._rng.random() < 0.5 else {}

    async def _client_comes_back(self) -> None:
        if self._online():
            await self._world.come_back(self._rng.choice(self._online()), **self._new_key())

    async def _client_leaves(self) -> None:
        if self._online():
            await self._world.leave(self._rng.choice(self._online()))

    async def _gateway_comes_back(self) -> None:
        await self._world.come_back(self._rng.choice(tuple(GATEWAYS)), **self._new_key())

    async def _signs_in_anew(self) -> None:
        if not self._online():
            return
        name = self._rng.choice(self._online())
        actor_id = self._world.id(CLIENTS[name])
        async with self._world.change() as unit:
            kind = (await unit.get(Actor, actor_id)).type
            later = (unit.at + timedelta(days=self._rng.randrange(1, 9))).isoformat()
            issued = await tokens.create_client_token(unit, actor_id, {"expires_at": later}, actor_types=(kind,))
        await self._world.come_back(name, token=issued.text)

    # --- what is so ---------------------------------------------------------------------------------------------------

    def _client(self, name: str) -> ClientFold:
        fold = self._fold(name, ClientFold)
        assert isinstance(fold, ClientFold)
        return fold

    def _gateway(self, name: str) -> GatewayFold:
        fold = self._fold(name, GatewayFold)
        assert isinstance(fold, GatewayFold)
        return fold

    def _fold(self, name: str, kind: type[ClientFold] | type[GatewayFold]) -> ClientFold | GatewayFold:
        """What the program behind a peer knows; a new connection of the same program goes on with it."""
        peer, program = self._world.peers[name], self._world.key_of(name)
        fold = self._folds.setdefault(program, kind())
        known, count = self._read.get(program, (peer, 0))
        for frame in peer.seen[count if known is peer else 0 :]:
            fold.take(frame)
        self._read[program] = (peer, len(peer.seen))
        return fold

    async def check(self, where: str) -> None:
        """Every peer that is there believes what the database says, and the other tenant heard nothing."""
        now = self._world.clock.utc_now()
        rows = [row for row in await self._world.grants() if row.expires_at > now]
        for name in GATEWAYS:
            stored = {_pair(row): int(row.expires_at.timestamp()) for row in rows if self._receives(row, name)}
            assert self._gateway(name).at(now.timestamp()) == stored, f"{where}: grants at {name}"
        for name in self._online():
            fold = self._client(name)
            assert not fold.is_over, where
            assert fold.resources == await self._list(name), f"{where}: the list of {name}"
            stored = {_pair(row): int(row.expires_at.timestamp()) for row in rows if self._receives(row, name)}
            inbound = {pair: end for pair, end in fold.inbound.items() if end > now.timestamp()}
            assert inbound == stored, f"{where}: grants to reach {name}"
            await self._check_beliefs(name, fold, where)
        for name, count in self._silence.items():
            assert self._world.peers[name].bytes_of_events == count, f"{where}: {name} heard of another tenant"

    async def _check_beliefs(self, name: str, fold: ClientFold, where: str) -> None:
        """What a client believes to have, it has, up to the instant of its end: else it would stay refused."""
        now, rows = self._world.clock.utc_now(), await self._world.grants()
        own = [row for row in rows if row.initiating_device_id == self._world.id(name) and row.expires_at >= now]
        for resource_id, gateway_id in fold.granted.items():
            has = any((row.resource_id, row.receiving_device_id) == (resource_id, gateway_id) for row in own)
            assert has, f"{where}: {name} believes in {self._world.names[resource_id]}"
        for ipv4, _ in fold.reached:
            reached = [row for row in own if (await self._device(row.receiving_device_id)).ipv4 == ipv4]
            assert reached, f"{where}: {name} believes in {ipv4}"

    async def _device(self, device_id: str) -> Device:
        return await self._world.device(self._world.names[device_id])

    def _receives(self, row: PolicyAuthorization, name: str) -> bool:
        return row.receiving_device_id == self._world.id(name)

    async def _list(self, name: str) -> dict[str, Any]:
        world = self._world
        async with world.db.scoped(world.tenants["corp"].subject) as scope:
            device = await scope.get(Device, world.id(name))
            actor = await scope.get(Actor, device.actor_id or "")
            now = Circumstances(
                world.clock.utc_now(), device.last_seen_remote_ip, None, None, device.verified_at is not None
            )
            granted = connectable(await access.rules_of_actor(scope, actor), now)
            facts = await access.resource_facts(scope, granted)
        agent, version = device.last_seen_user_agent or "", device.last_seen_version
        views = {one: client_view(fact, agent, version) for one, fact in facts.items()}
        return {one: view.model_dump(mode="json") for one, view in views.items() if view is not None}

    async def check_against_fresh_starts(self) -> None:
        """A connection of a new program is told the same."""
        for name in self._online():
            known = dict(self._client(name).resources)
            self._programs += 1
            await self._world.come_back(name, public_key=key(f"program {self._programs}"))
            await self._world.quiesce()
            assert self._client(name).resources == known, name


def _pair(row: PolicyAuthorization) -> tuple[str, str]:
    return row.initiating_device_id, row.resource_id
