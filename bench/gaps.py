"""How long a running ping gets no answer when something breaks under it; real programs in the lab.

    .venv/bin/python -m bench.gaps [--modes iceless,ice] [--only WORD]

Method: the product as its users start it, in the demo's lab, port-restricted NATs before both sites unless the event is
about relays (then symmetric ones, so that the path is relayed). A ping ten times a second to an address behind the
gateway; after three seconds something breaks, and the gap is the longest time without an answer around and after that.
Each event has a lab of its own. Programs are killed with SIGKILL, or stopped with SIGTERM; what is started again is
started as a user would, so the time in which a program starts is in the gap.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from bench import bars
from bench.bars import Bar
from bench.paths import Product, product
from wardgate.errors import LabError
from wardgate.lab import topologies
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.topology import Link, Nat, NatKind

BEFORE_S, EVERY_S = 3.0, 0.1
NOTICE_S = 0.5
"""How long the network monitor waits for further changes before it acts on one."""
PAGE = Path(__file__).parents[1] / "docs" / "connectivity.md"
BEGIN, END = "<!-- gaps: made by `make bench-gaps` -->", "<!-- end of the gaps -->"
GATEWAYS = ("gateway-1", "gateway-2")


class Event(NamedTuple):
    """Something that breaks.

    Attributes:
        limit_s: How long the gap may be.
        breaks: Does it.
        watch_s: How long to watch afterwards.
        is_relayed: Whether the path is to be relayed.
        gateways, relays: How many there are.
    """

    name: str
    limit_s: float
    breaks: Callable[[Product], None]
    watch_s: float = 8.0
    is_relayed: bool = False
    gateways: int = 1
    relays: int = 1


def gateway_killed(running: Product) -> None:
    running.cast.processes[_gateway_in_use(running)].kill()


def gateway_restarted(running: Product) -> None:
    running.cast.processes.pop("gateway-1").kill()
    running.cast.start_gateway("gateway-1")


def gateway_stopped(running: Product) -> None:
    running.cast.processes.pop("gateway-1").terminate()
    time.sleep(0.5)
    running.cast.start_gateway("gateway-1")


def gateway_stopped_beside_another(running: Product) -> None:
    running.cast.processes[_gateway_in_use(running)].terminate()


def client_moves(running: Product) -> None:
    running.cast.lab.move_host("client", "client", IPv4Address("192.168.1.77"), IPv6Address("2001:db8:1::77"))


def route_moves(running: Product) -> None:
    """The host has another address as well, and packets leave with that one from now on."""
    node = running.cast.lab.node("client")
    node.run(["ip", "address", "add", "192.168.1.88/24", "dev", "eth0"]).check()
    node.run(["ip", "route", "replace", "default", "via", "192.168.1.1", "src", "192.168.1.88"]).check()


def client_nat_changes(running: Product) -> None:
    _change_ports(running, "client")


def gateway_nat_changes(running: Product) -> None:
    _change_ports(running, "gateway")


def _change_ports(running: Product, site: str) -> None:
    """The router forgets every mapping, and the port that it used is taken by somebody else."""
    running.cast.lab.set_nat(site, Nat(NatKind.PORT_RESTRICTED))
    words = ["nft", "add", "element", "ip", "nat", "taken", "{ 52625 timeout 1h }"]
    running.cast.lab.node(f"{site}-nat").run(words).check()


def gateway_moves(running: Product) -> None:
    running.cast.lab.move_host("gateway-1", "gateway", IPv4Address("10.9.0.77"), IPv6Address("2001:db8:9::77"))


def relay_restarted(running: Product) -> None:
    running.cast.processes.pop("relay-1").kill()
    running.start_relay("relay-1")


def relay_dies(running: Product) -> None:
    address = (running.cast.resource("wiki by address").get("path") or {}).get("relay", "")
    name = "relay-2" if address.startswith("203.0.113.4") else "relay-1"
    running.cast.processes[name].kill()


def link_down(running: Product) -> None:
    running.cast.lab.set_link("client-nat", Link(loss=1.0))
    time.sleep(5.0)
    running.cast.lab.set_link("client-nat", Link())


def _gateway_in_use(running: Product) -> str:
    gateway_id = running.cast.resource("wiki by address").get("gateway_id")
    rows = running.cast.admin("gateways", "list", "--site", "office")
    return next(str(row["name"]) for row in rows if row["id"] == gateway_id)


EVENTS: Sequence[Event] = (
    Event("gateway killed, second one up", 3.0, gateway_killed, gateways=2),
    Event("gateway killed, restarted with a new key", 3.0, gateway_restarted),
    Event("gateway stopped politely, restarted 0.5 s later", 1.0, gateway_stopped),
    Event("gateway stopped politely, second one up", 1.0, gateway_stopped_beside_another, gateways=2),
    Event("client's address changes", 0.4 + NOTICE_S, client_moves),
    Event("client's default route moves", 3.0, route_moves),
    Event("client's NAT changes its ports", 3.0, client_nat_changes),
    Event("gateway's NAT changes its ports", 3.0, gateway_nat_changes),
    Event("gateway's address changes", 3.0, gateway_moves),
    Event("relay in use restarted", 1.0, relay_restarted, is_relayed=True),
    Event("relay in use dies, another one known", 1.0, relay_dies, is_relayed=True, relays=2),
    Event("link down for 5 s", 5.2, link_down, watch_s=10.0),
)


def measure(event: Event, mode: str, directory: Path) -> float:
    """Lets it happen once; gives the gap in seconds.

    Raises:
        LabError: There was no answer before it.
    """
    kind = NatKind.SYMMETRIC if event.is_relayed else NatKind.PORT_RESTRICTED
    topology = topologies.demo(kind, kind)
    with product(directory, topology, iceless=mode == "iceless", relays=event.relays) as running:
        for name in GATEWAYS[1 : event.gateways]:
            running.start_gateway(name)
        running.start_client()
        pinging = running.pinging(BEFORE_S + event.watch_s, EVERY_S)
        time.sleep(BEFORE_S)
        at = time.monotonic()
        event.breaks(running)
        seen = pinging.seen()
        if not [answered for _, answered in seen.answers if answered < at]:
            raise LabError(f"{event.name} ({mode}): nothing was answered before")
        return seen.gap_s(at)


def write_page(rows: Sequence[tuple[str, ...]]) -> None:
    """Puts the table into `docs/connectivity.md`."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    lines = ["| event | ICE | ICE-less | limit |", "| --- | --- | --- | --- |"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    PAGE.write_text("\n".join((head + BEGIN, "", *lines, "", END + tail)))


