"""TURN over TCP: how a stream is taken apart, and how connections become clients of the relay."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardgate.io import relay_streams
from wardgate.io.health import ListenError
from wardgate.io.relay_streams import FrameError, FrameReader, RelayStreams, frame
from wardgate.wire import channel_data
from wardgate.wire.addresses import SocketAddr
from wardgate.wire.stun import Builder, MessageClass, Method

STUN = Builder(Method.BINDING, MessageClass.REQUEST, bytes(12)).software("a client").build()
FRAMES = st.one_of(
    st.just(STUN),
    st.builds(channel_data.encode, st.integers(0x4000, 0x7FFF), st.binary(max_size=40)),
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    directory = tmp_path_factory.mktemp("certificate")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=relay.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@given(st.lists(FRAMES, max_size=8), st.lists(st.integers(1, 60), max_size=20))
def test_messages_come_out_as_they_went_in_however_the_stream_is_cut(frames: list[bytes], cuts: list[int]) -> None:
    stream, reader = b"".join(map(frame, frames)), FrameReader()
    read: list[bytes] = []
    for size in [*cuts, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        read += reader.feed(piece)

    assert read == frames


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_one_error(received: bytes) -> None:
    with contextlib.suppress(FrameError):
        assert sum(map(len, FrameReader().feed(received))) <= len(received)


@pytest.mark.parametrize("first", [0x04, 0x3F, 0x80, 0xFF])
def test_other_first_bytes_are_an_error(first: int) -> None:
    reader = FrameReader()
    received = STUN + bytes([first, 0, 0, 0])
    got: list[bytes] = []

    with pytest.raises(FrameError):
        got.extend(reader.feed(received))

    assert got == [STUN]


class Clients:
    """Who hears of connections."""

    def __init__(self) -> None:
        self.open: dict[SocketAddr, SocketAddr] = {}
        self.closed: list[SocketAddr] = []
        self.allocations: set[SocketAddr] = set()

    def handle_stream_opened(self, alias: SocketAddr, client: SocketAddr) -> None:
        self.open[alias] = client

    def handle_stream_closed(self, alias: SocketAddr) -> None:
        self.closed.append(alias)

    def has_allocation(self, client: SocketAddr) -> bool:
        return client in self.allocations


class Front:
    """A front with one port, and the relay's UDP socket behind it."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.clients = Clients()
        self._context = context
        self.counters: Counter[str] = Counter()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.udp.setblocking(False)
        relay = SocketAddr(*self.udp.getsockname())
        self.streams = RelayStreams(self.clients, {4: relay}, self.counters)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    async def __aenter__(self) -> "Front":
        await self.streams.listen(["127.0.0.1"], self.port, "--tcp-port", self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.streams.close()
        self.udp.close()

    async def received(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recvfrom(self.udp, 65536)

    async def counted(self, name: str) -> None:
        async with asyncio.timeout(5):
            while not self.counters[name]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_messages_go_both_ways_and_the_connection_is_a_client() -> None:
    async with Front() as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(STUN + frame(channel_data.encode(0x4000, b"abcde")))

        message, alias = await front.received()
        assert message == STUN
        assert await front.received() == (channel_data.encode(0x4000, b"abcde"), alias)
        front.udp.sendto(channel_data.encode(0x4000, b"x"), alias)
        assert await reader.readexactly(8) == channel_data.encode(0x4000, b"x") + bytes(3)

        own = writer.get_extra_info("sockname")
        assert front.clients.open == {SocketAddr(*alias): SocketAddr(*own)}
        writer.close()
        async with asyncio.timeout(5):
            while front.streams.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert front.clients.closed == [SocketAddr(*alias)]


async def test_who_speaks_another_protocol_is_cut_off() -> None:
    async with Front() as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(bytes.fromhex("160301020001"))  # TLS where none is

        await front.counted("streams_malformed")
        with contextlib.suppress(OSError):
            assert await reader.read(10) == b""


async def test_who_holds_nothing_is_cut_off_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_streams, "IDLE_S", 0.05)
    async with Front() as front:
        _, holder = await asyncio.open_connection("127.0.0.1", front.port)
        holder.write(STUN)
        _, alias = await front.received()
        front.clients.allocations.add(SocketAddr(*alias))
        idler = await asyncio.open_connection("127.0.0.1", front.port)

        await front.counted("streams_idle")
        await asyncio.sleep(0.2)

        assert idler[0].at_eof() or idler[0].exception()
        assert front.counters["streams_idle"] == 1
        assert front.streams.connections == 1


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_streams, "MAX_CONNECTIONS", 1)
    async with Front() as front:
        _, first = await asyncio.open_connection("127.0.0.1", front.port)
        first.write(STUN)
        await front.received()
        second = await asyncio.open_connection("127.0.0.1", front.port)

        await front.counted("streams_refused_full")
        second[1].close()
        assert front.streams.connections == 1


async def test_connections_of_one_source_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_streams, "MAX_PER_SOURCE", 1)
    async with Front() as front:
        _, first = await asyncio.open_connection("127.0.0.1", front.port)
        first.write(STUN)
        await front.received()
        second = await asyncio.open_connection("127.0.0.1", front.port)

        await front.counted("streams_refused_source")
        second[1].close()


async def test_who_says_no_hello_counts_towards_the_bound_and_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, Path]
) -> None:
    monkeypatch.setattr(relay_streams, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(relay_streams, "HANDSHAKE_S", 0.5)
    async with Front(relay_streams.server_context(*certificate)) as front:
        silent = await asyncio.open_connection("127.0.0.1", front.port)
        second = await asyncio.open_connection("127.0.0.1", front.port)

        await front.counted("streams_refused_full")
        await front.counted("streams_no_handshake")
        assert front.streams.connections == 0
        for _, writer in (silent, second):
            writer.close()


async def test_a_hello_that_comes_with_the_connection_is_answered(certificate: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=str(certificate[0]))
    trust.check_hostname = False
    async with Front(relay_streams.server_context(*certificate)) as front:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port, ssl=trust)
            writer.write(STUN)
            message, alias = await front.received()
            front.udp.sendto(channel_data.encode(0x4000, b"abcd"), alias)

            assert message == STUN
            assert await reader.readexactly(8) == channel_data.encode(0x4000, b"abcd")
            writer.close()


async def test_a_port_in_use_is_named() -> None:
    async with Front() as front:
        with pytest.raises(ListenError, match="--tcp-port"):
            await RelayStreams(front.clients, {}, Counter()).listen(["127.0.0.1"], front.port, "--tcp-port")
