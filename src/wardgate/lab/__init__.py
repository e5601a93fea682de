"""A small internet in network namespaces: NATs, latency, loss.

`docs/lab.md` is the manual. Everything that callers need is here; the modules below are its parts.
"""

from wardgate.lab import topologies
from wardgate.lab.lab import Lab, Node
from wardgate.lab.process import Completed, Process, wait_until
from wardgate.lab.topology import Host, Link, Nat, NatKind, Site, Topology

__all__ = [
    "Completed",
    "Host",
    "Lab",
    "Link",
    "Nat",
    "NatKind",
    "Node",
    "Process",
    "Site",
    "Topology",
    "topologies",
    "wait_until",
]
