"""Candidates on their way to the portal: held back while it is away, then sent in one batch for each peer.

An addition that a later removal cancels is never sent.
"""

from dataclasses import dataclass, field
from typing import Final

MAX_PEERS: Final = 16_384
MAX_HELD: Final = 256


@dataclass(slots=True)
class _Held:
    added: dict[str, None] = field(default_factory=dict)
    removed: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CandidateBatch:
    """What to tell a peer: the removed first, then the added."""

    peer_id: str
    added: tuple[str, ...]
    removed: tuple[str, ...]


class CandidateHold:
    """Additions and removals by peer."""

    def __init__(self) -> None:
        self._by_peer: dict[str, _Held] = {}
        self.refused = 0

    def add(self, peer_id: str, lines: tuple[str, ...]) -> None:
        """These candidates are new."""
        held = self._held(peer_id)
        for line in lines:
            held.removed.pop(line, None)
            self._keep(held.added, line)

    def remove(self, peer_id: str, lines: tuple[str, ...]) -> None:
        """These candidates are gone."""
        held = self._held(peer_id)
        for line in lines:
            if line in held.added:
                del held.added[line]
            else:
                self._keep(held.removed, line)

    def forget(self, peer_id: str) -> None:
        """The peer needs none any more."""
        self._by_peer.pop(peer_id, None)

    def take(self) -> list[CandidateBatch]:
        """Gives everything, in order of peers, and holds nothing."""
        batches = [
            CandidateBatch(peer_id, tuple(held.added), tuple(held.removed))
            for peer_id, held in sorted(self._by_peer.items())
            if held.added or held.removed
        ]
        self._by_peer.clear()
        return batches

    def _held(self, peer_id: str) -> _Held:
        if peer_id not in self._by_peer and len(self._by_peer) >= MAX_PEERS:
            self.refused += 1
            return _Held()
        return self._by_peer.setdefault(peer_id, _Held())

    def _keep(self, lines: dict[str, None], line: str) -> None:
        if len(lines) >= MAX_HELD and line not in lines:
            self.refused += 1
            return
        lines[line] = None
