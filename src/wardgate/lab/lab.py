"""The lab itself: build a topology, run programs in it, change it while it runs, and leave nothing behind.

    with Lab(topologies.demo()) as lab:
        lab.node("portal").spawn(["python3", "-m", "http.server", "80"])
        lab.node("client").run(["curl", "-s", "http://portal/"]).check()

Every call blocks until it is done and may come from any thread. The work happens in the supervisor's process, so the
caller needs no rights beyond those to make namespaces, stays in its own namespaces, and keeps its own signal handlers.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import NamedTuple

from wardgate.errors import LabError, LabUnavailable
from wardgate.lab import messages, operations, plan
from wardgate.lab.messages import Message
from wardgate.lab.node import Node, environment
from wardgate.lab.process import outer_pid
from wardgate.lab.topology import Host, Link, Nat, NatKind, Topology

READY_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 10.0
OPERATIONS_PER_REQUEST = 16


class LinkCounters(NamedTuple):
    """What one direction of a wire with a delay has carried.

    Attributes:
        frames: Frames delivered; a super-packet is one.
        bytes: Their bytes.
        overflowed: Frames dropped because too much was under way.
        refused: Frames that the far end did not take.
        max_late_s: The longest that a frame was late.
    """

    frames: int
    bytes: int
    overflowed: int
    refused: int
    max_late_s: float


class Lab:
    """A small internet. Use it as a context manager; or call `start` and `close`.

    Attributes:
        topology: What it is made of at the moment.
        setup_s: How long building took.
    """

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.setup_s = 0.0
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._last_request = 0
        self._lifeline: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._nodes: dict[str, Node] = {}
        self._has_ipv6 = os.path.isdir("/proc/sys/net/ipv6")

    def __enter__(self) -> "Lab":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Builds the topology.

        Raises:
            LabUnavailable: This machine does not allow it; the text says how to allow it.
            LabError: A step failed.
        """
        began = time.monotonic()
        try:
            self._start_supervisor()
            for name in self.topology.nodes():
                _, (holder,) = self._request({"request": "node", "name": name, "files": self._files(name)})
                self._nodes[name] = Node(self._request, name, outer_pid(holder))
                os.close(holder)
            self.apply(plan.plan(self.topology, ipv6=self._has_ipv6))
        except BaseException:
            self.close()
            raise
        self.setup_s = time.monotonic() - began

    def close(self) -> None:
        """Stops every program, then takes everything down. Afterwards no process of the lab exists."""
        control, self._control = self._control, None
        lifeline, self._lifeline = self._lifeline, None
        guard, self._guard = self._guard, None
        if control is not None:
            control.close()
        if lifeline is not None:
            os.close(lifeline)
        if guard is not None:
            guard.wait(CLOSE_TIMEOUT_S)

    def node(self, name: str) -> "Node":
        """A host, a site's router, or `wan`, by name.

        Raises:
            LabError: There is none.
        """
        try:
            return self._nodes[name]
        except KeyError:
            raise LabError(f"there is no node {name!r}; there are {', '.join(self._nodes)}") from None

    @property
    def nodes(self) -> Mapping[str, "Node"]:
        """Every node by name."""
        return self._nodes

    @property
    def wan(self) -> "Node":
        """The router in the middle; it has one interface for each node on the wan, with that node's name."""
        return self.node("wan")

    def apply(self, operations: Sequence[Message]) -> None:
        """Carries out operations of `wardgate.lab.operations`, in order.

        Raises:
            LabError: One failed; those before it are done, those after it are not.
        """
        for start in range(0, len(operations), OPERATIONS_PER_REQUEST):
            batch = operations[start : start + OPERATIONS_PER_REQUEST]
            self._request({"request": "apply", "operations": list(batch)})

    def set_link(self, name: str, link: Link) -> None:
        """Changes a wire while it is in use; loss of 1 cuts it.

        Args:
            name: A host, for its wire; the router at a site's edge (`client-nat`), for the site's wire to the wan.
            link: What the wire is from now on. Only a wire that was built with a delay can have another one.

        Raises:
            LabError: There is no such wire, or the delay cannot be changed.
        """
        near, far = plan.wire_ends(self.topology, name)
        changed, before = _with_link(self.topology, name, link)
        if before.delay_ms != link.delay_ms:
            if before.delay_ms == 0 or link.delay_ms == 0:
                raise LabError("a wire that was built without a delay cannot get one, nor can one lose it")
            self.apply([operations.delay(*near, link.delay_ms)])
        self.apply([operation for end in (near, far) for operation in operations.end_properties(*end, before, link)])
        self.topology = changed

    def link_counters(self, name: str) -> tuple[LinkCounters, LinkCounters]:
        """What a wire with a delay has carried: away from the named host or router, and towards it.

        Raises:
            LabError: There is no such wire, or it has no delay.
        """
        (node, interface), _ = plan.wire_ends(self.topology, name)
        reply, _ = self._request({"request": "counters", "node": node, "interface": interface})
        away, towards = reply["counters"]
        return LinkCounters(*away), LinkCounters(*towards)

    def set_nat(self, site_name: str, nat: Nat) -> None:
        """Makes a site's router another kind of NAT; it forgets its mappings, as after a restart.

        Raises:
            LabError: It would take another number of routers, or other addresses.
        """
        site = self.topology.site(site_name)
        for kind in (NatKind.CARRIER_GRADE, NatKind.NONE):
            if (site.nat.kind is kind) != (nat.kind is kind):
                raise LabError(f"a running site cannot change from {site.nat.kind} to {nat.kind}")
        changed = replace(site, nat=nat)
        self.apply(plan.new_nat_rules(changed))
        self.topology = self.topology.with_site(changed)

    def set_public_address(self, site_name: str, ipv4: IPv4Address, ipv6: IPv6Address | None = None) -> None:
        """Gives a site another address on the wan, as a provider may at any time; hosts inside are not told."""
        before = self.topology.site(site_name)
        after = replace(before, public_ipv4=ipv4, public_ipv6=ipv6 or before.public_ipv6)
        changed = self.topology.with_site(after)
        self.apply(plan.new_public_address(changed, before, after, self._has_ipv6))
        self.topology = changed

    def move_host(self, name: str, site_name: str | None, ipv4: IPv4Address, ipv6: IPv6Address | None = None) -> None:
        """Unplugs a host and plugs it in elsewhere, with other addresses: roaming.

        Args:
            name: The host; its programs keep running and lose the interface for a moment.
            site_name: Where it goes; `None` is the wan.
            ipv4: Its address there.
            ipv6: The same for IPv6; `None` for none.
        """
        before, _ = self.topology.host(name)
        near, _ = plan.wire_ends(self.topology, name)
        after = replace(before, ipv4=ipv4, ipv6=ipv6)
        changed = self.topology.with_host(after, site_name)
        made = [operations.delete_link(*near)]
        if site_name is None:
            made += plan.wan_host(changed, after, self._has_ipv6)
        else:
            made += plan.site_host(changed.site(site_name), after, self._has_ipv6)
        self.apply(made)
        self.topology = changed

    def _request(self, request: Message, descriptors: Sequence[int] = ()) -> tuple[Message, list[int]]:
        with self._lock:
            if self._control is None:
                raise LabError("the lab is not running")
            self._last_request += 1
            try:
                messages.send(self._control, {**request, "number": self._last_request}, descriptors)
                received = self._receive_reply(self._control, self._last_request)
            except OSError as error:
                raise LabError(f"the lab's supervisor does not answer: {error}") from error
        if received is None:
            raise LabError("the lab's supervisor has ended")
        if "error" in received[0]:
            raise LabError(received[0]["error"])
        return received

    @staticmethod
    def _receive_reply(control: socket.socket, number: int) -> tuple[Message, list[int]] | None:
        """The reply to that request. An earlier one may still be there, if an exception cut its request short."""
        while (received := messages.receive(control)) is not None and received[0].get("number") != number:
            for descriptor in received[1]:
                os.close(descriptor)
        return received

    def _start_supervisor(self) -> None:
        if self._control is not None:
            raise LabError("the lab is already running")
        ours, theirs = messages.pair()
        lifeline_read, self._lifeline = os.pipe2(os.O_CLOEXEC)
        inherited = (theirs.fileno(), lifeline_read)
        argv = [sys.executable, "-m", "wardgate.lab.supervisor", *(str(number) for number in inherited)]
        self._control = ours
        self._guard = subprocess.Popen(
            argv,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            env=environment(None),
        )
        theirs.close()
        os.close(lifeline_read)
        ours.settimeout(READY_TIMEOUT_S)
        try:
            received = messages.receive(ours)
        except TimeoutError as error:
            raise LabError("the lab's supervisor did not start") from error
        ours.settimeout(None)
        if received is None:
            raise LabError("the lab's supervisor ended at once")
        if "refused" in received[0]:
            raise LabUnavailable(_explain(received[0]["refused"]))

    def _files(self, name: str) -> dict[str, str]:
        host = next((host for host in self._all_hosts() if host.name == name), None)
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"127.0.1.1 {name}"]
        for known in self.topology.hosts:
            if known.name != name:
                lines += [f"{address} {known.name}" for address in (known.ipv4, known.ipv6) if address is not None]
        extra = (*self.topology.names, *(host.names if host else ()))
        lines += [f"{address} {known_name}" for known_name, address in extra]
        resolvers = (host.resolvers if host else ()) or self.topology.resolvers
        resolv = "".join(f"nameserver {address}\n" for address in resolvers)
        return {"hosts": "\n".join(lines) + "\n", "resolv.conf": resolv}

    def _all_hosts(self) -> Iterator[Host]:
        yield from self.topology.hosts
        for site in self.topology.sites:
            yield from site.hosts


def _with_link(topology: Topology, name: str, link: Link) -> tuple[Topology, Link]:
    for site in topology.sites:
        if site.edge == name:
            return topology.with_site(replace(site, link=link)), site.link
    host, at = topology.host(name)
    return topology.with_host(replace(host, link=link), None if at is None else at.name), host.link


def _explain(refusal: str) -> str:
    return (
        f"this machine does not let us make network namespaces ({refusal}). Run as root; or allow unprivileged user "
        "namespaces (sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu "
        "kernel.apparmor_restrict_unprivileged_userns=0); or give the container CAP_SYS_ADMIN"
    )
