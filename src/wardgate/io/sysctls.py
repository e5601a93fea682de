"""Kernel settings that a program changes while it runs.

What they were is written down before they are changed, so that the run after one that was killed can put them back: it
does so for those that are still as the killed one left them.
"""

import json
import os
from pathlib import Path
from typing import Final

import structlog

PROC: Final = Path("/proc/sys")
MAX_RECORD_BYTES: Final = 65536

log = structlog.get_logger("io.sysctls")


class Sysctls:
    """The settings that one program changed.

    Args:
        record: The file that outlives the program; none is written without it.
        root: Where the kernel has its settings.
    """

    def __init__(self, record: Path | None = None, root: Path = PROC) -> None:
        self.root = root
        self._record = record
        self._before: dict[str, str] = {}
        self._ours: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """A setting; `None` if the host has none such, as one without IPv6."""
        try:
            return (self.root / name).read_text().strip()
        except OSError:
            return None

    def set(self, name: str, value: str) -> bool:
        """Changes a setting; whether it is so now."""
        before = self.get(name)
        if before is None or before == value:
            return before == value
        self._before.setdefault(name, before)
        self._ours[name] = value
        self._save()
        return self._write(name, value)

    def take_over(self) -> None:
        """Remembers what a killed run changed, as if this one had."""
        for name, (before, ours) in self._load().items():
            if self.get(name) == ours:
                self._before.setdefault(name, before)
                self._ours.setdefault(name, ours)

    def restore(self) -> None:
        """Puts everything back that is still as we left it."""
        for name, before in reversed(self._before.items()):
            if self.get(name) == self._ours[name]:
                self._write(name, before)
        self._before.clear()
        self._ours.clear()
        self._save()

    def _write(self, name: str, value: str) -> bool:
        try:
            (self.root / name).write_text(value)
        except FileNotFoundError:
            return False  # of an interface that is gone by now
        except OSError as error:
            log.warning("a kernel setting could not be changed", setting=name, value=value, error=error.strerror)
            return False
        return True

    def _load(self) -> dict[str, tuple[str, str]]:
        if self._record is None:
            return {}
        try:
            with self._record.open("rb") as file:
                data = json.loads(file.read(MAX_RECORD_BYTES))
            return {
                name: (before, ours)
                for name, (before, ours) in data.items()
                if name.startswith("net/") and ".." not in name and isinstance(before, str) and isinstance(ours, str)
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            log.warning("what a killed run changed is not known", record=str(self._record), error=str(error))
            return {}

    def _save(self) -> None:
        if self._record is None:
            return
        try:
            if not self._before:
                self._record.unlink(missing_ok=True)
                return
            self._record.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._record.with_name(self._record.name + ".new")
            temporary.write_text(json.dumps({name: (self._before[name], self._ours[name]) for name in self._before}))
            os.replace(temporary, self._record)
        except OSError as error:
            log.debug("kernel settings are not kept for a next run", record=str(self._record), error=str(error))
