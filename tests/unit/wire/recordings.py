"""The recorded conversations of real programs, as values."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from wardgate.wire.portal import ApiVersion, Frame

DIRECTORY = Path(__file__).parents[2] / "vectors" / "portal"
RECORDINGS = sorted(path.name for path in DIRECTORY.glob("*.jsonl"))


@dataclass(frozen=True)
class Recorded:
    """One line of a recording; `frame` is `None` on a connect."""

    who: str
    direction: str
    frame: Frame | None
    path: str = ""
    query: tuple[tuple[str, str], ...] = ()
    user_agent: str = ""


def version_of(name: str) -> ApiVersion:
    return ApiVersion.V1 if "-v1-" in name else ApiVersion.V2


def read(name: str) -> list[Recorded]:
    """All lines of one recording."""
    return list(_lines(name))


def _lines(name: str) -> Iterator[Recorded]:
    for line in (DIRECTORY / name).read_text().splitlines():
        data: dict[str, Any] = json.loads(line)
        if data["frame"] is None:
            url = urlsplit(data["path"])
            query = tuple(parse_qsl(url.query))
            yield Recorded(data["who"], data["dir"], None, url.path, query, data["headers"]["user-agent"])
        else:
            yield Recorded(data["who"], data["dir"], Frame(**data["frame"]))


def frames(name: str, who: str, direction: str) -> list[Frame]:
    """The frames of one direction of one component."""
    return [one.frame for one in read(name) if one.frame and (one.who, one.direction) == (who, direction)]


def public_key(name: str, who: str) -> str:
    """The WireGuard key that a component connected with."""
    connect = next(one for one in read(name) if one.who == who and one.frame is None)
    return dict(connect.query)["public_key"]
