"""The latest versions of the programs, and who is behind.

Source: portal-domain section 8.5. A version that is not known counts as 0.0.0: nothing is behind it.
"""

from collections.abc import Mapping
from typing import Final

from wardgate.portal.domain import versions

COMPONENTS: Final = ("apple", "android", "gateway", "gui", "headless")


def parse_latest(text: str) -> dict[str, str]:
    """`gateway=1.5.3,gui=1.5.14` as a mapping.

    Raises:
        ValueError: A component is unknown, or a version has not three numbers.
    """
    latest: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, _, version = (one.strip() for one in part.partition("="))
        if name not in COMPONENTS or versions.parse(version) is None:
            raise ValueError(f"must be component=version, such as gateway=1.5.3, of {', '.join(COMPONENTS)}")
        latest[name] = version
    return latest


def of_client(user_agent: str, actor_type: str) -> str:
    """Which component a client is; a service account's counts as headless."""
    return "headless" if actor_type == "service_account" else versions.family(user_agent)


def is_outdated(component: str, version: str | None, latest: Mapping[str, str]) -> bool:
    """Whether a program is older than the latest of its kind; one that says no version is not known to be."""
    newest, own = versions.parse(latest.get(component)), versions.parse(version)
    return newest is not None and own is not None and own < newest
