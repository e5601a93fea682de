"""The name patterns of DNS resources: which names they cover, and which of two is the more specific.

A pattern is a name whose labels may hold wildcards: `?` is one character of a label, `*` any run inside a label, and
`**`, which is a label of its own, any number of labels. A leading `*.` covers the bare parent too. Case does not
matter.
"""

from dataclasses import dataclass
from typing import Final

MAX_PATTERN: Final = 1024
_MAX_NAME: Final = 255
_ANY_LABELS: Final = "**"
_ONE_CHARACTER, _ANY_RUN = 0x110000, 0x110001
_END: Final = 1


@dataclass(frozen=True, slots=True)
class DomainPattern:
    """A pattern that was found to be valid.

    Attributes:
        text: As it was given.
        rank: Of two patterns that cover a name, the one with the greater rank is more specific: compared from the
            right, a literal comes before `?` and `?` before `*`, and a shorter pattern before what it ends.
    """

    text: str
    labels: tuple[str, ...]
    rank: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "DomainPattern | None":
        """Reads a pattern; `None` if it is none: an empty label, or `**` together with anything else in a label."""
        if len(text) > MAX_PATTERN:
            return None
        labels = tuple(text.lower().removesuffix(".").split("."))
        if any(not label or (_ANY_LABELS in label and label != _ANY_LABELS) for label in labels):
            return None
        return cls(text, labels, _rank(".".join(labels)))

    def matches(self, name: str) -> bool:
        """Whether the pattern covers a name (with or without the trailing dot)."""
        if len(name) > _MAX_NAME + 1:
            return False
        labels = tuple(name.lower().removesuffix(".").split("."))
        if "" in labels:
            return False
        if self.labels[0] == "*" and len(self.labels) > 1 and _match_labels(self.labels[1:], labels):
            return True
        return _match_labels(self.labels, labels)


def _match_labels(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Walks the pattern and keeps every number of labels of the name that its start can cover."""
    reached = {0}
    for label in pattern:
        if label == _ANY_LABELS:
            reached = set(range(min(reached), len(name) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(name) and _match_label(label, name[at])}
        if not reached:
            return False
    return len(name) in reached


def _match_label(pattern: str, label: str) -> bool:
    """Matches without recursion: on a mismatch the last `*` takes one character more."""
    at = position = 0
    star, resume = -1, 0
    while position < len(label):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", label[position]):
            at += 1
            position += 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[at:])


def _rank(text: str) -> tuple[int, ...]:
    def weight(character: str) -> int:
        if character == "*":
            return _ANY_RUN
        return _ONE_CHARACTER if character == "?" else _ONE_CHARACTER - 1 - ord(character)

    return (*(-weight(character) for character in reversed(text)), _END)
