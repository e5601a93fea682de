"""Ids and sequence numbers of log rows.

An id is 24 lower-case hex characters, of which the first names the stream. Those of changes are made of a seed in
microseconds (13) and a counter (10), so that within an account they sort in the order of the commits; the others are
random. A sequence number is what sinks follow: microseconds since 1970 times 1024 and a counter, 63 bits until 2255.
Source: portal-domain-3 sections B1 and B6.
"""

import re
from datetime import UTC, datetime
from typing import Final, Literal

Stream = Literal["change", "session", "flow", "api_request"]
STREAMS: Final[tuple[Stream, ...]] = ("change", "session", "flow", "api_request")
_NIBBLES: Final[dict[Stream, str]] = {"change": "c", "session": "5", "api_request": "a", "flow": "f"}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PER_MICROSECOND: Final = 1024
_SHAPE: Final = re.compile(r"[0-9a-f]{24}", re.ASCII)


def change_id(seed: int, counter: int) -> str:
    """The id of a change: of the commit's seed, and of its place in the commit."""
    return f"c{seed % 2**52:013x}{counter % 2**40:010x}"


def seed_of(change_log_id: str) -> int:
    """The seed that a change's id was made with."""
    return int(change_log_id[1:14], 16)


def random_id(stream: Stream, entropy: bytes) -> str:
    """An id without order, of 12 random bytes."""
    return _NIBBLES[stream] + entropy.hex()[1:24]


def stream_of(log_id: str) -> Stream | None:
    """The stream that an id in lower case belongs to, if it is one."""
    if not _SHAPE.fullmatch(log_id):
        return None
    return next((stream for stream, nibble in _NIBBLES.items() if nibble == log_id[0]), None)


def microseconds(at: datetime) -> int:
    """Whole microseconds since 1970, exactly."""
    passed = at - _EPOCH
    return (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds


def seq_at(at: datetime) -> int:
    """The lowest sequence number of an instant."""
    return microseconds(at) * _PER_MICROSECOND


class Sequencer:
    """Gives a process's sequence numbers, each above the one before, also when the clock steps back.

    Two processes may give the same number; whoever reads by them takes all rows of a number at once.
    """

    def __init__(self) -> None:
        self._last = 0

    def next(self, at: datetime) -> int:
        """The number of a row that is written at an instant."""
        self._last = max(seq_at(at), self._last + 1)
        return self._last
