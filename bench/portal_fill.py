"""Fills a portal's database with many agents in seconds: rows as the services would leave them, inserted in bulk.

The account, its admin and its API client are made by the services themselves. The rest has the columns that the
services set, and its row in the change log; `tests/unit/portal/test_bench_fill.py` compares the two.
"""

import base64
import hashlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from wardgate.ids import AccountId, TokenId
from wardgate.portal.db.access import EVERYONE
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork, as_json
from wardgate.portal.db.sealing import seal
from wardgate.portal.db.tables import (
    Actor,
    Base,
    ChangeLog,
    ClientToken,
    Device,
    GatewayToken,
    Group,
    Membership,
    Policy,
    Resource,
    Site,
    new_id,
)
from wardgate.portal.domain import log_ids, subjects, tokens
from wardgate.portal.domain.conditions import parse_conditions
from wardgate.portal.domain.filters import parse_filters
from wardgate.portal.domain.tunnel_ips import ipv4_candidates, ipv6_candidates
from wardgate.portal.services import accounts, actors
from wardgate.portal.services.tokens import create_api_token

BATCH: Final = 2_000
DEPARTMENTS: Final = 10
TEAM: Final = 100
SHARED_RESOURCES: Final = 20
GATEWAYS_OF_A_SITE: Final = 5
TOKEN_LIFETIME: Final = timedelta(days=30)
AFTER_THE_SERVICES: Final = 1000
"""Microseconds by which ids of changes lie behind those of the commits before."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is.

    Attributes:
        agents: Clients, each with an actor of its own.
        resources: Each with one policy.
        memberships: Altogether: every actor is in one department of ten and in some teams of a hundred.
    """

    agents: int
    gateways: int
    resources: int
    memberships: int

    @classmethod
    def of(cls, agents: int) -> "Size":
        """The size with as many agents, everything else in the proportions of the issue: 10,000 to 500 and so on."""
        return cls(agents, max(GATEWAYS_OF_A_SITE, agents // 20), agents, agents * 10)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What one program needs to connect.

    Attributes:
        resource_ids: What a client may reach; of a gateway nothing.
    """

    token: str
    external_id: str
    public_key: str
    resource_ids: tuple[str, ...] = ()


@dataclass
class Filled:
    """What is in the database, as far as the swarm has to know it.

    Attributes:
        policy_of_one: A policy that concerns the first client only.
        policy_of_department: One that concerns every tenth client.
        policy_of_all: One that concerns every client.
        department: The numbers of the clients that `policy_of_department` concerns.
    """

    size: Size
    api_token: str
    account_id: str
    clients: list[AgentSpec] = field(default_factory=list)
    gateways: list[AgentSpec] = field(default_factory=list)
    policy_of_one: str = ""
    policy_of_department: str = ""
    policy_of_all: str = ""
    department: tuple[int, ...] = ()


async def fill(db: Database, size: Size, seed: int = 1) -> Filled:
    """Fills a migrated, empty database."""
    account = await accounts.create_account(
        db, {"slug": "swarm"}, {"name": "Ada", "type": "account_admin_user", "email": "ada@swarm.example"}
    )
    subject = subjects.system(AccountId(account.id))
    async with db.writing(subject) as unit:
        robot = await actors.create_actor(unit, {"name": "API", "type": "api_client"}, ("api_client",))
        api_token = (await create_api_token(unit, robot.id, {})).text
    filled = Filled(size, api_token, account.id)
    async with db.writing(subject) as unit:
        await _Filler(unit, filled, random.Random(seed)).run()
    return filled


class _Filler:
    def __init__(self, unit: UnitOfWork, filled: Filled, rng: random.Random) -> None:
        self._unit = unit
        self._filled = filled
        self._size = filled.size
        self._rng = rng
        self._logged = 0

    async def run(self) -> None:
        sites = [self._row(Site, name=f"Site {number}") for number in range(self._site_count)]
        people = [
            self._row(Actor, type="account_user", name=f"Person {number}", email=f"person{number}@swarm.example")
            for number in range(self._size.agents)
        ]
        await self._insert(sites)
        await self._insert(people)
        everyone = await self._unit.session.scalar(
            self._unit.select(Group).with_only_columns(Group.id).where(Group.type == EVERYONE)
        )
        assert everyone is not None
        groups, members = self._groups()
        await self._insert(groups)
        resources = self._resources(sites)
        await self._insert(resources)
        policies = self._policies(everyone, groups, resources)
        await self._insert(policies)
        memberships = [
            self._row(Membership, actor_id=people[number].id, group_id=group.id)
            for group, numbers in zip(groups, members, strict=True)
            for number in numbers
        ]
        await self._insert(memberships)
        self._filled.department = members[1]
        reach: dict[str, list[str]] = {}
        for policy in policies:
            reach.setdefault(policy.group_id or "", []).append(policy.resource_id)
        listed = [list(reach[everyone]) for _ in people]
        for group, numbers in zip(groups, members, strict=True):
            for number in numbers:
                listed[number] += reach.get(group.id, [])
        await self._devices(people, sites, listed)

    @property
    def _site_count(self) -> int:
        return max(1, self._size.gateways // GATEWAYS_OF_A_SITE)

    def _row(self, kind: type[Any], **columns: Any) -> Any:
        return kind(account_id=self._unit.account_id, id=new_id(), **columns)

    # --- who is where -------------------------------------------------------------------------------------------------

    def _groups(self) -> tuple[list[Group], list[tuple[int, ...]]]:
        """One group of one, ten departments, and teams, with the numbers of their members."""
        agents = self._size.agents
        everybody = range(agents)
        members: list[tuple[int, ...]] = [(0,)]
        members += [tuple(range(number, agents, DEPARTMENTS)) for number in range(DEPARTMENTS)]
        left = self._size.memberships - sum(map(len, members))
        team = min(TEAM, agents)
        while left > 0:
            some = tuple(sorted(self._rng.sample(everybody, min(team, left))))
            members.append(some)
            left -= len(some)
        names = ["Only one", *(f"Department {number}" for number in range(DEPARTMENTS))]
        names += [f"Team {number}" for number in range(len(members) - len(names))]
        return [self._row(Group, name=name) for name in names], members

    def _resources(self, sites: Sequence[Site]) -> list[Resource]:
        rows = []
        for number in range(self._size.resources):
            kind = ("dns", "dns", "dns", "cidr", "ip")[number % 5]
            address = {
                "dns": f"host{number}.corp.example",
                "cidr": f"10.{number >> 8 & 255}.{number & 255}.0/24",
                "ip": f"172.{16 + (number >> 16 & 15)}.{number >> 8 & 255}.{number & 255}",
            }[kind]
            given = [{"protocol": "tcp", "ports": ["443", "8000-8100"]}] if number % 3 == 0 else []
            rows.append(
                self._row(
                    Resource,
                    name=f"Resource {number}",
                    type=kind,
                    address=address,
                    ip_stack="dual" if kind == "dns" else None,
                    filters=[one.stored() for one in parse_filters(given)],
                    site_id=sites[number % len(sites)].id,
                )
            )
        return rows

    def _policies(self, everyone: str, groups: Sequence[Group], resources: Sequence[Resource]) -> list[Policy]:
        """One for each resource: some for Everyone, as many for each department, the rest for teams by turns."""
        shared = min(SHARED_RESOURCES, max(1, self._size.resources // 50))
        departments = [group.id for group in groups[1 : 1 + DEPARTMENTS]]
        teams = [group.id for group in groups[1 + DEPARTMENTS :]] or departments
        owners = [groups[0].id, *[everyone] * shared, *(one for one in departments for _ in range(shared))]
        conditions = parse_conditions([{"property": "remote_ip", "operator": "is_in_cidr", "values": ["127.0.0.0/8"]}])
        rows = []
        for number, resource in enumerate(resources):
            is_limited = number % 10 == 9
            rows.append(
                self._row(
                    Policy,
                    group_id=owners[number] if number < len(owners) else teams[(number - len(owners)) % len(teams)],
                    resource_id=resource.id,
                    conditions=[one.stored() for one in conditions] if is_limited else [],
                    flow_log_uploads_enabled=True,
                )
            )
        self._filled.policy_of_one, self._filled.policy_of_all = rows[0].id, rows[1].id
        self._filled.policy_of_department = rows[1 + shared].id
        return rows

    # --- programs -----------------------------------------------------------------------------------------------------

    async def _devices(self, people: Sequence[Actor], sites: Sequence[Site], listed: Sequence[list[str]]) -> None:
        start = secrets.randbelow(2**20)
        ipv4, ipv6 = ipv4_candidates(start), ipv6_candidates(start)
        site_tokens = []
        for site in sites:
            new = self._token("gateway")
            site_tokens.append(new.text)
            row = GatewayToken(
                account_id=self._unit.account_id, id=new.id, site_id=site.id, secret_salt=new.salt, secret_hash=new.hash
            )
            await self._insert([row])
        devices: list[Base] = []
        for number in range(self._size.gateways):
            spec = _spec(site_tokens[number % len(sites)], f"gateway-{number}")
            self._filled.gateways.append(spec)
            devices.append(self._device("gateway", spec, next(ipv4), next(ipv6), site_id=sites[number % len(sites)].id))
        client_tokens: list[Base] = []
        for number, person in enumerate(people):
            new = self._token("client")
            expires_at = self._unit.at + TOKEN_LIFETIME
            client_tokens.append(
                ClientToken(
                    account_id=self._unit.account_id,
                    id=new.id,
                    actor_id=person.id,
                    secret_salt=new.salt,
                    secret_hash=new.hash,
                    expires_at=expires_at,
                )
            )
            spec = _spec(new.text, f"client-{number}", listed[number])
            self._filled.clients.append(spec)
            devices.append(self._device("client", spec, next(ipv4), next(ipv6), actor_id=person.id))
        await self._insert(client_tokens)
        await self._insert(devices)

    def _device(self, kind: str, spec: AgentSpec, ipv4: str, ipv6: str, **owner: str) -> Device:
        device_id = new_id()
        return Device(
            account_id=self._unit.account_id,
            id=device_id,
            type=kind,
            firezone_id=spec.external_id,
            name=spec.external_id,
            ipv4=ipv4,
            ipv6=ipv6,
            psk_base=seal(self._unit.keyring, secrets.token_bytes(32), Device, "psk_base", device_id),
            **owner,
        )

    def _token(self, kind: tokens.TokenKind) -> tokens.NewToken:
        return tokens.create(kind, self._unit.account_id, TokenId(new_id()), secrets.token_bytes)

    # --- into the database --------------------------------------------------------------------------------------------

    async def _insert(self, rows: Sequence[Base]) -> None:
        session = self._unit.session
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            session.add_all(some)
            await session.flush()
            session.add_all([self._log(row) for row in some])
            await session.flush()
            session.expunge_all()

    def _log(self, row: Base) -> ChangeLog:
        self._logged += 1
        return ChangeLog(
            account_id=self._unit.account_id,
            log_id=log_ids.change_id(log_ids.microseconds(self._unit.at) + AFTER_THE_SERVICES, self._logged),
            timestamp=self._unit.at,
            operation="insert",
            object=row.__tablename__,
            before=None,
            after=as_json(row),
            subject=None,
            seq=self._unit.sequencer.next(self._unit.at),
        )


def _spec(token: str, name: str, resource_ids: Sequence[str] = ()) -> AgentSpec:
    key = base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()
    return AgentSpec(token, name, key, tuple(resource_ids))
