"""How long "why, what if, since when" take in a large account: `python -m bench.explain`, or `make bench-explain`.

An account of 5,000 actors in 500 groups (100,000 memberships), 10,000 resources, 20,000 policies of which a third has
conditions, 20 policy tests, changes in the last 30 days. Each question is asked of the whole application, from
the HTTP request to the JSON of its answer, with the token checked and without a socket. The first question after a
start, which reads the account, is shown apart from the bars.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from fastapi import FastAPI
from sqlalchemy import insert, select
from tests.postgres import Server
from tests.unit.portal.helpers import SECRET_KEY, ManualClock

from bench.bars import Bar, table, write
from wardgate.ids import AccountId
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext, ApiLimits
from wardgate.portal.db.engine import Database
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.snapshots import Snapshots
from wardgate.portal.db.tables import Actor, Group, Membership, Policy, Resource, Site, new_id
from wardgate.portal.domain.subjects import Subject, system
from wardgate.portal.presence import Presence
from wardgate.portal.services import accounts, actors, groups, policies, tokens
from wardgate.portal.services.policy_tests import create_policy_test

ACTORS: Final = 5_000
GROUPS: Final = 500
MEMBERS: Final = 200
RESOURCES: Final = 10_000
POLICIES: Final = 20_000
CHANGES: Final = 1_000
TESTS: Final = 20
LIMIT_MS: Final = 200.0
HISTORY: Final = timedelta(days=30)
_TIME: Final = {"property": "current_utc_datetime", "operator": "is_in_day_of_week_time_ranges"}
_WORKDAYS: Final = {**_TIME, "values": [f"{day}/08:00-18:00/Europe/Berlin" for day in "MTWRF"]}
_NIGHTS: Final = {**_TIME, "values": [f"{day}/00:00-07:00,18:00-24:00/Europe/Berlin" for day in "MTWRFSU"]}
_VERIFIED: Final = {"property": "client_verified", "operator": "is", "values": ["true"]}
_CONDITIONS: Final[tuple[list[dict[str, Any]], ...]] = ([], [], [], [], [_WORKDAYS], [_VERIFIED, _NIGHTS])


class Account:
    """The account, and the application that is asked about it."""

    def __init__(self, db: Database, clock: ManualClock) -> None:
        self.db = db
        self.clock = clock
        self.chance = random.Random(7)
        self.token = ""
        self.subject = system(AccountId(""))
        self.actor_ids: list[str] = []
        self.group_ids: list[str] = []
        self.resource_ids: list[str] = []
        self.policy_ids: list[str] = []
        self.app = FastAPI()
        context = ApiContext(db, clock, Presence(), limits=ApiLimits(1e9, 1e9))
        mount(self.app, context)

    async def fill(self) -> None:
        """Makes everything: the many rows at once, what has happened since through the services."""
        made = await accounts.create_account(self.db, {"slug": "large"})
        self.subject = system(AccountId(made.id))
        async with self.db.writing(self.subject) as unit:
            client = await actors.create_actor(unit, {"name": "bench", "type": "api_client"}, ("api_client",))
            self.token = (await tokens.create_api_token(unit, client.id, {})).text
        await self._rows(made.id, self.clock.utc_now())
        self.clock.advance(3600)
        await self._tests()
        for _ in range(CHANGES):
            self.clock.advance(HISTORY.total_seconds() / CHANGES)
            await self._change()

    async def _rows(self, account_id: str, at: datetime) -> None:
        chance = self.chance
        shared = {"account_id": account_id, "inserted_at": at, "updated_at": at}
        sites = [{**shared, "id": new_id(), "name": f"site {number}"} for number in range(20)]
        people = [
            {**shared, "id": new_id(), "type": "account_user", "name": f"person {n}", "email": f"p{n}@large.example"}
            for n in range(ACTORS)
        ]
        some = [{**shared, "id": new_id(), "name": f"group {number}"} for number in range(GROUPS)]
        things = [
            {
                **shared,
                "id": new_id(),
                "name": f"resource {number}" if number < RESOURCES - TESTS else f"payments {number}",
                "type": "dns",
                "address": f"r{number}.large.example",
                "ip_stack": "dual",
                "site_id": chance.choice(sites)["id"],
                "filters": [],
            }
            for number in range(RESOURCES)
        ]
        self.actor_ids, self.group_ids, self.resource_ids = (
            [str(one["id"]) for one in x] for x in (people, some, things)
        )
        memberships = [
            {"account_id": account_id, "id": new_id(), "actor_id": actor, "group_id": group, "inserted_at": at}
            for group in self.group_ids
            for actor in chance.sample(self.actor_ids, MEMBERS)
        ]
        rules = [
            {
                **shared,
                "id": new_id(),
                "group_id": group,
                "resource_id": resource,
                "conditions": chance.choice(_CONDITIONS),
            }
            for resource in self.resource_ids[:-TESTS]
            for group in chance.sample(self.group_ids, POLICIES // RESOURCES)
        ]
        self.policy_ids = [str(one["id"]) for one in rules]
        async with self.db.unscoped_write() as session:
            for kind, rows in (
                (Site, sites),
                (Actor, people),
                (Group, some),
                (Resource, things),
                (Membership, memberships),
                (Policy, rules),
            ):
                for start in range(0, len(rows), 2000):
                    await session.execute(insert(kind), rows[start : start + 2000])
        self.db.snapshots = Snapshots()  # rows were made beside the change log

    async def _tests(self) -> None:
        async with self.db.writing(self.subject) as unit:
            _, snapshot = await self.db.snapshots.current(unit)
            for number in range(TESTS):
                who = "everyone" if number % 4 == 0 else f"group:group {number}"
                resource = f"payments {RESOURCES - TESTS + number}" if number % 2 else "payments*"
                expectation = "never_reaches"
                if number % 5 == 4:
                    policy = snapshot.policies[self.policy_ids[number]]
                    who, resource, expectation = f"group:{policy.group_id}", policy.resource_id, "reaches"
                fields = {"name": f"test {number}", "who": who, "resource": resource, "expectation": expectation}
                await create_policy_test(unit, fields, snapshot)

    async def _change(self) -> None:
        kind = self.chance.choice(("join", "leave", "conditions", "switch"))
        async with self.db.writing(Subject(self.subject.account_id, "system", force_reason="bench")) as unit:
            if kind in ("join", "leave"):
                row = await self._membership(unit)
                actor_id = self.chance.choice(self.actor_ids) if kind == "join" or row is None else row.actor_id
                group_id = self.chance.choice(self.group_ids) if row is None or kind == "join" else row.group_id
                change = {"add": [actor_id]} if kind == "join" else {"remove": [actor_id]}
                await groups.change_members(unit, group_id, **change)
            else:
                policy = await unit.get(Policy, self.chance.choice(self.policy_ids))
                fields: dict[str, Any] = {"is_disabled": not policy.is_disabled}
                if kind == "conditions":
                    fields = {"conditions": self.chance.choice(_CONDITIONS)}
                await policies.update_policy(unit, policy.id, fields)

    async def _membership(self, unit: UnitOfWork) -> Membership | None:
        group_id = self.chance.choice(self.group_ids)
        query = unit.select(Membership).where(Membership.group_id == group_id).limit(1)
        return (await unit.session.scalars(query)).one_or_none()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """Asks the application."""
        transport = httpx.ASGITransport(self.app)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://portal", headers=headers) as client:
            yield client


Ask = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


def questions(account: Account) -> dict[str, Ask]:
    """What is asked, each time about other rows."""
    chance = account.chance

    def explain(**more: str) -> Ask:
        async def ask(client: httpx.AsyncClient) -> httpx.Response:
            who, what = chance.choice(account.actor_ids), chance.choice(account.resource_ids)
            return await client.get("/explain", params={"actor_id": who, "resource_id": what, **more})

        return ask

    async def narrower(client: httpx.AsyncClient) -> httpx.Response:
        body = {"policy": {"conditions": [_WORKDAYS, _VERIFIED]}}
        path = f"/policies/{chance.choice(account.policy_ids)}"
        return await client.post("/preview", json={"method": "PATCH", "path": path, "body": body})

    async def new(client: httpx.AsyncClient) -> httpx.Response:
        group, resource = chance.choice(account.group_ids), chance.choice(account.resource_ids)
        body = {"policy": {"group_id": group, "resource_id": resource}}
        return await client.post("/preview", json={"method": "POST", "path": "/policies", "body": body})

    async def join(client: httpx.AsyncClient) -> httpx.Response:
        path = f"/groups/{chance.choice(account.group_ids)}/memberships"
        body = {"memberships": {"add": [chance.choice(account.actor_ids)]}}
        return await client.post("/preview", json={"method": "PATCH", "path": path, "body": body})

    async def run(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/policy_tests/run", json={})

    async def change(client: httpx.AsyncClient) -> httpx.Response:
        account.clock.advance(1)
        body = {"policy": {"conditions": chance.choice(_CONDITIONS)}}
        path = f"/policies/{chance.choice(account.policy_ids)}"
        return await client.patch(path, json=body, headers={"X-Force-Reason": "bench"})

    async def reach(client: httpx.AsyncClient) -> httpx.Response:
        return await client.get("/reach", params={"group": chance.choice(account.group_ids)})

    month_ago = (account.clock.utc_now() - HISTORY + timedelta(hours=1)).isoformat()
    return {
        "explain": explain(),
        "preview of other conditions": narrower,
        "preview of a new policy": new,
        "preview of a new member": join,
        f"run {TESTS} policy tests": run,
        f"a policy change with {TESTS} tests on": change,
        "explain as of 30 days ago": explain(at=month_ago),
        "who is reached through a group": reach,
    }


async def measure(account: Account, times: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each question, and of those that come first after a start."""
    samples: dict[str, list[float]] = {}
    first: dict[str, float] = {}
    account.db.snapshots = Snapshots()
    async with account.client() as client:
        for name, ask in questions(account).items():
            taken = [await timed(ask, client) for _ in range(times + 1)]
            first[name] = taken[0]
            samples[name] = taken[1:]
    return samples, first


