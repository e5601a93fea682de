"""What a bus does, the one in the process and the one over NATS alike; and NATS that goes away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.nats_server import NatsServer, nats_or_skip
from wardgate.errors import SettingError
from wardgate.portal.cluster.bus import ALL, MAX_MESSAGE, Bus, LocalNetwork
from wardgate.portal.cluster.nats_bus import MAX_QUEUED, NatsBus, nats_bus
from wardgate.portal.config import Settings
from wardgate.portal.metrics import Metrics

WAIT_S = 15.0


class Listener:
    """One portal's end of a bus."""

    def __init__(self, bus: Bus, metrics: Metrics) -> None:
        self.bus = bus
        self.metrics = metrics
        self.heard: list[tuple[str, bytes]] = []
        self.connections = 0
        bus.listen(lambda target, message: self.heard.append((target, message)), self._count)

    def _count(self) -> None:
        self.connections += 1

    async def hears(self, count: int) -> list[tuple[str, bytes]]:
        await until(lambda: len(self.heard) >= count)
        return self.heard

    def dropped(self, why: str) -> float:
        labels = {"why": why}
        return self.metrics.registry.get_sample_value("wardgate_portal_bus_dropped_total", labels) or 0.0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = nats_or_skip(tmp_path)
    server.start()
    yield server
    server.stop()


def over_nats(server: NatsServer, node_id: str) -> Listener:
    metrics = Metrics()
    return Listener(NatsBus(node_id, [server.url], metrics), metrics)


@pytest.fixture(params=["local", "nats"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[dict[str, Listener]]:
    """Three portals on one bus."""
    names = ("one", "two", "three")
    if request.param == "local":
        network = LocalNetwork()
        found = {name: Listener(network.bus(name), Metrics()) for name in names}
    else:
        server: NatsServer = request.getfixturevalue("nats")
        found = {name: over_nats(server, name) for name in names}
    for end in found.values():
        await end.bus.start()
    await until(lambda: all(end.bus.is_connected for end in found.values()))
    yield found
    for end in found.values():
        await end.bus.close()


async def test_what_is_said_to_all_reaches_all_others(ends: dict[str, Listener]) -> None:
    assert ends["one"].bus.send(ALL, b"hello")

    for name in ("two", "three"):
        assert await ends[name].hears(1) == [(ALL, b"hello")]
    assert ends["one"].heard == []


async def test_what_is_said_to_one_reaches_it_alone_and_in_order(ends: dict[str, Listener]) -> None:
    for number in range(500):
        assert ends["one"].bus.send("two", b"%d" % number)
    ends["one"].bus.send(ALL, b"end")

    await ends["three"].hears(1)
    heard = await ends["two"].hears(501)
    assert [message for target, message in heard if target == "two"] == [b"%d" % number for number in range(500)]
    assert ends["three"].heard == [(ALL, b"end")]


async def test_each_is_told_once_that_it_is_connected(ends: dict[str, Listener]) -> None:
    assert [end.connections for end in ends.values()] == [1, 1, 1]


async def test_a_message_that_is_too_long_is_not_sent(ends: dict[str, Listener]) -> None:
    assert not ends["one"].bus.send("two", bytes(MAX_MESSAGE + 1))
    assert ends["one"].bus.send("two", bytes(MAX_MESSAGE))

    [(_, message)] = await ends["two"].hears(1)
    assert len(message) == MAX_MESSAGE


async def test_a_bus_that_was_closed_sends_nothing(ends: dict[str, Listener]) -> None:
    await ends["one"].bus.close()

    assert not ends["one"].bus.is_connected
    assert not ends["one"].bus.send("two", b"hello")


async def test_what_is_said_before_the_end_is_sent(ends: dict[str, Listener]) -> None:
    ends["one"].bus.send("two", b"bye")
    await ends["one"].bus.close()

    assert await ends["two"].hears(1) == [("two", b"bye")]


# --- NATS alone -------------------------------------------------------------------------------------------------------


async def test_a_server_that_comes_late_is_found(nats: NatsServer) -> None:
    nats.stop()
    end = over_nats(nats, "one")
    await end.bus.start()
    assert not end.bus.send(ALL, b"hello"), "nothing waits"
    assert end.dropped("not_connected") == 1

    nats.start()

    await until(lambda: end.bus.is_connected)
    assert end.connections == 1
    await end.bus.close()


async def test_a_server_that_was_killed_is_found_again_and_nothing_old_is_sent(nats: NatsServer) -> None:
    one, two = over_nats(nats, "one"), over_nats(nats, "two")
    for end in (one, two):
        await end.bus.start()
    await until(lambda: one.bus.is_connected and two.bus.is_connected)

    nats.stop()
    await until(lambda: not one.bus.is_connected and not two.bus.is_connected)
    assert not one.bus.send("two", b"old")
    nats.start()
    started = time.monotonic()
    await until(lambda: one.bus.is_connected and two.bus.is_connected)
    print(f"connected again {time.monotonic() - started:.2f} s after NATS started")
    one.bus.send("two", b"new")

    assert await two.hears(1) == [("two", b"new")]
    assert (one.connections, two.connections) == (2, 2)
    for end in (one, two):
        await end.bus.close()


async def test_a_queue_that_is_full_takes_no_more(nats: NatsServer) -> None:
    end = over_nats(nats, "one")
    await end.bus.start()
    await until(lambda: end.bus.is_connected)

    sent = [end.bus.send("two", b"x") for _ in range(MAX_QUEUED + 1)]  # the writer gets no turn in between

    assert sent.count(False) == 1
    assert end.dropped("queue_full") == 1
    await end.bus.close()


async def test_passwords_are_asked_for_and_a_wrong_one_is_not_the_end(tmp_path: Path) -> None:
    server = nats_or_skip(tmp_path, "--user", "wardgate", "--pass", "secret")
    server.start()
    try:
        right = NatsBus("one", [f"nats://wardgate:secret@127.0.0.1:{server.port}"], Metrics())
        wrong = NatsBus("two", [f"nats://wardgate:guess@127.0.0.1:{server.port}"], Metrics())
        await right.start()
        await wrong.start()
        await until(lambda: right.is_connected)

        await asyncio.sleep(0.2)
        assert not wrong.is_connected

        await right.close()
        await wrong.close()
    finally:
        server.stop()


async def test_of_several_servers_one_that_runs_is_used(nats: NatsServer, tmp_path: Path) -> None:
    dead = nats_or_skip(tmp_path)
    bus = NatsBus("one", [dead.url, nats.url], Metrics())

    await bus.start()

    await until(lambda: bus.is_connected)
    await bus.close()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = Settings(nats_url="nats://127.0.0.1", nats_ca=tmp_path / "none.pem")

    with pytest.raises(SettingError, match=r"none\.pem cannot be used"):
        nats_bus(settings, "one", Metrics())
