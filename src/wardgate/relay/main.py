"""`wardgate relay`: wires the relay's state to its sockets, its portal link if there is one, and its health checks."""

import asyncio
import contextlib
import math
import os
import resource
import signal
from collections import Counter
from pathlib import Path
from typing import Final, Protocol

import structlog
import typer
import uvloop

from wardgate._fastpath import RelayIo
from wardgate.errors import SettingError, WardgateError
from wardgate.heap import freeze_heap
from wardgate.io import clock, log_sink
from wardgate.io.health import HealthServer, ListenError
from wardgate.io.host import host_addresses, host_user_agent
from wardgate.io.interface_driver import interface_driver
from wardgate.io.relay_sockets import Addr, RelaySockets
from wardgate.io.relay_streams import RelayStreams, server_context
from wardgate.io.service_manager import Beat, ServiceManager
from wardgate.io.signals import end_on_signals
from wardgate.io.websocket import PortalLink
from wardgate.logs import configure_logs
from wardgate.options import LogDir
from wardgate.proto.portal_link import Fatal, LinkDown, LinkUp, RetryPolicy
from wardgate.proto.turn_events import (
    AddChannel,
    AddPermission,
    ClosePort,
    OpenPort,
    RemoveChannel,
    RemovePermission,
    TurnEvent,
)
from wardgate.relay import metrics, options
from wardgate.relay.config import RelaySettings, parse_passwords
from wardgate.relay.state import RelayState
from wardgate.settings import fail, forget_token, parse_duration, parse_listen_address, read_private, read_token
from wardgate.wire.addresses import SocketAddr, WholeTransmit
from wardgate.wire.stun import AddressFamily

PROGRAM: Final = "wardgate relay"
UPCALL_BATCH: Final = 256
MAX_PARTITION_S: Final = 86_400.0
DRAIN_STEP_S: Final = 0.05