async def timed(ask: Ask, client: httpx.AsyncClient) -> float:
    """Milliseconds until the whole answer is there."""
    start = time.perf_counter()
    answer = await ask(client)
    taken = (time.perf_counter() - start) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"bench.explain: {answer.request.url} answered {answer.status_code}: {answer.text[:500]}")
    return taken


async def run(url: str, times: int) -> tuple[dict[str, list[float]], dict[str, float], int]:
    """Fills a database and asks."""
    clock = ManualClock()
    db = Database(url, clock, SECRET_KEY)
    try:
        await db.migrate()
        account = Account(db, clock)
        await account.fill()
        async with db.scoped(account.subject) as scope:
            memberships = len((await scope.session.scalars(select(Membership.id))).all())
        return *await measure(account, times), memberships
    finally:
        await db.close()


@contextmanager
def databases(*, with_postgresql: bool) -> Iterator[dict[str, str]]:
    """The databases by name; a PostgreSQL server is started and removed."""
    with tempfile.TemporaryDirectory(prefix="wardgate-bench-") as folder:
        urls = {"sqlite": f"sqlite:///{Path(folder) / 'portal.db'}"}
        if not with_postgresql:
            yield urls
            return
        server = Server()
        try:
            server.start()
            server.execute("CREATE DATABASE bench")
            yield urls | {"postgresql": server.url("bench")}
        finally:
            server.remove()


def at(samples: list[float], share: float) -> float:
    """The sample that this share of them is not above."""
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def main() -> int:
    """Measures and says whether all bars hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="how often each question is asked")
    parser.add_argument("--postgresql", action="store_true", help="on a PostgreSQL server of its own as well")
    options = parser.parse_args()
    bars: list[Bar] = []
    rows: list[list[str]] = []
    kept: dict[str, Any] = {}
    with databases(with_postgresql=options.postgresql) as urls:
        for name, url in urls.items():
            samples, first, memberships = asyncio.run(run(url, options.times))
            kept[name] = {"first": first, "samples": samples, "memberships": memberships}
            for question, taken in samples.items():
                p50, p99 = at(taken, 0.5), at(taken, 0.99)
                rows.append([f"{question} ({name})", f"{p50:.1f}", f"{p99:.1f}", f"{first[question]:.0f}"])
                bars.append(Bar(f"{question}, p99 ({name})", p99, "ms", LIMIT_MS, is_ceiling=True))
    table(["question", "p50 ms", "p99 ms", "first ms"], rows)
    kept["load"] = os.getloadavg()
    write("explain.json", bars, __doc__ or "", kept)
    return 0 if all(bar.holds for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
