"""A throw-away PostgreSQL server from Debian's binaries, and databases in it that are copies of a migrated one."""

import asyncio
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import pytest

USER: Final = "wardgate"
START_S: Final = 30.0
TEMPLATE: Final = "migrated_template"
_PR_SET_PDEATHSIG: Final = 1
_ROOM: Final = 2**30
_PREFIX: Final = "wardgate-postgresql-"
_OPTIONS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
}
_T = TypeVar("_T")


def binaries() -> Path | None:
    """Where the newest PostgreSQL of this machine has its programs, if there is one."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


class Server:
    """One cluster; `start` and `stop` may be called again and again, the data stays until `remove`."""

    def __init__(self) -> None:
        """Makes an empty cluster.

        The directory is not below pytest's own, into which the user `postgres` may not look.
        """
        programs = binaries()
        assert programs is not None
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._count = 0
        self._options = dict(_OPTIONS)
        _remove_left_behind()
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_fast_directory()))
        self.port = _free_port()
        # As root it has to become another user; else it runs as whoever runs the tests.
        self._as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self._as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        try:
            self._initialize()
        except BaseException:
            self.remove()
            raise

    def _initialize(self) -> None:
        words = ["initdb", "-D", "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        done = subprocess.run(
            [self._programs / words[0], *words[1:]],
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=60,
            check=False,
            **self._as_user,
        )
        assert done.returncode == 0, done.stderr.decode()

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, is_awaited: bool = True, **options: str) -> None:
        """Runs the server, and waits until it takes connections; that cannot be awaited inside an event loop.

        Args:
            options: Settings that differ from `_OPTIONS`, from now on.
        """
        self._options |= options
        words: list[str | Path] = [self._programs / "postgres", "-D", "data", "-k", self.directory, "-h", "127.0.0.1"]
        words += ["-p", str(self.port)]
        for name, value in self._options.items():
            words += ["-c", f"{name}={value}"]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
                **self._as_user,
            )
        if is_awaited:
            self.run(self._wait_started)

    def pids(self) -> list[int]:
        """The server's processes: the first, and those that it started for connections and for itself."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    async def _wait_started(self) -> None:
        async with asyncio.timeout(START_S):
            while True:
                assert self._process is not None
                assert self._process.poll() is None, (self.directory / "log").read_text()
                try:
                    connection = await self.connect()
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    return

    def stop(self, signal_number: int = signal.SIGQUIT) -> None:
        """Ends the server: SIGQUIT at once and without any goodbye, SIGINT in an orderly way."""
        if self._process is not None:
            for pid in self.pids():
                os.kill(pid, signal.SIGCONT)
            self._process.send_signal(signal_number)
            self._process.wait(timeout=60)
            self._process = None

    def remove(self) -> None:
        """Ends the server and deletes its data."""
        try:
            self.stop()
        finally:
            self._loop.close()
            shutil.rmtree(self.directory)

    async def connect(self, database: str = "postgres") -> Any:
        """A connection over the Unix socket."""
        return await asyncpg.connect(host=str(self.directory), port=self.port, user=USER, database=database)

    def url(self, database: str) -> str:
        """Where a portal finds a database of this server: over TCP, as most do."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def run(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Does something while no event loop runs."""

        async def done() -> _T:
            return await work()

        return self._loop.run_until_complete(done())

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Runs SQL."""

        self.run(lambda: self.execute_now(statement, database))

    async def execute_now(self, statement: str, database: str = "postgres") -> None:
        """Runs SQL inside an event loop."""
        connection = await self.connect(database)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def create_database(self, template: str = TEMPLATE) -> str:
        """A new database, as a copy of another one; its name."""
        self._count += 1
        name = f"test_{self._count}"
        # Copying files costs a third of writing them to the log.
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def drop_database(self, name: str) -> None:
        """Removes a database, also if somebody is still connected."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")


def server_or_skip() -> Server:
    """A server; without PostgreSQL, or without a way to run it, the test is skipped."""
    if binaries() is None:
        pytest.skip("there is no PostgreSQL in /usr/lib/postgresql: `scripts/setup test` installs it")
    return Server()


def _remove_left_behind() -> None:
    """Deletes the data of tests that were killed; their servers ended with them."""
    for directory in Path(_fast_directory() or tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(directory, ignore_errors=True)


def _fast_directory() -> str | None:
    """Memory, if there is enough: a new database is a thousand files, which take ten times longer on a disk."""
    memory = "/dev/shm"
    has_room = os.path.isdir(memory) and shutil.disk_usage(memory).free > _ROOM
    return memory if has_room else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _end_with_parent() -> None:
    """A server must not outlive tests that were killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGQUIT), 0, 0, 0)
