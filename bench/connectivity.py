"""Which NATs can be punched through, and how long a first connection takes; real programs in the lab.

    .venv/bin/python -m bench.connectivity [--samples 30] [--modes iceless,ice] [--skip-matrix | --again]

Method, matrix: the product as its users start it (portal, a relay, a gateway, a client) in the demo's lab, for each
kind of NAT before the client and before the gateway: RFC 4787's three mappings with its three filterings, a carrier's
NAT behind a port-restricted one, and routers that block UDP. For each pair the client starts anew behind routers that
have forgotten everything, and pings an address behind the gateway until the path is direct, for four seconds at most.
What is possible on paper says `expected`. A pair that is not as expected is tried twice more, each time in a lab of its
own; both counts are told.

Method, connect times: wires of 10 ms each way before both sites, portal and relay on the wan. For each sample the
client starts anew, gets its relay's allocation, and then pings: from the first packet to the first answer everything
happens that has to (asking the portal, telling the gateway, candidates, handshake). Direct behind port-restricted
routers, relayed behind symmetric ones.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import bars
from bench.bars import Bar
from bench.paths import Product, Seen, product
from bench.statistics import percentile
from wardgate.errors import LabError
from wardgate.lab import topologies
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.topology import NINE_KINDS, Filtering, Link, Mapping, Nat, NatKind

PAGE = Path(__file__).parents[1] / "docs" / "connectivity.md"
BEGIN, END = "<!-- matrix: made by `make connectivity` -->", "<!-- end of the matrix -->"
SAMPLES, WATCH_S, EVERY_S, TRIES_MORE = 30, 4.0, 0.1, 2
LEAST_AT_FIRST = 95.0
SETTLE_S = 0.6
"""Enough for a client that just started to have its allocation, over wires of 10 ms."""
MOST_P95_MS, MOST_DIRECT_MS = 250.0, 1500.0
COLUMNS = (*NINE_KINDS, NatKind.CARRIER_GRADE, NatKind.UDP_BLOCKED)
SHORT = {
    NatKind.FULL_CONE: "EIM/EIF",
    NatKind.ADDRESS_RESTRICTED: "EIM/ADF",
    NatKind.PORT_RESTRICTED: "EIM/APDF",
    NatKind.SYMMETRIC: "APDM/APDF",
    NatKind.CARRIER_GRADE: "carrier's",
    NatKind.UDP_BLOCKED: "no UDP",
}
Cell = tuple[str, NatKind, NatKind]


def expected(client: NatKind, gateway: NatKind) -> str:
    """What is possible on paper: `direct`, `relayed`, or `none`.

    Both ends know of each other only what relays saw, and send to that. A packet gets in where its sender's address is
    enough (EIF, ADF), or where its port is the one that was signalled and the receiver's own packets went out by the
    mapping that it comes in by: so with APDF both mappings have to be endpoint-independent. One end that gets in is
    enough, as the answer goes back the same way. Without UDP nothing goes, not even to a relay.
    """
    ends = (client, gateway)
    if NatKind.UDP_BLOCKED in ends:
        return "none"
    if any(end.filtering is not Filtering.ADDRESS_AND_PORT_DEPENDENT for end in ends):
        return "direct"
    return "direct" if all(end.mapping is Mapping.ENDPOINT_INDEPENDENT for end in ends) else "relayed"


def name_of(kind: NatKind) -> str:
    """The kind in the table's words."""
    return SHORT.get(kind, kind.value.replace("_", "/").upper())


def measure_matrix(directory: Path, mode: str) -> Iterator[tuple[Cell, Seen]]:
    """Tries every pair of NATs."""
    changing = [kind for kind in COLUMNS if kind is not NatKind.CARRIER_GRADE]
    carrier = [NatKind.CARRIER_GRADE]
    sides = (changing, carrier)
    labs = [(clients, gateways) for gateways in sides for clients in sides]
    for number, (clients, gateways) in enumerate(labs):
        topology = topologies.demo(clients[0], gateways[0])
        with product(directory / f"{mode}-{number}", topology, iceless=mode == "iceless") as running:
            for gateway in gateways:
                running.cast.processes.pop("gateway-1").stop()  # before its way to the portal is forgotten
                _set_nat(running, "gateway", gateway)
                running.start_gateway()
                for client in clients:
                    yield (mode, client, gateway), _try(running, client)


def _set_nat(running: Product, site: str, kind: NatKind) -> None:
    if kind is not NatKind.CARRIER_GRADE:
        running.cast.lab.set_nat(site, Nat(kind))


