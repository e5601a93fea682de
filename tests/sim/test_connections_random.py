"""Random networks and random misfortunes: whatever happened, peers that can reach a relay find each other again."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sim.network import Device, Nat, RelayNode, World, connect
from tests.sim.scenarios import PACKET
from wardgate.tunnel.connections import Established, Failed

NATS = st.one_of(
    st.none(), st.tuples(st.sampled_from(["cone", "symmetric"]), st.sampled_from(["none", "address", "port"]))
)
MISFORTUNES = st.sampled_from(
    ["nothing", "client offline", "gateway offline", "relay restarts", "client ports", "gateway ports", "roam", "loss"]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    iceless=st.booleans(),
    client_nat=NATS,
    gateway_nat=NATS,
    latencies=st.tuples(*[st.sampled_from([0.0, 0.003, 0.04, 0.2])] * 3),
    misfortunes=st.lists(st.tuples(MISFORTUNES, st.sampled_from([0.1, 2.0, 8.0, 40.0])), max_size=4),
    seed=st.integers(0, 1000),
)
def test_peers_find_each_other_again(
    iceless: bool,
    client_nat: tuple[str, str] | None,
    gateway_nat: tuple[str, str] | None,
    latencies: tuple[float, float, float],
    misfortunes: list[tuple[str, float]],
    seed: int,
) -> None:
    scene = Scene(iceless, client_nat, gateway_nat, latencies, seed)
    for misfortune, pause_s in misfortunes:
        scene.suffer(misfortune, pause_s)

    assert scene.recovers_within(45.0)


class Scene:
    """A client that asks for its gateway again whenever the connection failed, and what may happen to both."""

    def __init__(
        self,
        iceless: bool,
        client_nat: tuple[str, str] | None,
        gateway_nat: tuple[str, str] | None,
        latencies: tuple[float, float, float],
        seed: int,
    ) -> None:
        self.world = World(seed)
        self.iceless = iceless
        self.relay = RelayNode(self.world, "203.0.113.3", latency_s=latencies[2])
        self.client = self._device("client-1", "192.168.1.2", "203.0.113.21", client_nat, latencies[0])
        self.gateway = self._device("gateway-1", "10.5.0.2", "203.0.113.31", gateway_nat, latencies[1])
        self._hosts = 2
        self._secrets = 0
        for device in (self.client, self.gateway):
            device.learn(self.relay)
        self.world.run(2.0)
        connect(self.client, self.gateway, iceless=iceless)
        self.live(6.0)

    def _device(self, name: str, host: str, public: str, nat: tuple[str, str] | None, latency_s: float) -> Device:
        options: dict[str, Any] = {"nat": Nat(public, *nat) if nat else None, "latency_s": latency_s}  # type: ignore[arg-type]
        return Device(self.world, name, host, "client" if name == "client-1" else "gateway", **options)

    def live(self, for_s: float) -> None:
        """Some traffic for a while; the client asks again when it lost its gateway."""
        end = self.world.now + for_s
        asked_at = self.world.now
        while self.world.now < end:
            self.client.send(self.gateway, PACKET)
            self.gateway.send(self.client, PACKET)
            self.world.run(0.5)
            gone = self.client.connections.index_of("gateway-1") is None
            if gone and self.world.now >= asked_at + 2.0:
                asked_at = self.world.now
                connect(self.client, self.gateway, iceless=self.iceless)

    def suffer(self, misfortune: str, pause_s: float) -> None:
        match misfortune:
            case "client offline" | "gateway offline":
                device = self.client if misfortune == "client offline" else self.gateway
                self.world.attachment(device.address.host).is_up = False
                self.live(pause_s)
                self.world.attachment(device.address.host).is_up = True
            case "relay restarts":
                self._restart_relay(pause_s)
            case "client ports" | "gateway ports":
                device = self.client if misfortune == "client ports" else self.gateway
                nat = self.world.attachment(device.address.host).nat
                if nat:
                    nat.change_ports()
                self.live(pause_s)
            case "roam":
                self._roam()
                self.live(pause_s)
            case "loss":
                self.world.attachment(self.client.address.host).loss = 0.3
                self.live(pause_s)
                self.world.attachment(self.client.address.host).loss = 0.0
            case _:
                self.live(pause_s)

    def _restart_relay(self, pause_s: float) -> None:
        old = self.relay
        self.world.detach(old.host)
        self.live(pause_s)
        self._secrets += 1
        self.relay = RelayNode(self.world, old.host, secret=f"{self._secrets:064x}", number=self._secrets + 1)
        for device in (self.client, self.gateway):
            device.learn(self.relay, forget=(old.relay_id,))

    def _roam(self) -> None:
        self._hosts += 1
        self.client.move(f"192.168.{self._hosts}.2", nat=Nat(f"203.0.113.{100 + self._hosts}"))
        if not self.client.reset():
            self.client.renew_key()

    def recovers_within(self, for_s: float) -> bool:
        """Whether packets pass both ways again, and go on doing so."""
        end = self.world.now + for_s
        while self.world.now < end:
            self.client.packets.clear()
            self.gateway.packets.clear()
            self.live(2.0)
            if len(self.client.packets) >= 3 and len(self.gateway.packets) >= 3:
                return not self._fails_in(5.0)
        return False

    def _fails_in(self, for_s: float) -> bool:
        before = len(self.client.happened(Failed))
        self.live(for_s)
        assert self.client.happened(Established)
        return len(self.client.happened(Failed)) > before


def test_path_that_worked_one_way_only_is_left() -> None:
    scene = Scene(True, ("symmetric", "none"), ("symmetric", "address"), (0.04, 0.2, 0.003), 571)

    assert scene.recovers_within(4.0)
    assert len(scene.world.delivered) < 2000  # the ends do not keep waking each other up


def test_gateway_notices_that_the_nat_of_the_client_changed_its_ports() -> None:
    scene = Scene(True, ("cone", "port"), ("cone", "none"), (0.003, 0.003, 0.0), 544)
    scene.suffer("client ports", 0.1)

    assert scene.recovers_within(6.0)


def test_symmetric_nats_do_not_crowd_out_the_relay_with_candidates_learned_from_checks() -> None:
    scene = Scene(False, ("symmetric", "none"), ("symmetric", "address"), (0.003, 0.003, 0.003), 937)
    for misfortune in (("client offline", 8.0), ("gateway offline", 8.0), ("relay restarts", 40.0)):
        scene.suffer(*misfortune)

    assert scene.recovers_within(10.0)


def test_very_slow_paths_are_not_taken_for_dead_ones() -> None:
    scene = Scene(False, ("cone", "port"), ("symmetric", "address"), (0.04, 0.2, 0.2), 361)

    assert scene.recovers_within(10.0)


def test_answers_from_before_a_roam_do_not_bring_the_old_address_back() -> None:
    scene = Scene(True, None, None, (0.2, 0.2, 0.003), 764)
    scene.suffer("roam", 1.0)

    assert scene.recovers_within(10.0)
