"""What is read from the output of other programs and from the kernel."""

import json
import os
import time

import pytest
from bench import cost, instructions, wire
from bench.workloads.connect import read_connections
from bench.workloads.latency import read_pings
from bench.workloads.tcp import Bulk, read_result

from wardgate.errors import LabError

PINGS = """PING 10.9.0.2 (10.9.0.2) 56(84) bytes of data.
64 bytes from 10.9.0.2: icmp_seq=1 ttl=63 time=0.300 ms
64 bytes from 10.9.0.2: icmp_seq=2 ttl=63 time=0.100 ms
64 bytes from 10.9.0.2: icmp_seq=2 ttl=63 time=9.000 ms (DUP!)
64 bytes from 10.9.0.2: icmp_seq=4 ttl=63 time=12 ms

--- 10.9.0.2 ping statistics ---
4 packets transmitted, 3 received, +1 duplicates, 25% packet loss, time 30ms
rtt min/avg/max/mdev = 0.100/4.133/12.000/5.563 ms
"""
STAT = "4711 (a (strange) name) S 1 4711 4711 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 4 0 100 1 1"
DEV = """Inter-| Receive | Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:     100    1 0 0 0 0 0 0   100    1 0 0 0 0 0 0
  eth0: 5000000 1000 0 0 0 0 0 0 60000 1000 0 0 0 0 0 0
"""


def iperf(rates: list[float], received: int = 1000) -> str:
    intervals = [
        {"sum": {"start": 0.1 * number, "seconds": 0.1, "bytes": rate * 0.1 / 8}} for number, rate in enumerate(rates)
    ]
    return json.dumps({"intervals": intervals, "end": {"sum_received": {"bytes": received}}})


def test_bulk_rate_is_that_after_the_warm_up() -> None:
    values = read_result(iperf([8e9] * 5 + [2e9, 4e9], received=12_280), "", 0.5)

    assert values == {"gbit_per_s": pytest.approx(3.0), "bytes": 12_280.0, "packets": pytest.approx(10.0)}


@pytest.mark.parametrize(
    "text", ["", "iperf3: no", json.dumps({"error": "no route"}), json.dumps({"intervals": []}), iperf([8e9] * 3)]
)
def test_bulk_that_failed_or_ended_early_is_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_result(text, "said why", 0.5)


def test_bulk_says_its_direction_and_number_of_flows() -> None:
    down, up = Bulk(flows=10).words("10.9.0.2", 3), Bulk(down=False).words("10.9.0.2", 3)

    assert "--reverse" in down
    assert down[down.index("--parallel") + 1] == "10"
    assert "--reverse" not in up


def test_pings_count_once_and_lost_ones_are_told() -> None:
    assert read_pings(PINGS) == {"p50_ms": 0.3, "p99_ms": 12.0, "max_ms": 12.0, "lost_pct": 25.0}


@pytest.mark.parametrize("text", ["", PINGS.replace("4 packets", "9 packets"), "4 packets transmitted, 0 received"])
def test_too_few_pings_are_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_pings(text)


def test_connections_give_success_and_latency() -> None:
    values = read_connections('{"tried": 4, "latencies_s": [0.001, 0.003, 0.002]}')

    assert values == {"success_pct": 75.0, "p50_ms": 2.0, "p99_ms": 3.0}


@pytest.mark.parametrize("text", ["", "{}", '{"tried": 4, "latencies_s": []}', '{"tried": 0, "latencies_s": [1]}'])
def test_no_connections_are_refused(text: str) -> None:
    with pytest.raises(LabError):
        read_connections(text)


def test_processor_time_is_read_past_a_strange_name() -> None:
    assert cost.cpu_ticks_of(STAT) == 150


def test_number_in_a_status_is_found_by_its_whole_key() -> None:
    status = "Name:\tx\nVmHWM:\t  2048 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t5\n"

    assert cost.number_of(status, "VmHWM") == 2048
    assert cost.number_of(status, "voluntary_ctxt_switches") == 7
    assert cost.number_of(status, "VmRSS") == 0


def test_usage_of_this_process_is_what_it_has_used() -> None:
    before = time.process_time()

    usage = cost.usage_of([os.getpid()])

    assert usage.cpu_s >= before - 0.02
    assert usage.peak_rss > 1 << 20
    assert usage.switches > 0


def test_usage_of_a_process_that_is_gone_is_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

    assert cost.usage_of([pid]) == cost.Usage()


def test_usage_since_keeps_the_peak() -> None:
    assert cost.Usage(5.0, 70, 900).since(cost.Usage(3.0, 50, 800)) == cost.Usage(2.0, 20, 900)


def test_instructions_are_read_where_they_are_counted() -> None:
    assert instructions.count_of("123456,,instructions,1000,100.00,,\n") == 123456
    assert instructions.count_of("123456,,instructions:u,1000,100.00,,\n") == 123456
    assert instructions.count_of("<not supported>,,instructions,0,100.00,,\n") is None
    assert instructions.count_of("") is None


def test_wire_figures_are_rates_and_mean_sizes() -> None:
    carried = wire.read_interface(DEV, "eth0")

    assert carried == wire.Carried(5_000_000, 1000, 60_000, 1000)
    assert carried.figures_since(wire.Carried(), 2.0) == {
        "wire_received_gbit_per_s": pytest.approx(0.02),
        "wire_received_bytes_per_packet": 5000.0,
        "wire_sent_gbit_per_s": pytest.approx(0.00024),
        "wire_sent_bytes_per_packet": 60.0,
    }


def test_few_packets_have_no_mean_size() -> None:
    figures = wire.Carried(5000, 10, 0, 0).figures_since(wire.Carried(), 1.0)

    assert "wire_received_bytes_per_packet" not in figures
    assert wire.read_interface(DEV, "eth1") == wire.Carried()
