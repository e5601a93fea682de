"""The rows of the benchmark: what is run, in which order, and which figures of it are shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from bench.workloads.base import Workload
from bench.workloads.connect import NewConnections
from bench.workloads.latency import Latency
from bench.workloads.tcp import Bulk
from bench.workloads.udp import PacketRate

NEAR, FAR = "near", "far"


class Better(StrEnum):
    """Which way is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that every contender does in every round.

    Attributes:
        name: As at the command line.
        workload: The load.
        where: `near`, or `far` for the lab with the delay line.
        delay_ms: One-way delay of the client's wire, in the far lab.
        loss: The share of packets that the client's wire loses, each way.
    """

    name: str
    workload: Workload
    where: str = NEAR
    delay_ms: float = 0.0
    loss: float = 0.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the tables.

    Attributes:
        row: Where it is measured.
        key: What it is called there.
        title: What it is, for people.
        unit: Its unit.
        better: Which way is good.
        digits: How many decimals are shown.
        peak: The most of all rounds is shown, not the median.
    """

    row: str
    key: str
    title: str
    unit: str
    better: Better = Better.HIGHER
    digits: int = 2
    peak: bool = False


_ROWS = (
    Row("tcp-down", Bulk()),
    Row("tcp-up", Bulk(down=False)),
    Row("tcp-10", Bulk(flows=10)),
    Row("udp-1200", PacketRate(1200)),
    Row("udp-100", PacketRate(100)),
    Row("latency-idle", Latency()),
    Row("latency-down", Latency(beside=Bulk())),
    Row("latency-up", Latency(beside=Bulk(down=False))),
    Row("connect", NewConnections()),
    Row("tcp-loss", Bulk(), loss=0.001),
    Row("tcp-20ms", Bulk(warm_up_s=2.0), where=FAR, delay_ms=20.0),
    Row("tcp-80ms", Bulk(warm_up_s=4.0), where=FAR, delay_ms=80.0),
)
ROWS: Mapping[str, Row] = {row.name: row for row in _ROWS}
QUICK_ROWS = ("tcp-down", "tcp-up", "tcp-10", "udp-100", "latency-down")

FIGURES = (
    Figure("tcp-down", "gbit_per_s", "TCP, one flow down", "Gbit/s"),
    Figure("tcp-up", "gbit_per_s", "TCP, one flow up", "Gbit/s"),
    Figure("tcp-10", "gbit_per_s", "TCP, 10 flows down", "Gbit/s"),
    Figure("udp-1200", "packets_per_s", "UDP, 1200 bytes, < 0.5 % lost", "packets/s", digits=0),
    Figure("udp-100", "packets_per_s", "UDP, 100 bytes, < 0.5 % lost", "packets/s", digits=0),
    Figure("latency-idle", "p50_ms", "ping, idle, p50", "ms", Better.LOWER, 3),
    Figure("latency-idle", "p99_ms", "ping, idle, p99", "ms", Better.LOWER, 3),
    Figure("latency-down", "p50_ms", "ping beside a full TCP flow down, p50", "ms", Better.LOWER, 3),
    Figure("latency-down", "p99_ms", "ping beside a full TCP flow down, p99", "ms", Better.LOWER, 3),
    Figure("latency-up", "p50_ms", "ping beside a full TCP flow up, p50", "ms", Better.LOWER, 3),
    Figure("latency-up", "p99_ms", "ping beside a full TCP flow up, p99", "ms", Better.LOWER, 3),
    Figure("connect", "success_pct", "200 new TCP connections/s, established", "%", digits=1),
    Figure("connect", "p50_ms", "200 new TCP connections/s, p50", "ms", Better.LOWER, 3),
    Figure("connect", "p99_ms", "200 new TCP connections/s, p99", "ms", Better.LOWER, 3),
    Figure("tcp-loss", "gbit_per_s", "TCP, one flow down, 0.1 % lost", "Gbit/s"),
    Figure("tcp-20ms", "gbit_per_s", "TCP, one flow down, 20 ms each way", "Gbit/s"),
    Figure("tcp-80ms", "gbit_per_s", "TCP, one flow down, 80 ms each way", "Gbit/s", digits=3),
    Figure("tcp-down", "cpu_s_per_gb", "processor time, one flow down", "s/GB", Better.LOWER),
    Figure("tcp-up", "cpu_s_per_gb", "processor time, one flow up", "s/GB", Better.LOWER),
    Figure("tcp-10", "cpu_s_per_gb", "processor time, 10 flows", "s/GB", Better.LOWER),
    Figure("udp-100", "cpu_us_per_packet", "processor time, UDP of 100 bytes", "µs/packet", Better.LOWER),
    Figure("tcp-down", "machine_s_per_gb", "the whole machine's, one flow down", "s/GB", Better.LOWER),
    Figure("tcp-down", "switches_per_gb", "context switches, one flow down", "per GB", Better.LOWER, 0),
    Figure("tcp-down", "instructions_per_packet", "instructions, one flow down", "per packet", Better.LOWER, 0),
    Figure("*", "peak_rss_mb", "memory of what carries packets, peak", "MB", Better.LOWER, 0, peak=True),
)
"""`*` is any row."""
