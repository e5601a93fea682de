"""What every contender is to the benchmark."""

from collections.abc import Mapping
from typing import Protocol

from bench.place import Place
from wardgate.lab.node import Node
from wardgate.lab.process import Process


class Contender(Protocol):
    """A way from the client to the app, in one place."""

    def start(self, place: Place) -> None:
        """Starts its programs and returns once the app can be reached through it.

        Raises:
            LabError: It cannot.
        """

    def target(self) -> str:
        """The address at which the client finds the app through it."""

    def processes(self) -> Mapping[str, Process]:
        """Its running programs, by the role they have; what they use is its cost."""

    def facts(self) -> Mapping[str, str]:
        """What to know of this run: cipher, path, offloads that are active."""


def tun_of(node: Node, interface: str) -> str:
    """Whether a TUN device gives and takes super-packets."""
    shown = node.run(["ip", "-d", "link", "show", interface]).check().stdout
    return "super-packets" if "vnet_hdr on" in shown else "single packets"