log = structlog.get_logger("relay")
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Forwarder(Protocol):
    """What holds the sockets: the native `RelayIo`, or `RelaySockets`."""

    def start(self) -> None: ...
    def stop(self, timeout_s: float = ...) -> object: ...
    def answer_strangers(
        self,
        *,
        nonce_key: bytes,
        realm: str,
        refusals_per_s: float,
        refusals_burst: float,
        nonce_cookie: bytes = ...,
        algorithms: bytes = ...,
    ) -> None: ...
    def open_allocation(self, port: int, *, ipv4: bool, ipv6: bool) -> None: ...
    def close_allocation(self, port: int, *, ipv4: bool = ..., ipv6: bool = ...) -> bool: ...
    def add_channel(self, client: Addr, channel: int, port: int, peer: Addr) -> None: ...
    def remove_channel(self, client: Addr, channel: int) -> bool: ...
    def add_permission(self, client: Addr, port: int, host: str) -> None: ...
    def remove_permission(self, port: int, host: str) -> bool: ...
    def send(self, datagrams: list[tuple[int, Addr, bytes]]) -> int: ...
    def send_whole(self, datagrams: list[tuple[int, Addr, bytes]]) -> int: ...
    def poll_upcalls(self, limit: int = ...) -> list[tuple[int, Addr, bytes]]: ...
    def upcall_fd(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
    def is_offloaded(self) -> bool: ...
    def failure(self) -> str | None: ...


class Relay:
    """Drives one `RelayState` with one forwarder."""

    def __init__(self, state: RelayState, forwarder: Forwarder) -> None:
        self._state = state
        self._forwarder = forwarder
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = math.inf
        self._loop = asyncio.get_running_loop()
        self._failed: asyncio.Future[str] = self._loop.create_future()
        self.errors = 0

    def start(self) -> None:
        """Starts to serve."""
        self._forwarder.start()
        self._loop.add_reader(self._forwarder.upcall_fd(), self._turn)

    def stop(self) -> None:
        """Closes every port."""
        self._loop.remove_reader(self._forwarder.upcall_fd())
        if self._timer is not None:
            self._timer.cancel()
        self._forwarder.stop()

    def prove_alive(self, beat: Beat) -> None:
        """Does a turn, then tells the watchdog."""
        self._turn()
        beat()

    def handle_stream_opened(self, alias: SocketAddr, client: SocketAddr) -> None:
        """A client came by TCP or TLS."""
        self._state.handle_stream_opened(alias, client)
        self._turn()

    def handle_stream_closed(self, alias: SocketAddr) -> None:
        """It went."""
        self._state.handle_stream_closed(alias)
        self._turn()

    def has_allocation(self, client: SocketAddr) -> bool:
        """Whether it holds something."""
        return self._state.has_allocation(client)

    async def drain(self, limit_s: float) -> None:
        """Gives nothing new, and returns once nothing is held any more, or after `limit_s`."""
        self._state.drain()
        until = self._loop.time() + limit_s
        while self._state.allocations and self._loop.time() < until:  # noqa: ASYNC110  (they end by time as well)
            await asyncio.sleep(DRAIN_STEP_S)

    async def wait_failed(self) -> str:
        """Returns why the forwarder ended by itself, if it ever does."""
        return await self._failed

    def _turn(self) -> None:
        """One batch; what more there is makes the loop call again, after its other tasks."""
        now = clock.monotonic()
        state, drain = self._state, self._drain
        state.handle_timeout(now)
        drain(now)
        for port, source, payload in self._forwarder.poll_upcalls(UPCALL_BATCH):
            try:
                state.handle_upcall(port, SocketAddr(*source), payload, now)
                drain(now)
            except Exception:
                self.errors += 1
                log.exception("upcall lost", total=self.errors)
        failure = self._forwarder.failure()
        if failure is not None and not self._failed.done():
            self._failed.set_result(failure)
        self._schedule(now)

    def _schedule(self, now: float) -> None:
        deadline = self._state.poll_timeout()
        if deadline is None or deadline >= self._wakes_at:
            return  # waking too early is harmless, and cheaper than another timer for each request
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - now), self._wake)

    def _wake(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        self._turn()

    def _drain(self, now: float) -> None:
        while (event := self._state.poll_event()) is not None:
            self._apply(event, now)
        datagrams: list[tuple[int, Addr, bytes]] = []
        whole: list[tuple[int, Addr, bytes]] = []
        while (transmit := self._state.poll_transmit()) is not None:
            assert transmit.local is not None
            some = whole if isinstance(transmit, WholeTransmit) else datagrams
            some.append((transmit.local.port, transmit.remote, transmit.payload))
        if datagrams:
            self._forwarder.send(datagrams)
        if whole:
            self._forwarder.send_whole(whole)

    def _apply(self, event: TurnEvent, now: float) -> None:
        match event:
            case OpenPort(port, families):
                try:
                    self._forwarder.open_allocation(
                        port, ipv4=AddressFamily.IPV4 in families, ipv6=AddressFamily.IPV6 in families
                    )
                except OSError as error:
                    log.warning("port refused", port=port, error=str(error))
                    self._state.handle_port_refused(port)
                else:
                    self._state.handle_port_opened(port, now)
            case ClosePort(port, families):
                self._forwarder.close_allocation(
                    port, ipv4=AddressFamily.IPV4 in families, ipv6=AddressFamily.IPV6 in families
                )
            case AddPermission(client, port, host):
                self._forwarder.add_permission(client, port, host)
            case RemovePermission(_, port, host):
                self._forwarder.remove_permission(port, host)
            case AddChannel(client, channel, port, peer):
                self._forwarder.add_channel(client, channel, port, peer)
            case RemoveChannel(client, channel):
                self._forwarder.remove_channel(client, channel)


async def serve(settings: RelaySettings, own_hosts: tuple[str, ...]) -> str | None:
    """Runs a relay until a signal ends it.

    Args:
        settings: Its settings.
        own_hosts: Addresses of this host.

    Returns:
        Why it had to end, or `None` if it was asked to.

    Raises:
        ListenError: A port cannot be opened.
    """
    state = RelayState(
        settings.turn_config(own_hosts),
        clock.epoch(),
        os.urandom,
        settings.users(),
        is_alone=settings.is_alone,
    )
    forwarder = _open_forwarder(settings)
    rules = state.strangers
    forwarder.answer_strangers(
        nonce_key=rules.nonce_key,
        realm=rules.realm,
        refusals_per_s=rules.refusals_per_s,
        refusals_burst=rules.refusals_burst,
        nonce_cookie=rules.nonce_cookie,
        algorithms=rules.algorithms,
    )
    relay = Relay(state, forwarder)
    streamed: Counter[str] = Counter()
    streams = RelayStreams(relay, _places(settings), streamed)
    health = HealthServer(
        state.problem,
        lambda: metrics.render(
            state.snapshot(),
            forwarder.counters(),
            streamed,
            log_sink.counters(),
            offloaded=forwarder.is_offloaded(),
        ),
    )
    link = None if settings.is_alone else _link(settings, state)
    stopping = asyncio.Event()
    end_on_signals(stopping.set)
    service = ServiceManager()
    relay.start()
    try:
        await _listen(settings, streams)
        if settings.health_address is not None:
            await health.start(*settings.health_address)
        log.info("relaying", port=settings.listen_port, **({} if link is None else {"relay_id": state.relay_id}))
        if link is not None:
            link.start()
        service.status("relaying by itself" if link is None else "waiting for the portal")
        service.ready()
        watchdog = asyncio.create_task(service.watch(relay.prove_alive))
        ends = [_wait_stop(stopping), relay.wait_failed()]
        if link is not None:
            ends.append(_follow(link, state, service))
        try:
            reason = await _first_of(*(asyncio.create_task(end) for end in ends))
        finally:
            watchdog.cancel()
            service.stopping()
        if stopping.is_set():
            if link is not None:
                await link.close()  # so the portal sends its devices elsewhere
            await _drain(settings, relay, state)
        return reason
    finally:
        await streams.close()
        health.close()
        if link is not None:
            await link.close()
        relay.stop()


async def _drain(settings: RelaySettings, relay: Relay, state: RelayState) -> None:
    held = state.allocations
    if held and settings.drain_s > 0:
        log.info("ending; what is held is still served", allocations=held, at_most_s=settings.drain_s)
        await relay.drain(settings.drain_s)


def _link(settings: RelaySettings, state: RelayState) -> PortalLink:
    return PortalLink(
        url=settings.portal_url,
        token=settings.token,
        topic="relay",
        join_payload=state.join_payload(),
        user_agent=host_user_agent("relay"),
        policy=RetryPolicy(first_budget_s=MAX_PARTITION_S, budget_s=MAX_PARTITION_S),
    )


def _places(settings: RelaySettings) -> dict[int, SocketAddr]:
    """Where this host reaches the relay's own UDP port, by IP version."""
    loopbacks = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    binds = ((4, settings.public_ipv4, settings.bind_ipv4), (6, settings.public_ipv6, settings.bind_ipv6))
    return {
        version: SocketAddr(loopbacks.get(bind, bind), settings.listen_port)
        for version, public, bind in binds
        if public
    }


async def _listen(settings: RelaySettings, streams: RelayStreams) -> None:
    binds = ((settings.public_ipv4, settings.bind_ipv4), (settings.public_ipv6, settings.bind_ipv6))
    hosts = [bind for public, bind in binds if public]
    if settings.tcp_port is not None:
        await streams.listen(hosts, settings.tcp_port, "--tcp-port")
    if settings.tls_port is not None:
        certificate, key = settings.tls_certificate, settings.tls_key
        assert certificate is not None  # `check` looked
        assert key is not None
        try:
            context = server_context(certificate, key)
        except OSError as error:  # ssl.SSLError is one
            raise ListenError(f"--tls-cert {certificate} and --tls-key {key}: {error}") from error
        await streams.listen(hosts, settings.tls_port, "--tls-port", context)

        def renew() -> None:
            try:
                context.load_cert_chain(certificate, key)
            except OSError as error:
                log.warning("certificate not renewed", error=str(error))
            else:
                log.info("certificate read again")

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, renew)