def _try(running: Product, client: NatKind) -> Seen:
    before = running.cast.processes.pop("client", None)
    if before is not None:
        before.stop()
    _set_nat(running, "client", client)
    running.start_client()
    return running.pinging(WATCH_S, EVERY_S, "--until-direct").seen()


def try_again(directory: Path, cells: dict[Cell, Seen]) -> int:
    """Tries pairs that were not as expected again; gives how many there were."""
    odd = [cell for cell, seen in cells.items() if seen.last_kind != expected(*cell[1:])]
    for number, (mode, client, gateway) in enumerate(odd):
        for attempt in range(TRIES_MORE):
            where = directory / f"again-{number}-{attempt}"
            with product(where, topologies.demo(client, gateway), iceless=mode == "iceless") as running:
                seen = _try(running, client)
            print(f"  again: {mode} {name_of(client)} {name_of(gateway)}: {seen.last_kind}", flush=True)
            if seen.last_kind == expected(client, gateway):
                cells[mode, client, gateway] = seen
                break
    return len(odd)


def measure_connects(directory: Path, mode: str, kind: NatKind, samples: int) -> list[Seen]:
    """Connects again and again with a client that knows nothing."""
    link = Link(delay_ms=10.0)
    topology = topologies.demo(kind, kind, client_link=link, gateway_link=link)
    found = []
    with product(directory / f"connect-{mode}-{kind}", topology, iceless=mode == "iceless") as running:
        running.start_client()
        for number in range(samples):
            running.restart_client()
            time.sleep(SETTLE_S)
            watch_s = WATCH_S if kind is NatKind.PORT_RESTRICTED else 1.0
            found.append(running.pinging(watch_s, EVERY_S, "--until-direct").seen())
            if (number + 1) % 10 == 0:
                print(f"    {number + 1}/{samples}", flush=True)
    return found


def first_answers_ms(found: Sequence[Seen]) -> list[float]:
    """How long each took; one without any answer took for ever."""
    return [1000 * (seen.first_answer_s if seen.first_answer_s is not None else 99.0) for seen in found]


