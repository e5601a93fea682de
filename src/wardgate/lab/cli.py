"""`wardgate lab`: a small internet at the command line."""

import json
import os
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from wardgate.errors import LabError
from wardgate.lab import registry, topologies
from wardgate.lab.lab import Lab
from wardgate.lab.topology import Link, Nat, NatKind, Topology
from wardgate.text_tables import table_lines

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A small internet in network namespaces: hosts, NATs, links with delay and loss. Needs root, or unprivileged "
    "user namespaces.",
)

ClientNat = Annotated[NatKind, typer.Option(help="How the client's router translates UDP.")]
GatewayNat = Annotated[NatKind, typer.Option(help="How the gateways' router translates UDP.")]
Carrier = Annotated[NatKind, typer.Option(help="What the outer layer of a carrier_grade NAT does.")]
Delay = Annotated[float, typer.Option(min=0, help="One-way delay of both sites' wires to the wan, in milliseconds.")]
Rate = Annotated[float, typer.Option(min=0, help="Their rate each way, in Mbit/s; 0 is unlimited.")]
Loss = Annotated[float, typer.Option(min=0, max=1, help="The share of packets that they lose each way.")]
Mtu = Annotated[int, typer.Option(min=1280, max=65_535, help="The largest packet that they carry.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def up(
    client_nat: ClientNat = NatKind.PORT_RESTRICTED,
    gateway_nat: GatewayNat = NatKind.PORT_RESTRICTED,
    carrier: Carrier = NatKind.PORT_RESTRICTED,
    delay_ms: Delay = 0.0,
    rate_mbit: Rate = 0.0,
    loss: Loss = 0.0,
    mtu: Mtu = 1500,
    as_json: AsJson = False,
) -> None:
    """Build the demo's internet and keep it until Ctrl-C.

    Meanwhile, in another terminal: `wardgate lab shell client`, or `wardgate lab run portal -- ip address`.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        link = Link(delay_ms, rate_mbit or None, loss, mtu)
        topology = topologies.demo(
            Nat(client_nat, carrier), Nat(gateway_nat, carrier), client_link=link, gateway_link=link
        )
        with Lab(topology) as lab, registry.published(lab):
            _show(topology, {name: node.holder_pid for name, node in lab.nodes.items()}, as_json)
            if not as_json:
                print(f"Up after {lab.setup_s:.2f} s. `wardgate lab shell client` opens a shell; Ctrl-C ends the lab.")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        return
    except LabError as error:
        _fail(error)


@app.command()
def shell(node: Annotated[str, typer.Argument(help="A node of the running lab, such as `client`.")]) -> None:
    """Open a shell on a node of the running lab."""
    _become(node, [os.environ.get("SHELL", "/bin/sh")])


@app.command(context_settings={"ignore_unknown_options": True})
def run(
    node: Annotated[str, typer.Argument(help="A node of the running lab, such as `client`.")],
    command: Annotated[list[str], typer.Argument(help="The program and its arguments.")],
) -> None:
    """Run a program on a node of the running lab; its exit status is ours."""
    _become(node, command)


@app.command()
def nodes(as_json: AsJson = False) -> None:
    """List the nodes of the running lab."""
    try:
        found = registry.find()
    except LabError as error:
        _fail(error)
    if as_json:
        print(json.dumps({"owner_pid": found.owner_pid, "nodes": dict(found.holder_pids)}))
        return
    for name, pid in found.holder_pids.items():
        print(f"{name:<16} pid {pid}")


def _become(node: str, argv: list[str]) -> None:
    try:
        registry.find().replace_process(node, argv)
    except LabError as error:
        _fail(error)
    except OSError as error:
        _fail(LabError(f"{argv[0]}: {error.strerror}"))


def _show(topology: Topology, holder_pids: dict[str, int], as_json: bool) -> None:
    addresses = _addresses(topology)
    if as_json:
        rows = {name: {"pid": pid, "addresses": addresses[name]} for name, pid in holder_pids.items()}
        print(json.dumps({"nodes": rows}))
        return
    lines = [(name, str(pid), ", ".join(addresses[name])) for name, pid in holder_pids.items()]
    print("\n".join(table_lines(("node", "pid for nsenter", "addresses"), lines)))


def _addresses(topology: Topology) -> dict[str, list[str]]:
    found = {"wan": [topology.wan_ipv4, topology.wan_ipv6]}
    for host in topology.hosts:
        found[host.name] = [host.ipv4, *([host.ipv6] if host.ipv6 else [])]
    for site in topology.sites:
        if site.carrier is not None:
            found[site.carrier] = [site.public_ipv4]
        public = [] if site.carrier is not None else [site.public_ipv4]
        found[site.router] = [*public, site.gateway_ipv4, *([site.gateway_ipv6] if site.gateway_ipv6 else [])]
        for host in site.hosts:
            found[host.name] = [host.ipv4, *([host.ipv6] if host.ipv6 else [])]
    return {name: [str(address) for address in listed] for name, listed in found.items()}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(error: LabError) -> NoReturn:
    print(f"lab: {error}", file=sys.stderr)
    raise typer.Exit(1)
