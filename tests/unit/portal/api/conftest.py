"""A portal with one account on a database of its own, asked through its ASGI door."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.unit.portal.helpers import ManualClock
from wardgate.ids import AccountId, DeviceId, GatewayId, SiteId
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext
from wardgate.portal.db.engine import Database
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.portal.domain.subjects import Location, system
from wardgate.portal.services.accounts import create_account
from wardgate.portal.services.actors import create_actor
from wardgate.portal.services.tokens import create_api_token


@dataclass
class Online:
    """Who is connected, as the test says."""

    devices: set[str] = field(default_factory=set)
    gateways: dict[str, list[OnlineGateway]] = field(default_factory=dict)

    def is_online(self, account_id: AccountId, device_id: DeviceId) -> bool:
        return device_id in self.devices

    def gateways_of(self, account_id: AccountId, site_id: SiteId) -> Sequence[OnlineGateway]:
        return self.gateways.get(site_id, [])

    def connect_gateway(self, site_id: str, gateway_id: str) -> None:
        self.devices.add(gateway_id)
        self.gateways.setdefault(site_id, []).append(OnlineGateway(GatewayId(gateway_id), "1.6.0", Location()))


@dataclass
class Portal:
    """An application, and ways to ask it."""

    app: FastAPI
    db: Database
    online: Online
    token: str
    other_token: str

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://portal", headers=headers)

    async def ask(self, method: str, path: str, body: Any = None, *, status: int, token: str | None = None) -> Any:
        """The answer's JSON, if it has the status that the test expects."""
        async with self.client(token) as client:
            response = await client.request(method, path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def make(self, noun: str, **fields: Any) -> Any:
        """Creates one and gives its data."""
        plural = {"policy": "policies"}.get(noun, noun + "s")
        return (await self.ask("POST", f"/{plural}", {noun: fields}, status=201))["data"]


async def account_with_token(db: Database, slug: str) -> str:
    account = await create_account(db, {"name": slug.title(), "slug": slug})
    async with db.writing(system(AccountId(account.id))) as unit:
        actor = await create_actor(unit, {"name": "robot", "type": "api_client"}, allowed_types=("api_client",))
        return (await create_api_token(unit, actor.id, {})).text


@pytest.fixture
async def portal(db: Database, clock: ManualClock) -> Portal:
    online = Online()
    app = FastAPI()
    mount(app, ApiContext(db, clock, online))
    return Portal(app, db, online, await account_with_token(db, "corp"), await account_with_token(db, "other"))
