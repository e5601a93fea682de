"""What crosses the client's wire, for the record.

Packets that are larger than the wire's MTU on the average are super-packets: the offloads of a contender are at work.
"""

from dataclasses import dataclass
from pathlib import Path

from bench.place import Place

INTERFACE = "eth0"
FEW_PACKETS = 500
"""Of fewer, the mean size says nothing."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What an interface has carried since it exists, super-packets counted once."""

    received_bytes: int = 0
    received_packets: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0

    def figures_since(self, earlier: "Carried", lasted_s: float) -> dict[str, float]:
        """The rate and the mean size of what was received and sent after an earlier reading, by name."""
        made = {}
        for name in ("received", "sent"):
            packets = getattr(self, f"{name}_packets") - getattr(earlier, f"{name}_packets")
            size = getattr(self, f"{name}_bytes") - getattr(earlier, f"{name}_bytes")
            made[f"wire_{name}_gbit_per_s"] = size * 8 / lasted_s / 1e9
            if packets >= FEW_PACKETS:
                made[f"wire_{name}_bytes_per_packet"] = size / packets
        return made


def carried(place: Place) -> Carried:
    """What the client's wire has carried so far."""
    return read_interface(Path(f"/proc/{place.client.holder_pid}/net/dev").read_text(), INTERFACE)


def read_interface(text: str, interface: str) -> Carried:
    """The counters of an interface in the text of `/proc/net/dev`; all zero if it is not there."""
    for line in text.splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == interface:
            fields = [int(word) for word in numbers.split()]
            return Carried(fields[0], fields[1], fields[8], fields[9])
    return Carried()