async def _follow(link: PortalLink, state: RelayState, service: ServiceManager) -> str | None:
    """Keeps readiness up to date; returns why the link ended for good."""
    async for event in link:
        match event:
            case LinkUp():
                state.handle_portal_up()
                log.info("portal joined", relay_id=state.relay_id)
                service.status("relaying, joined the portal")
            case LinkDown(reason, retry_in_s):
                state.handle_portal_down(reason)
                service.status(f"relaying; the portal is away: {reason}")
                log.warning("portal away, relaying goes on", reason=reason, retry_in_s=round(retry_in_s, 1))
            case Fatal(_, reason):
                state.handle_portal_down(reason)
                return reason
            case _:
                log.debug("portal message", name=event.event)
    return "the portal link ended"


async def _wait_stop(stopping: asyncio.Event) -> str | None:
    await stopping.wait()
    return None


async def _first_of(*tasks: "asyncio.Task[str | None]") -> str | None:
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return done.pop().result()


def _raise_file_limit(ports: int) -> None:
    """Allows as many sockets as the system lets us have: one for each port and family."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most != resource.RLIM_INFINITY and most < 2 * ports:
        log.warning("few open files allowed, so fewer allocations than ports", open_files=most, ports=ports)


def _raise_memory_limit() -> None:
    """Lets the kernel hold the channels; before Linux 5.11 they count as locked memory."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _open_forwarder(settings: RelaySettings) -> Forwarder:
    bind4 = settings.bind_ipv4 if settings.public_ipv4 else None
    bind6 = settings.bind_ipv6 if settings.public_ipv6 else None
    try:
        return _open_sockets(settings, bind4, bind6)
    except OSError as error:
        places = " and ".join(place for place in (bind4, bind6) if place)
        raise ListenError(
            f"UDP port {settings.listen_port} (--listen-port) at {places}: {error}; another program may have it"
        ) from error