def table_of(cells: dict[Cell, Seen], modes: Sequence[str]) -> list[str]:
    """The matrix as Markdown: a row for each client's NAT, a column for each gateway's."""
    lines = [
        f"| client \\ gateway | {' | '.join(name_of(kind) for kind in COLUMNS)} |",
        "|---" * (len(COLUMNS) + 1) + "|",
    ]
    for client in COLUMNS:
        row = [name_of(client)]
        for gateway in COLUMNS:
            kinds = {mode: cells[mode, client, gateway].last_kind for mode in modes}
            same = set(kinds.values())
            text = same.pop() if len(same) == 1 else ", ".join(f"{mode}: {kind}" for mode, kind in kinds.items())
            is_expected = all(kind == expected(client, gateway) for kind in kinds.values())
            row.append(text if is_expected else f"**{text}**")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def write_page(lines: Sequence[str]) -> None:
    """Puts the matrix into `docs/connectivity.md`."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    PAGE.write_text("\n".join((head + BEGIN, "", *lines, "", END + tail)))


def matrix(directory: Path, modes: Sequence[str]) -> tuple[list[Bar], dict[str, Any]]:
    """Measures all pairs in all modes; gives the bars and what the file keeps."""
    cells: dict[Cell, Seen] = {}
    for mode in modes:
        print(f"which NATs can be punched through ({mode})", flush=True)
        for cell, seen in measure_matrix(directory, mode):
            cells[cell] = seen
            _, client, gateway = cell
            wanted = expected(client, gateway)
            told = "" if seen.last_kind == wanted else f"  EXPECTED {wanted}"
            first = "-" if seen.first_answer_s is None else f"{1000 * seen.first_answer_s:.0f} ms"
            direct = "-" if seen.direct_s is None else f"{1000 * seen.direct_s:.0f} ms"
            print(f"  {name_of(client):>10} {name_of(gateway):>10}: {seen.last_kind}, first answer {first}, "
                  f"direct {direct}{told}", flush=True)  # fmt: skip
    return judge(directory, cells, modes)


def judge(directory: Path, cells: dict[Cell, Seen], modes: Sequence[str]) -> tuple[list[Bar], dict[str, Any]]:
    """Tries again what was odd, writes the table, and gives the bars and what the file keeps."""
    possible = [cell for cell in cells if expected(*cell[1:]) == "direct"]
    at_first = [cell for cell in possible if cells[cell].last_kind == "direct"]
    try_again(directory, cells)
    punched = [cell for cell in possible if cells[cell].last_kind == "direct"]
    reached = [cell for cell in cells if expected(*cell[1:]) != "none"]
    answered = [cell for cell in reached if cells[cell].answers]
    write_page(table_of(cells, modes))
    kept = {" ".join(map(str, cell)): seen._asdict() for cell, seen in cells.items()}
    return [
        Bar("hole punching where it is possible on paper", 100 * len(punched) / len(possible), "%", 100.0),
        Bar("the same, at the first try", 100 * len(at_first) / len(possible), "%", LEAST_AT_FIRST),
        Bar("pairs of NATs that connect, of those that can", 100 * len(answered) / len(reached), "%", 100.0),
    ], kept


def again(directory: Path) -> None:
    """Tries again what the last result has as odd, and keeps what comes of it in the same file."""
    path = bars.RESULTS / "connectivity.json"
    result = json.loads(path.read_text())
    cells: dict[Cell, Seen] = {}
    for name, seen in result["samples"]["matrix"].items():
        mode, client, gateway = name.split()
        answers = [(float(sent), float(answered)) for sent, answered in seen["answers"]]
        paths = [(float(at), str(kind)) for at, kind in seen["paths"]]
        cells[mode, NatKind(client), NatKind(gateway)] = Seen(float(seen["began"]), answers, paths)
    made, kept = judge(directory, cells, list(dict.fromkeys(cell[0] for cell in cells)))
    names = {bar.name for bar in made}
    result["samples"]["matrix"] = kept
    result["bars"] = [bar.as_json() for bar in made] + [bar for bar in result["bars"] if bar["name"] not in names]
    path.write_text(json.dumps(result, indent=1) + "\n")
    for bar in made:
        print(f"{bar.name}: {bar.value:.1f} {bar.unit} ({'holds' if bar.holds else 'DOES NOT HOLD'})")


def connects(directory: Path, modes: Sequence[str], samples: int) -> tuple[list[Bar], dict[str, Any]]:
    """Measures first connections; gives the bars and what the file keeps."""
    found_bars: list[Bar] = []
    kept: dict[str, Any] = {}
    rows: list[list[str]] = []
    for mode in modes:
        for kind, word in ((NatKind.PORT_RESTRICTED, "direct"), (NatKind.SYMMETRIC, "relayed")):
            print(f"first connections ({mode}, {word}) ...", flush=True)
            found = measure_connects(directory, mode, kind, samples)
            took = first_answers_ms(found)
            kept[f"{mode} {word}"] = [seen._asdict() for seen in found]
            p95 = percentile(took, 0.95)
            row = [f"{mode}, {word}", str(len(took)), f"{percentile(took, 0.5):.0f}", f"{p95:.0f}", f"{max(took):.0f}"]
            found_bars.append(Bar(f"first answer of a cold connect, {mode}, {word}, p95", p95, "ms", MOST_P95_MS, True))
            if word == "direct":
                direct = [1000 * (seen.direct_s if seen.direct_s is not None else 99.0) for seen in found]
                most = percentile(direct, 0.95)
                found_bars.append(Bar(f"direct path in use, {mode}, p95", most, "ms", MOST_DIRECT_MS, True))
                row.append(f"{most:.0f}")
            rows.append([*row, "-"][:6])
    bars.table(("cold connect", "count", "p50, ms", "p95, ms", "most, ms", "direct p95, ms"), rows)
    return found_bars, kept


def main() -> int:
    """Prints the figures and keeps them in `bench/results/connectivity.json`; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=SAMPLES, metavar="N", help="first connections of each kind (30)")
    parser.add_argument("--modes", default="iceless,ice", help="iceless, ice, or both with a comma (both)")
    parser.add_argument("--skip-matrix", action="store_true", help="only the connect times; nothing is written")
    parser.add_argument("--again", action="store_true", help="only the pairs of the last result that were odd")
    options = parser.parse_args()
    modes = options.modes.split(",")
    if options.samples < 1 or not set(modes) <= {"iceless", "ice"}:
        parser.error("samples are at least 1, modes are iceless and ice")
    end_on_signals()
    began = time.monotonic()
    try:
        with workplace() as directory:
            if options.again:
                again(directory)
                return 0
            times, kept_times = connects(directory, modes, options.samples)
            if options.skip_matrix:
                for bar in times:
                    print(f"{bar.name}: {bar.value:.0f} {bar.unit} ({'holds' if bar.holds else 'DOES NOT HOLD'})")
                return 0
            cells, kept_cells = matrix(directory, modes)
    except Ended as ended:
        print(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    method = (__doc__ or "").partition("Method, matrix: ")[2].strip()
    bars.write("connectivity.json", [*cells, *times], method, {"matrix": kept_cells, "connects": kept_times})
    print(f"{len(kept_cells)} pairs in {time.monotonic() - began:.0f} s; the table is in docs/connectivity.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
