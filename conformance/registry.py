"""Requirements: what an RFC asks for, and the function that finds out whether a server does it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.lab import Lab

LEVELS = ("MUST", "SHOULD", "MAY")


class Failed(Exception):
    """The server does something else; the text says what was sent and what came."""


class NotApplicable(Exception):
    """The requirement does not concern this server; the text says why."""


class NotTested(Exception):
    """The suite was not given what it needs; the text says what."""


Check = Callable[["Lab"], None]


@dataclass(frozen=True)
class Requirement:
    """One row of the table.

    Attributes:
        id: RFC, section, and a number within it: `8656-7.2-05`. It never changes its meaning.
        over: `udp` or `stream` where the rule holds for that kind of transport alone.
        turn: Whether it needs a TURN server that accepts our credentials.
    """

    id: str
    level: str
    text: str
    check: Check
    over: str = ""
    slow: bool = False
    turn: bool = True

    @property
    def rfc(self) -> str:
        return self.id.split("-")[0]

    @property
    def section(self) -> str:
        return self.id.split("-")[1]

    @property
    def order(self) -> tuple[str, tuple[int, ...], int]:
        rfc, section, number = self.id.split("-")
        return rfc, tuple(int(part) for part in section.split(".")), int(number)


_requirements: dict[str, Requirement] = {}


def requirement(
    id_: str, level: str, text: str, *, over: str = "", slow: bool = False, turn: bool = True
) -> Callable[[Check], Check]:
    """Registers a check.

    The function returns if the server conforms, and else raises `Failed`, `NotApplicable` or `NotTested`.
    """
    assert re.fullmatch(r"\d{4}-\d+(\.\d+)*-\d\d", id_), id_
    assert level in LEVELS, level
    assert id_ not in _requirements, f"{id_} is there twice"

    def register(check: Check) -> Check:
        _requirements[id_] = Requirement(id_, level, text, check, over, slow, turn)
        return check

    return register


def all_requirements() -> list[Requirement]:
    """Everything there is, in the order of the RFCs."""
    import conformance.requirements  # noqa: F401 - its modules register themselves

    return sorted(_requirements.values(), key=lambda each: each.order)
