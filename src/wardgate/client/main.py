"""Wires a client's state to its tunnel, its host and its portal link, and runs it as a service."""

import asyncio
import base64
import functools
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from wardgate import __version__
from wardgate._fastpath import Engine, StaticKey
from wardgate.client.config import ClientSettings, resolv_conf_backup, sysctl_record
from wardgate.client.state import ClientState
from wardgate.errors import InterfaceLost, WardgateError
from wardgate.heap import freeze_heap
from wardgate.ids import RelayId
from wardgate.io import clock, log_sink, metrics
from wardgate.io.control_socket import ControlSocket, ControlSocketError, is_served, refuse_while_served
from wardgate.io.dns_control import Disabled, DnsControl, DnsControlError
from wardgate.io.dns_methods import dns_control
from wardgate.io.doh import DohClient
from wardgate.io.health import HealthServer
from wardgate.io.host import host_user_agent
from wardgate.io.network_monitor import NetworkMonitor
from wardgate.io.privileges import network_problem
from wardgate.io.relay_ways import RelayWays
from wardgate.io.resolv_conf import EtcResolvConf
from wardgate.io.resolver import HostResolver, forward_query
from wardgate.io.reverse_path import ReversePathFilter
from wardgate.io.runner import Runner
from wardgate.io.signals import end_on_signals
from wardgate.io.sysctls import Sysctls
from wardgate.io.tun import TABLE_RESOURCES, ClientRouting, TunInterface, link_state
from wardgate.io.tunnel import Tunnel
from wardgate.io.udp import mark, open_marked_tcp
from wardgate.io.websocket import PortalLink
from wardgate.proto.portal_link import RetryPolicy
from wardgate.tunnel.connections_events import RelaySilent
from wardgate.tunnel.events import ClientEvent, ConfigureTun, ForwardQuery, SendPortal, SessionEnded
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.portal import ApiVersion, Json, ToClient, decode_to_client

NAMESERVER_INTERVAL_S: Final = 5.0
ResultT = TypeVar("ResultT")

log = structlog.get_logger("client")
_must_mark = functools.partial(mark, must=True)


def run(settings: ClientSettings) -> str | None:
    """Runs a client until a signal, a command or the portal ends it.

    Returns:
        Why it had to end, or `None` if it was asked to.
    """
    problem = network_problem()
    if problem is not None:
        return problem
    freeze_heap()
    try:
        return asyncio.run(_serve(settings))
    except (WardgateError, OSError) as error:
        return str(error)


def is_running(control: Path) -> bool:
    """Whether a client runs on this host already."""
    return is_served(control)


def clean_up(state_dir: Path, control: Path) -> None:
    """Takes back what a killed run left on the host: its names, its routes and rules.

    Raises:
        ControlSocketError: A client runs here, whose they are.
        OSError: This process may not change them.
    """
    refuse_while_served(control)
    EtcResolvConf(resolv_conf_backup(state_dir)).revert_at_once()
    ClientRouting().remove()
    _restore_sysctls(sysctl_record(state_dir))


async def _serve(settings: ClientSettings) -> str | None:
    program = ClientProgram(settings)
    end_on_signals(program.stop, program.stop_at_once)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, program.reset, "asked by SIGHUP")
    return await program.run()


def _restore_sysctls(record: Path) -> None:
    left = Sysctls(record)
    left.take_over()
    left.restore()