def _open_sockets(settings: RelaySettings, bind4: str | None, bind6: str | None) -> Forwarder:
    if not settings.native:
        _log_offload(settings, "it needs --native")
        return RelaySockets(listen_port=settings.listen_port, bind4=bind4, bind6=bind6)
    lossy = _lossy_offload(settings)
    forwarder = RelayIo(
        listen_port=settings.listen_port,
        bind4=bind4,
        bind6=bind6,
        public4=settings.public_ipv4,
        public6=settings.public_ipv6,
        gso=settings.segmentation,
        gro=settings.segmentation,
        threads=settings.threads or max(1, len(os.sched_getaffinity(0)) - 1),
        xdp=None if lossy else settings.xdp,
        xdp_mode=settings.xdp_mode,
    )
    _log_offload(settings, lossy or forwarder.offload_error())
    return forwarder


def _lossy_offload(settings: RelaySettings) -> str | None:
    """Why the kernel would attach the program and then lose what it sends."""
    if settings.xdp is not None and settings.xdp_mode == "driver" and interface_driver(settings.xdp) == "veth":
        return "a veth pair loses what is sent in driver mode unless its other end has a program too: use generic mode"
    return None


def _log_offload(settings: RelaySettings, error: str | None) -> None:
    if settings.xdp is None:
        return
    if error is None:
        log.info("the kernel forwards known channels", interface=settings.xdp, mode=settings.xdp_mode)
    else:
        log.warning("no XDP, all is forwarded in user space", interface=settings.xdp, reason=error)


