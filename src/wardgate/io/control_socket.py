"""The local socket by which commands talk to a running client: a line of JSON each way, then it closes."""

import asyncio
import contextlib
import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from wardgate.errors import WardgateError

MAX_REQUEST_BYTES: Final = 4096
MAX_CONNECTIONS: Final = 16
TIMEOUT_S: Final = 5.0
MODE: Final = 0o660

Json = dict[str, Any]


class ControlSocketError(WardgateError):
    """The running client cannot be reached, or there is one already."""


class ControlSocket:
    """The running client's end; whoever may open the socket may command it: its owner and group.

    Args:
        path: Where it is.
        answer: Answers one request; an error's text goes back as `{"error": ...}`.
    """

    def __init__(self, path: Path, answer: Callable[[Json], Json]) -> None:
        self._path = path
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Starts to listen; a socket that a killed run left is replaced.

        Raises:
            ControlSocketError: Another client listens there, or the place cannot be written.
        """
        refuse_while_served(self._path)
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if self._path.exists() and stat.S_ISSOCK(self._path.lstat().st_mode):
                self._path.unlink()
            before = os.umask(0o777 ^ MODE)
            try:
                self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_REQUEST_BYTES)
            finally:
                os.umask(before)
        except OSError as error:
            raise ControlSocketError(f"the control socket {self._path} cannot be made: {error.strerror}") from error

    def close(self) -> None:
        """Stops to listen and removes the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(TIMEOUT_S):
                    line = await reader.readuntil(b"\n")
                    writer.write(json.dumps(self._reply(line)).encode() + b"\n")
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks badly gets no answer
        finally:
            self._open -= 1
            writer.close()

    def _reply(self, line: bytes) -> Json:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"error": "the request is not JSON"}
        if not isinstance(request, dict):
            return {"error": "the request is no JSON object"}
        try:
            return self._answer(request)
        except WardgateError as error:
            return {"error": str(error)}


def ask(path: Path, request: Json) -> Json:
    """Asks the running client; blocks for 5 s at most.

    Raises:
        ControlSocketError: None is running, it may not be asked, or it refused.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlSocketError(f"no client is running here (nothing answers at {path})") from None
    except PermissionError:
        raise ControlSocketError(f"{path} may not be opened: run this as root or as a member of its group") from None
    except OSError as error:
        raise ControlSocketError(f"the running client does not answer: {error}") from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise ControlSocketError("the running client gave no answer") from None
    if not isinstance(answer, dict) or "error" in answer:
        problem = answer.get("error") if isinstance(answer, dict) else answer
        raise ControlSocketError(f"the running client refused: {problem}")
    return answer


def refuse_while_served(path: Path) -> None:
    """Sees that no client runs.

    Raises:
        ControlSocketError: One does.
    """
    if is_served(path):
        raise ControlSocketError(f"a client is running already (it answers at {path})")


def is_served(path: Path) -> bool:
    """Whether a client answers there."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(TIMEOUT_S)
            probe.connect(str(path))
    except OSError:
        return False
    return True
