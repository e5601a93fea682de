"""The relay's figures as Prometheus text."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wardgate.relay.state import RelaySnapshot

_RESPONSES = "responses_"


class _Snapshot:
    def __init__(
        self,
        state: RelaySnapshot,
        forwarder: Mapping[str, int],
        streams: Mapping[str, int],
        log: Mapping[str, int],
        offloaded: bool,
    ) -> None:
        self._state = state
        self._forwarder = forwarder
        self._streams = streams
        self._log = log
        self._offloaded = offloaded

    def collect(self) -> Iterable[Metric]:
        yield _gauge("joined", "Whether the portal confirmed the join of this relay.", self._state.joined)
        yield _gauge("allocations", "Allocations that clients hold.", self._state.allocations)
        yield _gauge("channels", "Channels that are bound or in their cool-down.", self._state.channels)
        yield _gauge("permissions", "Permissions that clients hold.", self._state.permissions)
        yield _gauge("draining", "Whether this relay is about to end.", self._state.is_draining)
        yield _gauge("xdp_active", "Whether the kernel forwards known channels by itself.", self._offloaded)
        yield self._responses()
        events = CounterMetricFamily("wardgate_relay_events", "What else the TURN server counted.", labels=["event"])
        for name, value in sorted(self._state.counters.items()):
            if not name.startswith(_RESPONSES):
                events.add_metric([name], value)
        yield events
        forwarded = CounterMetricFamily("wardgate_relay_forwarder", "What the forwarder counted.", labels=["event"])
        for name, value in sorted(self._forwarder.items()):
            forwarded.add_metric([name], value)
        yield forwarded
        streamed = CounterMetricFamily("wardgate_relay_streams", "What became of connections.", labels=["event"])
        for name, value in sorted(self._streams.items()):
            streamed.add_metric([name], value)
        yield streamed
        logged = CounterMetricFamily("wardgate_relay_log", "What became of the log.", labels=["event"])
        for name, value in sorted(self._log.items()):
            logged.add_metric([name], value)
        yield logged

    def _responses(self) -> Metric:
        labels = ["response_class", "message_type", "error_code"]
        family = CounterMetricFamily("wardgate_relay_responses", "STUN and TURN responses.", labels=labels)
        for name, value in sorted(self._state.counters.items()):
            if name.startswith(_RESPONSES):
                response_class, _, rest = name.removeprefix(_RESPONSES).partition("_")
                method, code = rest.rsplit("_", 1) if response_class == "error" else (rest, "")
                family.add_metric([response_class, method.replace("_", ""), code], value)
        return family


def render(
    state: RelaySnapshot,
    forwarder: Mapping[str, int],
    streams: Mapping[str, int],
    log: Mapping[str, int],
    *,
    offloaded: bool = False,
) -> bytes:
    """The text of `/metrics`."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(state, forwarder, streams, log, offloaded))
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"wardgate_relay_{name}", text, value=float(value))
