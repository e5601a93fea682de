"""Health checks over HTTP."""

import asyncio
import contextlib

import pytest

from wardgate.io.health import HealthServer


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


async def test_pages_say_what_they_should() -> None:
    ready = False
    server = HealthServer(lambda: None if ready else "it rains", lambda: b"figures 1\n")
    await server.start("127.0.0.1", 0)

    async def get(path: str, method: str = "GET") -> tuple[bytes, bytes]:
        answer = await ask(server.port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.split(b"\r\n")[0], body

    assert await get("/healthz") == (b"HTTP/1.1 200 OK", b"")
    assert (await get("/readyz"))[0] == b"HTTP/1.1 503 Service Unavailable"
    ready = True
    assert (await get("/readyz?verbose"))[0] == b"HTTP/1.1 200 OK"
    assert await get("/metrics") == (b"HTTP/1.1 200 OK", b"figures 1\n")
    assert await get("/metrics", "HEAD") == (b"HTTP/1.1 200 OK", b"")
    assert (await get("/else"))[0] == b"HTTP/1.1 404 Not Found"
    assert (await get("/healthz", "POST"))[0] == b"HTTP/1.1 405 Method Not Allowed"
    server.close()


@pytest.mark.parametrize("request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n", b"GET  HTTP\r\n\r\n"])
async def test_bad_requests_are_answered_with_an_error(request_: bytes) -> None:
    server = HealthServer(lambda: None, lambda: b"")
    await server.start("127.0.0.1", 0)

    assert (await ask(server.port, request_)).startswith(b"HTTP/1.1 40")
    server.close()


async def test_endless_requests_get_no_answer() -> None:
    server = HealthServer(lambda: None, lambda: b"")
    await server.start("127.0.0.1", 0)

    with contextlib.suppress(ConnectionResetError):
        assert await ask(server.port, b"GET /healthz HTTP/1.1\r\n" + b"x" * 100_000) == b""
    assert (await ask(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200")
    server.close()
