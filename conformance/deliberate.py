"""What our relay breaks on purpose, and why: the comparison fails when it breaks anything else, or fewer of these."""

from collections.abc import Sequence
from typing import Final

from conformance.runner import Result, Status

DELIBERATE: Final = {
    "8489-6.3.1.1-02": "what strangers get names no software",
    "8656-12.2-04": "coturn's client and Firezone's programs of before RFC 8656 bind channels above 0x4FFF",
}


def surprises(results: Sequence[Result]) -> list[str]:
    """A line for each MUST that is broken without being listed here, and for each one listed that is not broken."""
    found = []
    for result in results:
        id_ = result.requirement.id
        if result.is_broken_must and id_ not in DELIBERATE:
            found.append(f"{id_} fails, and not on purpose: {result.detail}")
        elif id_ in DELIBERATE and result.status == Status.PASS:
            found.append(f"{id_} passes: it is broken on purpose no more ({DELIBERATE[id_]})")
    return found
