"""What every contender is to the benchmark."""

from collections.abc import Mapping
from typing import Protocol

from wardgate.lab.process import Process

from bench.place import Place


class Contender(Protocol):
    """A way from the client to the app.

    Attributes:
        name: What it is called at the command line and in results.
    """

    name: str

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
        """What to know of this run: version, cipher, offloads that are active."""