class ClientProgram:
    """One client; `run` it once.

    Raises:
        InterfaceLost: The tunnel cannot be opened.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._version = ApiVersion(settings.portal_version)
        self._dns: DnsControl = Disabled()
        self._nameservers: list[str] = []
        self._resolve = HostResolver(lambda: self._nameservers, prepare=_must_mark)
        self._doh = DohClient(self._resolve)
        self._engine = Engine()
        static = self._new_key()
        self._state = ClientState(
            self._engine, static, clock.epoch(), os.urandom, is_internet_active=settings.is_internet_active
        )
        self._tunnel = Tunnel(self._engine, settings.interface, offload=settings.offload, must_mark=True)
        self._interface = TunInterface(settings.interface)
        self._routing = ClientRouting()
        self._reverse_path = ReversePathFilter(Sysctls(sysctl_record(settings.state_dir)))
        self._rules: frozenset[int] = frozenset()
        self._configured: ConfigureTun | None = None
        self._configuring = asyncio.Lock()
        self._runner: Runner[ToClient, ClientEvent] = Runner(
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
            open_socket=open_marked_tcp,
            is_tunnel=self._tunnel.has_port,
            proxies=settings.proxies,
            resolve=self._resolve,
        )
        self._host = ThreadPoolExecutor(1, "host")
        self._control = ControlSocket(settings.socket, self._answer)
        self._monitor = NetworkMonitor(settings.interface, self._mirror_links, self.reset)
        self._health = HealthServer(self._problem, self._metrics)

    def _new_key(self) -> StaticKey:
        static = StaticKey.from_bytes(os.urandom(32))
        self._public_key = base64.b64encode(static.public_key).decode()
        return static

    def _link(self) -> PortalLink:
        return PortalLink(
            url=lambda: self._settings.portal_url(self._public_key),
            token=self._settings.token,
            topic="client",
            user_agent=host_user_agent("headless-client"),
            policy=RetryPolicy(budget_s=self._settings.max_partition_s),
            resolve=self._resolve,
            open_socket=open_marked_tcp,
            proxies=self._settings.proxies,
        )

    def _decode(self, event: str, payload: Json) -> ToClient:
        return decode_to_client(event, payload, self._version)

    # --- start and end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Makes `run` return, once everybody was told."""
        self._runner.end(None)

    def stop_at_once(self) -> None:
        """Takes back what would outlive the process and break the host's names."""
        self._dns.revert_at_once()

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
        if not self._state.reset(now):
            self._state.set_static(self._new_key(), now)
        self._runner.link.reset()
        self._runner.service.reloaded()

    async def run(self) -> str | None:
        """Serves; returns why it had to end, or `None`.

        Raises:
            WardgateError: The control socket, or the host's network, cannot be set up.
            ListenError: The figures' address is taken.
        """
        try:
            await self._control.start()
        except ControlSocketError:  # another client runs here: nothing on this host is ours to take back
            self._tunnel.close()
            raise
        helpers: list[asyncio.Task[None]] = []
        try:
            self._dns = dns_control(self._settings.dns_method, self._settings.resolv_conf_backup)
            await self._on_host(self._routing.remove)
            _restore_sysctls(sysctl_record(self._settings.state_dir))
            await self._read_nameservers()
            if self._settings.health_address is not None:
                await self._health.start(*self._settings.health_address)
            helpers += [asyncio.create_task(self._watch_nameservers()), asyncio.create_task(self._monitor.run())]
            log.info("starting", interface=self._settings.interface, api_url=self._settings.api_url)
            return await self._runner.run()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await self._revert()
            log.info("stopped")

    async def _revert(self) -> None:
        await self._relay_ways.close()
        await self._dns.revert()
        self._tunnel.close()
        await self._on_host(self._routing.remove)
        self._host.shutdown(wait=False)
        self._reverse_path.tighten()
        await self._doh.close()
        self._health.close()
        self._control.close()

    # --- what the state asks for ----------------------------------------------------------------------------------

    def _on_event(self, event: ClientEvent) -> None:
        match event:
            case SendPortal(message):
                name = message.event_names(self._version)[0]
                if not self._runner.link.send(name, message.payload()):
                    log.debug("portal is away, message dropped", message=name)
            case ConfigureTun():
                self._configured = event
                self._runner.spawn(self._configure(event))
            case ForwardQuery(query_id):
                if not self._runner.spawn(self._forward(event)):
                    self._runner.post(functools.partial(self._state.handle_query_response, query_id, None))
            case RelaySilent(relay_id, servers):
                self._relay_ways.seek(relay_id, servers)
            case SessionEnded(reason):
                self._runner.end(f"the portal ended the session: {reason}")

    async def _configure(self, event: ConfigureTun) -> None:
        """Addresses, then names, then routes: nothing is sent our way before it can be answered."""
        async with self._configuring:
            if event is not self._configured:
                return
            try:
                families = await self._on_host(self._interface.configure, str(event.ipv4), str(event.ipv6))
                await self._set_dns(event)
                if families != self._rules:
                    await self._on_host(self._routing.install, families)
                    self._interface.forget_routes()
                    self._rules = families
                if socket.AF_INET in families and any(each.prefixlen == 0 for each in event.routes):
                    self._reverse_path.loosen()
                else:
                    self._reverse_path.tighten()
                await self._on_host(self._interface.set_routes, event.routes, TABLE_RESOURCES)
            except InterfaceLost as error:
                self._runner.end(str(error))
                return
            await self._dns.flush()
            log.info("interface ready", ipv4=str(event.ipv4), ipv6=str(event.ipv6), routes=len(event.routes))
            self._runner.service.ready()
            if self._settings.exit_when_ready:
                self._runner.end(None)

    async def _set_dns(self, event: ConfigureTun) -> None:
        servers = [str(server) for server in event.dns_servers]
        try:
            await self._dns.set(self._settings.interface, servers, event.search_domain)
        except DnsControlError as error:
            self._runner.end(f"--dns-control {self._dns.name}: {error}")

    def _configure_again(self) -> None:
        self._interface = TunInterface(self._settings.interface)
        if self._configured is not None:
            self._runner.spawn(self._configure(self._configured))

    async def _forward(self, query: ForwardQuery) -> None:
        answer: bytes | None
        if isinstance(query.server, SocketAddr):
            transport: Any = "tcp" if query.transport == "tcp" else "udp"
            answer = await forward_query(query.server, query.payload, transport, prepare=_must_mark)
        else:
            answer = await self._doh.query(query.server, query.payload)
        self._runner.post(functools.partial(self._state.handle_query_response, query.query_id, answer))

    # --- what the host does ---------------------------------------------------------------------------------------

    async def _on_host(self, work: Callable[..., ResultT], *arguments: Any) -> ResultT:
        """Has netlink work done in turn: what is taken back comes after what was begun, even if nobody waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._host, work, *arguments)

    async def _mirror_links(self) -> None:
        if self._rules:
            await self._on_host(self._routing.mirror_links)
            self._reverse_path.keep()

    async def _watch_nameservers(self) -> None:
        while True:
            await asyncio.sleep(NAMESERVER_INTERVAL_S)
            await self._read_nameservers()
            if await self._dns.keep():
                self._runner.counters["dns_set_again"] += 1

    async def _read_nameservers(self) -> None:
        try:
            found = await self._dns.system_nameservers()
        except DnsControlError as error:
            log.debug("nameservers of the host not known", error=str(error))
            return
        if found != self._nameservers:
            self._nameservers = found
            servers = [ip_address(each) for each in found]
            self._runner.post(functools.partial(self._state.set_system_resolvers, servers))

    # --- commands and figures -------------------------------------------------------------------------------------

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        match request.get("command"):
            case "status":
                return self._status()
            case "down":
                self.stop()
                return {"ok": True}
            case "reset":
                self.reset("asked by command")
                return {"ok": True}
            case "internet" if isinstance(request.get("active"), bool):
                self._runner.post(functools.partial(self._state.set_internet_active, request["active"]))
                return {"ok": True}
        raise WardgateError("unknown command")

    def _status(self) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "api_url": self._settings.api_url,
            "interface": self._settings.interface,
            "link": link_state(self._settings.interface),
            "dns_control": self._dns.name,
            **self._state.snapshot(),
            "portal": "up" if self._runner.link.is_up else "down",
            "portal_connections": self._runner.counters["portal_connections"],
        }

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
        return metrics.render("client", figures)
