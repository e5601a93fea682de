"""Nested figures as Prometheus text: every part counts in plain dictionaries, and nothing is registered."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from wardgate import __version__

_UNSAFE = re.compile(r"[^a-zA-Z0-9_]")


def render(component: str, figures: Mapping[str, Any]) -> bytes:
    """The text of `/metrics`: each number becomes `wardgate_<component>_<path>`; texts and lists are left out."""
    lines = [f'wardgate_build_info{{component="{component}",version="{__version__}"}} 1']
    for name, value in sorted(_numbers(f"wardgate_{component}", figures)):
        lines += [f"# TYPE {name} untyped", f"{name} {value!r}"]
    return ("\n".join(lines) + "\n").encode()


def _numbers(prefix: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    for key, value in figures.items():
        name = f"{prefix}_{_UNSAFE.sub('_', str(key))}"
        if isinstance(value, bool):
            yield name, int(value)
        elif isinstance(value, int | float):
            yield name, value
        elif isinstance(value, Mapping):
            yield from _numbers(name, value)
