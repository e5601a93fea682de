"""Wires a gateway's state to its tunnel, its host and its portal link, and runs it."""

import asyncio
import base64
import contextlib
import functools
import os
import signal
from ipaddress import ip_address
from typing import Any, Final

import structlog

from wardgate._fastpath import Engine, StaticKey
from wardgate.errors import InterfaceLost, WardgateError
from wardgate.gateway.config import GatewaySettings
from wardgate.gateway.state import GatewayState
from wardgate.heap import freeze_heap
from wardgate.ids import RelayId
from wardgate.io import clock, log_sink, metrics
from wardgate.io.dns_server import DnsServer
from wardgate.io.forwarding import HostForwarding
from wardgate.io.health import HealthServer
from wardgate.io.host import host_user_agent
from wardgate.io.network_monitor import NetworkMonitor
from wardgate.io.privileges import network_problem
from wardgate.io.relay_ways import RelayWays
from wardgate.io.resolver import NameResolver
from wardgate.io.runner import Runner
from wardgate.io.signals import end_on_signals
from wardgate.io.sysctls import Sysctls
from wardgate.io.tun import TunInterface
from wardgate.io.tunnel import Tunnel
from wardgate.io.websocket import PortalLink, open_plain_socket, resolve_with_system
from wardgate.proto.portal_link import RetryPolicy
from wardgate.tunnel.connections_events import RelaySilent
from wardgate.tunnel.events import ConfigureTun, GatewayEvent, Resolve, SendPortal, SessionEnded
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import ApiVersion, Json, ToGateway, decode_to_gateway

RESOLV_CONF_INTERVAL_S: Final = 60.0

log = structlog.get_logger("gateway")


def run(settings: GatewaySettings, *, check: bool = True) -> str | None:
    """Runs a gateway until a signal ends it.

    Args:
        settings: Its settings.
        check: Whether to look first whether this process may do what it must.

    Returns:
        Why it had to end, or `None` if it was asked to.
    """
    problem = network_problem() if check else None
    if problem is not None:
        return problem
    freeze_heap()
    try:
        return asyncio.run(_serve(settings))
    except (WardgateError, OSError) as error:
        return str(error)


async def _nothing_to_do() -> None:
    """Only a client keeps copies of the host's routes."""


async def _serve(settings: GatewaySettings) -> str | None:
    program = GatewayProgram(settings)
    end_on_signals(program.stop)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, program.reset, "asked by SIGHUP")
    return await program.run()


