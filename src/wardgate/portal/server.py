"""The server around the application: says where it listens, and what keeps it from that."""

import asyncio
import resource
from types import FrameType
from typing import Any

import uvicorn

from wardgate.errors import SettingError
from wardgate.heap import freeze_heap
from wardgate.io.service_manager import ServiceManager
from wardgate.portal.app import create_app, open_database, uvicorn_options
from wardgate.portal.channels.hub import Hub
from wardgate.portal.clock import SystemClock
from wardgate.portal.config import Settings
from wardgate.portal.drain import drain


def run(settings: Settings) -> None:
    """Serves until a signal comes.

    Raises:
        SettingError: The database or the address cannot be used.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each device
    asyncio.run(_prepare(settings))
    app = create_app(settings)
    server = _Server(uvicorn.Config(app, **uvicorn_options(settings)), app.state.hub)
    freeze_heap()
    server.run_or_exit(settings)


async def _prepare(settings: Settings) -> None:
    """Finds what is wrong with the database before anything listens."""
    db = open_database(settings, SystemClock())
    try:
        await db.prepare()
    finally:
        await db.close()


class _Server(uvicorn.Server):
    """A uvicorn server that says where it listens, also to the service manager."""

    def __init__(self, config: uvicorn.Config, hub: Hub) -> None:
        super().__init__(config)
        self._hub = hub
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._service = ServiceManager()
        self._watchdog: asyncio.Task[None] | None = None

    def run_or_exit(self, settings: Settings) -> None:
        """Serves until a signal comes.

        Raises:
            SettingError: The address cannot be listened on.
        """
        try:
            self.run()
        except SystemExit:
            if not self.started:
                raise SettingError(f"listen: {settings.listen} cannot be used, see the error above") from None
            raise
        if not self.started:
            raise SettingError("the portal could not start, see the error above")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal sends devices elsewhere before the end; a second one ends at once."""
        self._captured_signals.append(sig)
        if self._loop is None or self._hub.is_draining:
            self.should_exit = self.force_exit = True
        else:
            self._hub.is_draining = True
            self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._service.stopping()
        self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await drain(self._hub, self._hub.settings.drain_seconds)
        finally:
            self.should_exit = True

    async def shutdown(self, sockets: Any = None) -> None:
        """Ends in an orderly way; a signal that asked for it is answered, so the exit status is 0."""
        if not self._hub.is_draining:  # else it was said when the draining began
            self._service.stopping()
        if self._watchdog is not None:
            self._watchdog.cancel()
        await super().shutdown(sockets)
        self._captured_signals.clear()

    async def startup(self, sockets: Any = None) -> None:
        """Starts, and prints the address once connections are taken."""
        await super().startup(sockets)
        if self.started:
            self._loop = asyncio.get_running_loop()
            self._service.ready()
            self._watchdog = asyncio.create_task(self._service.watch(lambda beat: beat()))
            for server in self.servers:
                for socket in server.sockets:
                    host, port = socket.getsockname()[:2]
                    host = f"[{host}]" if ":" in host else host
                    print(f"wardgate portal: listening on http://{host}:{port}", flush=True)
            await self._offer_first_account()

    async def _offer_first_account(self) -> None:
        """While there is no account, whoever reads this may make the first one."""
        from wardgate.portal.web.pages.sign_up import first_account_path

        app: Any = self.config.app
        path = await first_account_path(app.state.web)
        if path is not None:
            settings = app.state.hub.settings
            port = self.servers[0].sockets[0].getsockname()[1]
            url = (settings.external_url or f"http://localhost:{port}").rstrip("/")
            url = url.replace("wss://", "https://", 1).replace("ws://", "http://", 1)
            print(f"wardgate portal: there is no account yet; make the first one at {url}{path}", flush=True)
