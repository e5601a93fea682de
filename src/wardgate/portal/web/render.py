"""From a template and values to an answer: one environment, one set of words for times and numbers."""

import gettext
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2s
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

STATIC: Final = files("wardgate.portal.web") / "static"
_DAY_S: Final = 86_400
_words = gettext.NullTranslations()


def _asset_versions() -> dict[str, str]:
    """The hash of each file, so that a browser may keep it for ever under its name."""
    names = (
        "app.css",
        "app.js",
        "icons.svg",
        "mark.svg",
        "vendor/htmx.min.js",
        "vendor/sse.min.js",
        "vendor/inter.woff2",
    )
    return {name: blake2s((STATIC / name).read_bytes(), digest_size=6).hexdigest() for name in names}


class Renderer:
    """All templates."""

    def __init__(self) -> None:
        self._versions = _asset_versions()
        self._environment = Environment(
            loader=PackageLoader("wardgate.portal.web"),
            extensions=["jinja2.ext.i18n"],
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.install_gettext_translations(_words, newstyle=True)  # type: ignore[attr-defined]
        self._environment.globals |= {"asset": self.asset, "icon": self.icon}
        self._environment.filters |= {"when": when, "ago": ago, "initials": initials, "count": count}

    def asset(self, name: str) -> str:
        """The path of a file, which changes with its content."""
        return f"/static/{name}?v={self._versions[name]}"

    def icon(self, name: str, kind: str = "") -> Markup:
        """A picture from the sprite, for eyes alone."""
        path = escape(f"{self.asset('icons.svg')}#{name}")
        return Markup(f'<svg class="icon {escape(kind)}" aria-hidden="true"><use href="{path}"/></svg>')

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        """A template filled in."""
        return self._environment.get_template(template).render(values)

    def answer(
        self, template: str, values: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HTMLResponse:
        """A template filled in, as an answer."""
        return HTMLResponse(self.text(template, values), status, dict(headers or {}))


def ago(value: datetime | None, now: datetime) -> Markup:
    """How long ago in words, below a day; then the day and time in UTC. The exact instant is in the element."""
    if value is None:
        return Markup("–")
    seconds = (now - value).total_seconds()
    if seconds < 60:
        words = _words.gettext("now")
    elif seconds < 3600:
        words = _words.gettext("{} min ago").format(int(seconds // 60))
    elif seconds < _DAY_S:
        words = _words.gettext("{} h ago").format(int(seconds // 3600))
    else:
        words = _short(value, now)
    return _time(value, words)


def when(value: datetime | None, now: datetime) -> Markup:
    """A day and time in UTC."""
    return Markup("–") if value is None else _time(value, _short(value, now))


def _short(value: datetime, now: datetime) -> str:
    value = value.astimezone(UTC)
    day = f"{value:%a} {value.day} {value:%b}"
    return f"{day}, {value:%H:%M}" if value.year == now.year else f"{day} {value.year}, {value:%H:%M}"


def _time(value: datetime, words: str) -> Markup:
    exact = value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(exact, words)


def initials(name: str) -> str:
    """One or two letters for a face."""
    parts = [part for part in name.replace("@", " ").split() if part[0].isalnum()]
    return "".join(part[0] for part in (parts[:1] + parts[-1:] if len(parts) > 1 else parts)).upper() or "?"


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"
