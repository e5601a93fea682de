"""The local socket between commands and a running client."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wardgate.errors import WardgateError
from wardgate.io.control_socket import ControlSocket, ControlSocketError, ask


async def test_request_is_answered(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        answer = await asyncio.to_thread(ask, path, {"command": "echo", "x": 1})

    assert answer == {"command": "echo", "x": 1}


async def test_socket_is_for_its_owner_and_group_alone(tmp_path: Path) -> None:
    async with served(tmp_path / "run" / "s") as path:
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


async def test_refusal_is_an_error_with_its_words(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        with pytest.raises(ControlSocketError, match="not today"):
            await asyncio.to_thread(ask, path, {"command": "refuse"})


@pytest.mark.parametrize("line", [b"x\n", b"[]\n", b"\xff\xff\n", b"5\n"])
async def test_bad_request_gets_an_error_and_the_next_is_served(tmp_path: Path, line: bytes) -> None:
    async with served(tmp_path / "s") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(line)
        answer = await reader.readline()
        writer.close()
        await asyncio.to_thread(ask, path, {"command": "echo"})

    assert b'"error"' in answer


async def test_endless_request_is_cut_off(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"x" * 100_000)

        assert await reader.read() == b""
        writer.close()


async def test_second_client_is_told_of_the_first(tmp_path: Path) -> None:
    async with served(tmp_path / "s") as path:
        with pytest.raises(ControlSocketError, match="running already"):
            await ControlSocket(path, dict).start()
        assert await asyncio.to_thread(ask, path, {"command": "echo"})


async def test_socket_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with served(path):
        assert await asyncio.to_thread(ask, path, {"command": "echo"})


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ControlSocketError, match="no client is running"):
        ask(tmp_path / "none", {})


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if request.get("command") == "refuse":
        raise WardgateError("not today")
    return request


@asynccontextmanager
async def served(path: Path) -> AsyncIterator[Path]:
    control = ControlSocket(path, answer)
    await control.start()
    try:
        yield path
    finally:
        control.close()
