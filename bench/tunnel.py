"""Thin first version."""
import argparse, statistics, time
from ipaddress import IPv4Address
from pathlib import Path

from wardgate.lab.demo.workplace import end_on_signals, workplace

from bench.contenders.plain import Plain
from bench.contenders.wardgate import Wardgate
from bench.contenders.wireguard import UserSpaceWireGuard
from bench.cost import machine_busy_s, usage_of
from bench.place import near, opened
from bench.workloads.tcp import Bulk

BIN = Path(__file__).parent / ".cache/bin"
ALL = {
    "plain": Plain,
    "wireguard-go": lambda: UserSpaceWireGuard("wireguard-go", [str(BIN / "wireguard"), "-f"], "wg-go", IPv4Address("10.9.0.21"), 51820, "?"),
    "gotatun": lambda: UserSpaceWireGuard("gotatun", [str(BIN / "gotatun"), "-f"], "gotatun", IPv4Address("10.9.0.23"), 51821, "?"),
    "wardgate": Wardgate,
}
ROWS = {"tcp-down": Bulk(), "tcp-up": Bulk(down=False), "tcp-10": Bulk(flows=10)}

parser = argparse.ArgumentParser()
parser.add_argument("--only", nargs="+", default=["tcp-down"], choices=list(ROWS))
parser.add_argument("--contenders", nargs="+", default=["plain", "wireguard-go", "wardgate"], choices=list(ALL))
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=float, default=2)
o = parser.parse_args()
end_on_signals()
with workplace() as d, opened("near", near(), d / "near") as place:
    cs = [ALL[n]() for n in o.contenders]
    for c in cs:
        t = time.monotonic(); c.start(place); print(f"{c.name} up after {time.monotonic()-t:.1f} s {dict(c.facts())}", flush=True)
    got = {}
    for r in range(o.rounds):
        for row in o.only:
            for c in cs[r % len(cs):] + cs[:r % len(cs)]:
                pids = [p.pid for p in c.processes().values()]
                u, m = usage_of(pids), machine_busy_s()
                v = ROWS[row].run(place, c.target(), o.seconds)
                used = usage_of(pids).since(u)
                got[row, c.name, r] = v["gbit_per_s"]
                print(f"{r} {row:10} {c.name:14} {v['gbit_per_s']:.3f} Gb/s  cpu/GB {used.cpu_s/v['bytes']*1e9:.2f}  machine {(machine_busy_s()-m)/v['bytes']*1e9:.2f} rss {used.peak_rss/1e6:.0f} MB", flush=True)
    for row in o.only:
        for base in o.contenders:
            print(row, base, {c: round(statistics.median(got[row, c, r] / got[row, base, r] for r in range(o.rounds)), 3) for c in o.contenders})
