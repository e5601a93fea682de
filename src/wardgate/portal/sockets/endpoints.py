"""The doors: `/client`, `/gateway` and `/relay`, in both versions of the protocol."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from wardgate.errors import DatabaseUnavailable
from wardgate.ids import AccountId, SiteId, TokenId
from wardgate.portal.channels.base import Channel, log
from wardgate.portal.channels.client import ClientChannel
from wardgate.portal.channels.gateway import GatewayChannel
from wardgate.portal.channels.hub import Hub
from wardgate.portal.channels.relay import RelayChannel
from wardgate.portal.channels.views import DeviceFacts
from wardgate.portal.db import devices, logs, tokens
from wardgate.portal.db.devices import Connecting
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.purge import ROTATED_LIFETIME
from wardgate.portal.db.scope import UnitOfWork
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Account, Device, GatewayToken
from wardgate.portal.db.tokens import Owner
from wardgate.portal.domain import subjects
from wardgate.portal.domain.tokens import ParsedToken
from wardgate.portal.services import plans
from wardgate.portal.services.grants import grant_circumstances, redecide_all_of
from wardgate.portal.services.tokens import end_rotation
from wardgate.portal.sockets import refusal
from wardgate.portal.sockets.connect import (
    ConnectLimiter,
    DeviceParams,
    Origin,
    Pressure,
    check_origin,
    parse_token,
    read_device_params,
    read_origin,
    read_relay_params,
    read_token,
)
from wardgate.portal.sockets.direct import EXTENSION
from wardgate.portal.sockets.refusal import Refused
from wardgate.portal.sockets.serve import IDLE_S, RELAY_IDLE_S, SocketTransport
from wardgate.wire.portal import ApiVersion

_Open = Callable[[WebSocket, SocketTransport], Awaitable[Channel]]
_MAX_CLIENT_NAME: Final = 15
MAX_CONNECTING: Final = 300
"""Connects that are looked at side by side. More would wait longer than programs do, and all would be for nothing."""


@dataclass
class Sockets:
    """The websocket routes of one portal."""

    hub: Hub

    def __post_init__(self) -> None:
        settings = self.hub.settings
        self._connecting = 0
        self._pressure = Pressure()
        self._limiter = ConnectLimiter(self.hub.clock, settings.connect_refill_rate, settings.connect_capacity)

    def routes(self) -> list[WebSocketRoute]:
        """All doors."""
        return [
            WebSocketRoute("/client/websocket", self._client_v1),
            WebSocketRoute("/client/v2/websocket", self._client_v2),
            WebSocketRoute("/gateway/websocket", self._gateway_v1),
            WebSocketRoute("/gateway/v2/websocket", self._gateway_v2),
            WebSocketRoute("/relay/websocket", self._relay),
        ]

    async def _client_v1(self, websocket: WebSocket) -> None:
        await self._run(websocket, lambda ws, transport: self._open_client(ws, transport, ApiVersion.V1), IDLE_S)

    async def _client_v2(self, websocket: WebSocket) -> None:
        await self._run(websocket, lambda ws, transport: self._open_client(ws, transport, ApiVersion.V2), IDLE_S)

    async def _gateway_v1(self, websocket: WebSocket) -> None:
        await self._run(websocket, lambda ws, transport: self._open_gateway(ws, transport, ApiVersion.V1), IDLE_S)

    async def _gateway_v2(self, websocket: WebSocket) -> None:
        await self._run(websocket, lambda ws, transport: self._open_gateway(ws, transport, ApiVersion.V2), IDLE_S)

    async def _relay(self, websocket: WebSocket) -> None:
        await self._run(websocket, self._open_relay, RELAY_IDLE_S)

    async def _run(self, websocket: WebSocket, open_channel: _Open, idle_s: float) -> None:
        transport = SocketTransport(self.hub, websocket.scope["extensions"][EXTENSION])
        self._connecting += 1
        try:
            if self.hub.is_draining:
                raise refusal.draining()
            if self._connecting > MAX_CONNECTING:
                raise refusal.busy(self._pressure.retry_after_s(self.hub.clock.now(), self.hub.random()))
            channel = await open_channel(websocket, transport)
        except Refused as error:
            await self._refuse(websocket, error)
            return
        except DatabaseUnavailable:
            await self._refuse(websocket, refusal.database_unavailable())
            return
        except Exception:
            self.hub.metrics.failures.labels("connect").inc()
            log.exception("a connect failed")
            await self._refuse(websocket, refusal.unhandled())
            return
        finally:
            self._connecting -= 1
        try:
            await websocket.accept()
        except BaseException:
            channel.leave()
            raise
        transport.open(channel, idle_s)

    async def _refuse(self, websocket: WebSocket, error: Refused) -> None:
        self.hub.metrics.refused.labels(error.code).inc()
        log.info("connect refused", path=websocket.url.path, status=error.status, code=error.code)
        await websocket.send_denial_response(error.response())

    def _admit(self, websocket: WebSocket) -> tuple[Origin, str]:
        check_origin(websocket)
        origin = read_origin(websocket, self.hub)
        text = read_token(websocket)
        self._limiter.check(origin.remote_ip, text)
        return origin, text

    # --- clients ------------------------------------------------------------------------------------------------------

    async def _open_client(self, websocket: WebSocket, transport: SocketTransport, version: ApiVersion) -> Channel:
        origin, text = self._admit(websocket)
        token = parse_token(text, "client")
        params = self._client_params(websocket, origin)
        found = await self._admit_client(token, origin, params, transport.is_gone)
        if isinstance(found, Account):
            if await plans.keeps_clients_out(self.hub.db, found):
                raise refusal.limits_exceeded()
            found = await self._admit_client(token, origin, params, transport.is_gone, has_room=True)
            assert not isinstance(found, Account)
        if isinstance(found, Refused):
            raise found
        owner, device, previous_key = found
        assert owner.client_token is not None
        return ClientChannel(
            self.hub,
            transport,
            version,
            subject=owner.subject("client", origin.remote_ip, origin.user_agent, origin.location),
            token_id=TokenId(owner.client_token.id),
            token_expires_at=owner.client_token.expires_at,
            device=_facts(self.hub.db.keyring, device, origin),
            previous_key=previous_key,
        )

    def _client_params(self, websocket: WebSocket, origin: Origin) -> DeviceParams | Refused:
        """The parameters, or what is wrong with them: a wrong token comes first."""
        try:
            return read_device_params(websocket.query_params, origin, needs_version=True, needs_id=True)
        except Refused as error:
            return error

    async def _admit_client(
        self,
        token: ParsedToken,
        origin: Origin,
        params: DeviceParams | Refused,
        is_gone: Callable[[], bool],
        *,
        has_room: bool = False,
    ) -> tuple[Owner, Device, str | None] | Refused | Account:
        """Finds the token's owner and the device, and keeps what it connects with, together with those of others.

        Args:
            has_room: Whether the account's limits were counted again.

        Returns:
            The owner, the device, and the key that it had before; the account, if its limits have to be counted first.
        """

        async def work(unit: UnitOfWork) -> tuple[Owner, Device, str | None] | Refused | Account:
            if is_gone():
                return refusal.unhandled()  # nobody waits for the answer any more
            owner = await tokens.client_token_owner(unit.session, token, unit.at)
            if owner is None or owner.actor is None:
                return refusal.invalid_token()
            if isinstance(params, Refused):
                return params
            account = owner.account
            if (account.users_limit_exceeded or account.service_accounts_limit_exceeded) and not has_room:
                return account
            unit.subject = owner.subject("client", origin.remote_ip, origin.user_agent, origin.location)
            assert params.external_id is not None
            device = await devices.find_client(unit, owner.actor.id, params.external_id)
            if device is None:
                device = await devices.create_device(
                    unit,
                    type="client",
                    actor_id=owner.actor.id,
                    firezone_id=params.external_id,
                    name=params.name or secrets.token_hex(_MAX_CLIENT_NAME // 2),
                )
            before = grant_circumstances(device)
            previous_key = await self._record(unit, device, origin, params, token.token_id)
            if before != grant_circumstances(device):
                await unit.session.flush()
                await redecide_all_of(unit, device, token.token_id)
            return owner, device, previous_key

        account_id = token.account_id
        assert account_id is not None
        external_id = None if isinstance(params, Refused) else params.external_id
        wants = (devices.read_connecting, (token.token_id, external_id))
        return await self.hub.writes.run(subjects.system(account_id), work, wants=wants)

    # --- gateways -----------------------------------------------------------------------------------------------------

    async def _open_gateway(self, websocket: WebSocket, transport: SocketTransport, version: ApiVersion) -> Channel:
        origin, text = self._admit(websocket)
        owner = await self._gateway_owner(parse_token(text, "gateway"))
        token = owner.gateway_token
        assert token is not None
        params = read_device_params(
            websocket.query_params, origin, needs_version=False, needs_id=token.device_id is None
        )
        subject = owner.subject("gateway", origin.remote_ip, origin.user_agent, origin.location)
        async with self.hub.db.writing(subject) as unit:
            stored = await unit.find(GatewayToken, token.id)
            if stored is None:
                raise refusal.invalid_token()
            device = await self._find_gateway(unit, owner, params)
            older = self.hub.presence.gateway(AccountId(owner.account.id), device.id)
            if older is not None and not older.gives_way_to(params.public_key):
                raise refusal.gateway_connected()
            previous_key = await self._record(unit, device, origin, params, token.id)
            await end_rotation(unit, stored)
        channel = GatewayChannel(
            self.hub,
            transport,
            version,
            subject=subject,
            token_id=TokenId(token.id),
            device=_facts(self.hub.db.keyring, device, origin),
            site_id=SiteId(device.site_id or ""),
            previous_key=previous_key,
        )
        if not self.hub.presence.add_gateway(channel):
            channel.leave()
            raise refusal.gateway_connected()
        return channel

    async def _gateway_owner(self, token: ParsedToken) -> Owner:
        async with self.hub.db.unscoped() as session:
            owner = await tokens.gateway_token_owner(session, token)
        if owner is None or owner.gateway_token is None:
            raise refusal.invalid_token()
        rotated_at = owner.gateway_token.rotated_at
        if rotated_at is not None and rotated_at + ROTATED_LIFETIME <= self.hub.clock.utc_now():
            raise refusal.invalid_token()
        return owner

    async def _find_gateway(self, unit: UnitOfWork, owner: Owner, params: DeviceParams) -> Device:
        assert owner.gateway_token is not None
        assert owner.site is not None
        if owner.gateway_token.device_id is not None:
            device = await unit.find(Device, owner.gateway_token.device_id)
            if device is None:
                raise refusal.invalid_token()
            return device
        assert params.external_id is not None
        found = await devices.find_gateway(unit, owner.site.id, params.external_id)
        if found is not None:
            return found
        return await devices.create_device(
            unit,
            type="gateway",
            site_id=owner.site.id,
            firezone_id=params.external_id,
            name=params.name or devices.short_name(),
        )

    async def _record(
        self, unit: UnitOfWork, device: Device, origin: Origin, params: DeviceParams, token_id: str
    ) -> str | None:
        previous_key = device.public_key
        await devices.record_session(
            unit,
            device,
            Connecting(
                public_key=params.public_key,
                user_agent=origin.user_agent,
                version=origin.version,
                remote_ip=origin.remote_ip,
                location=origin.location,
                name=params.name,
                firezone_id=params.external_id,
                hardware_ids=params.hardware_ids,
                token_id=token_id,
                at=unit.at,
            ),
        )
        logs.write_session(unit, device, token_id)
        return previous_key

    # --- relays -------------------------------------------------------------------------------------------------------

    async def _open_relay(self, websocket: WebSocket, transport: SocketTransport) -> Channel:
        origin, text = self._admit(websocket)
        token = parse_token(text, "relay")
        async with self.hub.db.unscoped() as session:
            if not await tokens.is_relay_token(session, token):
                raise refusal.invalid_token()
        params = read_relay_params(websocket.query_params)
        return RelayChannel(
            self.hub,
            transport,
            token_id=token.token_id,
            ipv4=params.ipv4,
            ipv6=params.ipv6,
            port=params.port,
            location=origin.location,
        )


def _facts(keyring: Keyring, device: Device, origin: Origin) -> DeviceFacts:
    return DeviceFacts(
        id=device.id,
        name=device.name,
        public_key=device.public_key or "",
        psk_base=unseal(keyring, device, "psk_base"),
        ipv4=device.ipv4,
        ipv6=device.ipv6,
        user_agent=origin.user_agent,
        version=origin.version,
        remote_ip=origin.remote_ip,
        location=origin.location,
        device_serial=device.device_serial,
        device_uuid=device.device_uuid,
        identifier_for_vendor=device.identifier_for_vendor,
        firebase_installation_id=device.firebase_installation_id,
    )