def main() -> int:
    """Prints the figures and keeps them in `bench/results/gaps.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modes", default="ice,iceless", help="iceless, ice, or both with a comma (both)")
    parser.add_argument("--only", default="", metavar="WORD", help="only events with this word; nothing is written")
    options = parser.parse_args()
    modes = options.modes.split(",")
    if not set(modes) <= {"iceless", "ice"}:
        parser.error("modes are iceless and ice")
    end_on_signals()
    found: dict[tuple[str, str], float] = {}
    events = [event for event in EVENTS if options.only in event.name]
    try:
        with workplace() as directory:
            for number, event in enumerate(events):
                for mode in modes:
                    gap_s = found[event.name, mode] = measure(event, mode, directory / f"{number}-{mode}")
                    verdict = "" if gap_s <= event.limit_s else "  DOES NOT HOLD"
                    print(f"  {event.name} ({mode}): {gap_s:.2f} s (at most {event.limit_s:g}){verdict}", flush=True)
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    if options.only or set(modes) != {"ice", "iceless"}:
        return 0
    limits = {event.name: event.limit_s for event in events}
    made = [Bar(f"{name}, {mode}", gap_s, "s", limits[name], True) for (name, mode), gap_s in found.items()]
    bars.write("gaps.json", made, (__doc__ or "").partition("Method: ")[2].strip(), {})
    write_page([(event.name, *(f"{found[event.name, mode]:.1f} s" for mode in ("ice", "iceless")),
                 f"{event.limit_s:g} s") for event in events])  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
