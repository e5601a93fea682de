"""A small internet in network namespaces: NATs, latency, loss.

`docs/lab.md` is the manual. Everything that callers need is here; the modules below are its parts.
"""

from wardgate.lab import topologies
from wardgate.lab.lab import Lab, LinkCounters
from wardgate.lab.node import Node
from wardgate.lab.process import Completed, Process, wait_until
from wardgate.lab.recording import Capture, capture
from wardgate.lab.topology import Host, Link, Nat, NatKind, Site, Topology

__all__ = [
    "Capture",
    "Completed",
    "Host",
    "Lab",
    "Link",
    "LinkCounters",
    "Nat",
    "NatKind",
    "Node",
    "Process",
    "Site",
    "Topology",
    "capture",
    "topologies",
    "wait_until",
]