class GatewayProgram:
    """One gateway; `run` it once.

    Raises:
        InterfaceLost: The tunnel cannot be opened.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._version = ApiVersion(settings.portal_version)
        self._engine = Engine()
        static = StaticKey.from_bytes(os.urandom(32))
        self._public_key = base64.b64encode(static.public_key).decode()
        self._state = GatewayState(self._engine, static, clock.epoch(), os.urandom)
        self._tunnel = Tunnel(self._engine, settings.interface, offload=settings.offload, must_mark=False)
        self._interface = TunInterface(settings.interface)
        self._forwarding = HostForwarding(settings.interface, Sysctls(settings.sysctl_record))
        self._resolver = NameResolver()
        self._dns_server = DnsServer()
        self._configured: ConfigureTun | None = None
        self._configuring = asyncio.Lock()
        self._runner: Runner[ToGateway, GatewayEvent] = Runner(
            self._state,
            self._engine,
            self._tunnel,
            self._link(),
            decode=self._decode,
            on_event=self._on_event,
            on_reopened=self._configure_again,
        )
        self._relay_ways = RelayWays(
            self._on_relay_way,
            open_socket=open_plain_socket,
            is_tunnel=self._tunnel.has_port,
            proxies=settings.proxies,
            resolve=resolve_with_system,
        )
        self._monitor = NetworkMonitor(settings.interface, _nothing_to_do, self.reset)
        self._health = HealthServer(self._problem, self._metrics)

    def _link(self) -> PortalLink:
        return PortalLink(
            url=lambda: self._settings.portal_url(self._public_key),
            token=self._settings.token,
            topic="gateway",
            user_agent=host_user_agent("gateway"),
            policy=RetryPolicy(budget_s=self._settings.max_partition_s),
            proxies=self._settings.proxies,
        )

    def _decode(self, event: str, payload: Json) -> ToGateway:
        return decode_to_gateway(event, payload, self._version)

    def stop(self) -> None:
        """Makes `run` return, once everybody was told."""
        self._runner.end(None)

    def reset(self, reason: str) -> None:
        """The host's network changed: new sockets, new paths, a new portal connection."""
        log.info("looking for new paths", reason=reason)
        self._runner.service.reloading()
        self._runner.post(self._reset_state)

    def _on_relay_way(self, relay_id: RelayId, alias: SocketAddr, kind: str | None) -> None:
        self._runner.post(functools.partial(self._state.handle_relay_way, relay_id, alias, kind))

    def _reset_state(self, now: float) -> None:
        self._relay_ways.reset()
        try:
            self._tunnel.rebind()
        except InterfaceLost as error:
            log.warning("sockets not replaced", error=str(error))
        self._state.reset(now)
        self._runner.link.reset()
        self._runner.service.reloaded()

    async def run(self) -> str | None:
        """Serves; returns why it had to end, or `None`.

        Raises:
            FirewallError: The host's firewall refused.
            ForwardingError: The host does not forward.
            ListenError: The health checks' address is taken.
        """
        helpers: list[asyncio.Task[None]] = []
        try:
            if self._settings.masquerade:
                await asyncio.to_thread(self._forwarding.install)
            if self._settings.health_address is not None:
                await self._health.start(*self._settings.health_address)
            helpers += [asyncio.create_task(self._reload_nameservers()), asyncio.create_task(self._monitor.run())]
            log.info("starting", interface=self._settings.interface, api_url=self._settings.api_url)
            return await self._runner.run()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._relay_ways.close()
            self._tunnel.close()
            self._health.close()
            self._dns_server.close()
            if self._settings.masquerade:
                await asyncio.to_thread(self._forwarding.remove)
            log.info("stopped")

    # --- what the state asks for ----------------------------------------------------------------------------------

    def _on_event(self, event: GatewayEvent) -> None:
        match event:
            case SendPortal(message):
                name = message.event_names(self._version)[0]
                if not self._runner.link.send(name, message.payload()):
                    log.debug("portal is away, message dropped", message=name)
            case ConfigureTun():
                self._configured = event
                self._runner.spawn(self._configure(event))
            case Resolve(request_id, name):
                if not self._runner.spawn(self._resolve(request_id, name)):
                    self._answer(request_id, (), (), "too many names are being resolved")
            case RelaySilent(relay_id, servers):
                self._relay_ways.seek(relay_id, servers)
            case SessionEnded(reason):
                self._runner.end(f"the portal ended the session: {reason}")

    async def _configure(self, event: ConfigureTun) -> None:
        async with self._configuring:
            if event is not self._configured:
                return
            try:
                await asyncio.to_thread(self._interface.configure, str(event.ipv4), str(event.ipv6))
                await asyncio.to_thread(self._interface.set_routes, event.routes)
            except InterfaceLost as error:
                self._runner.end(str(error))
                return
            await self._dns_server.listen([str(event.ipv4), str(event.ipv6)])
            log.info("interface ready", ipv4=str(event.ipv4), ipv6=str(event.ipv6))
            self._runner.service.ready()

    def _configure_again(self) -> None:
        self._interface = TunInterface(self._settings.interface)
        if self._configured is not None:
            self._runner.spawn(self._configure(self._configured))

    async def _resolve(self, request_id: int, name: str) -> None:
        resolved = await self._resolver.resolve(name)
        self._answer(request_id, resolved.ipv4s, resolved.ipv6s, resolved.error)

    def _answer(self, request_id: int, ipv4s: tuple[str, ...], ipv6s: tuple[str, ...], error: str | None) -> None:
        v4, v6 = [ip_address(each) for each in ipv4s], [ip_address(each) for each in ipv6s]
        self._runner.post(functools.partial(self._state.handle_resolved, request_id, v4, v6, error))

    async def _reload_nameservers(self) -> None:
        while True:
            await asyncio.sleep(RESOLV_CONF_INTERVAL_S)
            with contextlib.suppress(OSError):
                self._resolver.reload()

    # --- figures --------------------------------------------------------------------------------------------------

    def _problem(self) -> str | None:
        return None if self._runner.link.is_up else "the portal is not joined"

    def _metrics(self) -> bytes:
        figures: dict[str, Any] = {
            "portal_up": int(self._runner.link.is_up),
            "link": self._runner.link.counters(),
            "loop": self._runner.loop.figures(),
            "runner": self._runner.counters,
            "engine": self._engine.counters(),
            "threads": self._tunnel.counters(),
            "relay_ways": self._relay_ways.counters,
            "state": self._state.snapshot(),
            "log": log_sink.counters(),
        }
        return metrics.render("gateway", figures)
