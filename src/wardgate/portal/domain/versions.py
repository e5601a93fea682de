"""Versions of programs, and which of them understand what.

Source: portal-protocol sections 1.1 and 8. Versions are compared as numbers, so 1.10 follows 1.9.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

_COMPONENTS: Final = (
    "gui-client/",
    "headless-client/",
    "apple-client/",
    "android-client/",
    "gateway/",
    "relay/",
    "connlib/",
)
_VERSION: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?:[-+].*)?", re.ASCII)
_MAX_TEXT: Final = 255
_INTERNET_SINCE: Final = (1, 3, 0)
_WILDCARDS_SINCE: Final = (1, 2, 0)
_SITES_SINCE: Final = {"apple": (1, 5, 11), "headless": (1, 5, 6), "android": (1, 5, 8), "gui": (1, 5, 10)}
_POOLS_SINCE: Final = {"apple": (1, 5, 16), "gui": (1, 5, 13), "headless": (1, 5, 9), "android": (1, 5, 11)}
_TARGET_SINCE: Final = {"apple": (1, 5, 14), "gui": (1, 5, 11), "headless": (1, 5, 7), "android": (1, 5, 9)}
_SITE_CHANGE_SINCE: Final = {"apple": (1, 5, 9), "gui": (1, 5, 9), "headless": (1, 5, 5), "android": (1, 5, 5)}


class Version(NamedTuple):
    """Three numbers."""

    major: int
    minor: int
    patch: int


def parse(text: str | None) -> Version | None:
    """The numbers of `1.5.12`; a suffix after a hyphen or plus is left out."""
    match = _VERSION.fullmatch(text or "")
    return Version(*(int(part) for part in match.groups())) if match else None


def of_user_agent(user_agent: str) -> str | None:
    """The version that follows the first component name in a user agent."""
    for word in user_agent.split(" "):
        for component in _COMPONENTS:
            if word.startswith(component):
                return word.removeprefix(component)[:_MAX_TEXT] or None
    return None


def family(user_agent: str) -> str:
    """headless, gui, apple or android."""
    for name in ("headless", "gui", "apple", "android"):
        if f"{name}-client/" in user_agent:
            return name
    if user_agent.startswith(("Mac OS", "macOS", "iOS")):
        return "apple"
    return "android" if user_agent.startswith("Android") else "gui"


class Sight(NamedTuple):
    """What decides how a client sees resources: two programs that agree in it are told the same."""

    has_pools: bool
    has_internet: bool
    has_new_wildcards: bool


@lru_cache(maxsize=1000)
def sight_of(user_agent: str, version: str | None) -> Sight:
    """How a program sees resources."""
    return Sight(has_pools(user_agent, version), has_internet(version), has_new_wildcards(version))


class OperatingSystem(NamedTuple):
    """Name and version, as a user agent begins."""

    name: str
    version: str | None


def operating_system(user_agent: str) -> OperatingSystem:
    """What a gateway is told of a client's system."""
    name, separator, rest = user_agent.partition("/")
    if not separator:
        return OperatingSystem(user_agent, None)
    return OperatingSystem(name, rest.partition(" ")[0] or None)


def is_compatible(client: str | None, gateway: str | None) -> bool:
    """Whether a gateway's minor version is at most one away from the client's."""
    gateway_version = parse(gateway)
    if gateway_version is None:
        return False
    if client is None:
        return True
    client_version = parse(client)
    if client_version is None or client_version.major != gateway_version.major:
        return False
    return abs(gateway_version.minor - client_version.minor) <= 1


def has_internet(version: str | None) -> bool:
    """Whether this program knows the internet resource."""
    parsed = parse(version)
    return parsed is None or parsed >= _INTERNET_SINCE


def has_new_wildcards(version: str | None) -> bool:
    """Whether this program reads `**`, `*` and `?` as they are written today."""
    parsed = parse(version)
    return parsed is None or parsed >= _WILDCARDS_SINCE


def reads_sites(user_agent: str, version: str | None) -> bool:
    """Whether this client reads `sites`; older ones, and unknown ones, read `gateway_groups`."""
    return _is_since(_SITES_SINCE, user_agent, version)


def has_pools(user_agent: str, version: str | None) -> bool:
    """Whether this client knows device pools."""
    return _is_since(_POOLS_SINCE, user_agent, version)


def takes_site_change(user_agent: str, version: str | None) -> bool:
    """Whether an update alone moves a resource to another site at this client."""
    return _is_since(_SITE_CHANGE_SINCE, user_agent, version)


def is_pool_target(user_agent: str, version: str | None, initiator_version: str | None) -> bool:
    """Whether this client may be reached by another one of that version."""
    target, initiator = parse(version), parse(initiator_version)
    if target is None or initiator is None or target[:2] != initiator[:2]:
        return False
    return _is_since(_TARGET_SINCE, user_agent, version)


def _is_since(table: dict[str, tuple[int, int, int]], user_agent: str, version: str | None) -> bool:
    parsed = parse(version)
    return parsed is not None and parsed >= table[family(user_agent)]