@app.command()
def relay(
    public_ip4_addr: options.PublicIpv4 = None,
    public_ip6_addr: options.PublicIpv6 = None,
    bind_ip4_addr: options.BindIpv4 = "0.0.0.0",
    bind_ip6_addr: options.BindIpv6 = "::",
    listen_port: options.ListenPort = 3478,
    lowest_port: options.LowestPort = 49152,
    highest_port: options.HighestPort = 65535,
    tcp_port: options.TcpPort = None,
    tls_port: options.TlsPort = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    api_url: options.ApiUrl = "",
    token_file: options.TokenFile = None,
    name: options.Name = None,
    users_file: options.UsersFile = None,
    auth_secret_file: options.AuthSecretFile = None,
    realm: options.Realm = None,
    allow_peers: options.AllowPeers = [],  # noqa: B006  (Typer wants a list, and makes a new one of it)
    private_peers: options.PrivatePeers = None,
    max_per_user: options.MaxPerUser = 1024,
    max_per_source: options.MaxPerSource = 4096,
    drain_time: options.DrainTime = "5s",
    log_format: options.LogFormat = "human",
    log_level: options.LogLevel = "info",
    log_dir: LogDir = None,
    health_check_addr: options.HealthAddress = "0.0.0.0:8080",
    native: options.Native = True,
    segmentation: options.Segmentation = True,
    threads: options.Threads = None,
    xdp: options.Xdp = None,
    xdp_mode: options.XdpMode = "driver",
    config: options.Config = None,
) -> None:
    """Run a relay, STUN and TURN, until SIGTERM or SIGINT: joined to the portal, or by itself for users of its own.

    Status 1 means that it had to end and says why, 2 that a setting is wrong.
    """
    try:
        configure_logs(log_format, log_level, log_dir, "wardgate-relay")
        passwords = {}
        if users_file is not None:
            passwords = parse_passwords(read_private(users_file, "--users-file"), f"--users-file {users_file}")
        settings = RelaySettings(
            public_ipv4=public_ip4_addr,
            public_ipv6=public_ip6_addr,
            bind_ipv4=bind_ip4_addr,
            bind_ipv6=bind_ip6_addr,
            listen_port=listen_port,
            lowest_port=lowest_port,
            highest_port=highest_port,
            tcp_port=tcp_port,
            tls_port=tls_port,
            tls_certificate=tls_cert,
            tls_key=tls_key,
            api_url=api_url,
            token=read_token(os.environ, token_file) if api_url else "",
            name=name,
            passwords=passwords,
            auth_secret=None if auth_secret_file is None else _read_secret(auth_secret_file),
            realm=realm,
            allowed_peers=tuple(part for text in allow_peers for part in text.split()),
            private_peers=private_peers,
            max_per_user=max_per_user,
            max_per_source=max_per_source,
            drain_s=parse_duration(drain_time),
            health_address=parse_listen_address(health_check_addr),
            native=native,
            segmentation=segmentation,
            threads=threads,
            xdp=xdp,
            xdp_mode=xdp_mode,
        )
        settings.check()
        forget_token(os.environ)
    except SettingError as error:
        fail(PROGRAM, str(error), 2)
    _raise_file_limit(highest_port - lowest_port + 1)
    if xdp is not None:
        _raise_memory_limit()
    freeze_heap()
    try:
        reason = uvloop.run(serve(settings, host_addresses()))
    except (WardgateError, OSError) as error:
        fail(PROGRAM, f"cannot listen: {error}", 1)
    if reason is not None:
        fail(PROGRAM, reason, 1)


def _read_secret(path: Path) -> str:
    secret = read_private(path, "--auth-secret-file").strip()
    if not secret:
        raise SettingError(f"--auth-secret-file {path} is empty; it holds what the application's users are made with")
    return secret


if __name__ == "__main__":
    app()
