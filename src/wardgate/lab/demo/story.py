"""How the demo speaks: numbered steps in plain sentences, each with a tick and the time it took."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from wardgate.lab.process import Process

LOG_LINES = 12
NOBODY: Mapping[str, Process] = {}


class StepFailed(Exception):
    """A step of the story did not come true.

    Attributes:
        number: The step's number, as in the story.
    """

    def __init__(self, number: str, text: str, cause: BaseException) -> None:
        super().__init__(f"{number} {text}: {cause}")
        self.number = number


class Story:
    """Prints the story as it happens."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._colour = sys.stdout.isatty()

    def chapter(self, text: str) -> None:
        """A heading."""
        print(f"\n{self._paint(text, '1')}", flush=True)

    @contextmanager
    def step(self, number: str, text: str, concerned: Mapping[str, Process] = NOBODY) -> Iterator[None]:
        """Tells one step when it is done, or shows what its processes last said.

        Args:
            concerned: Whose logs are shown if the step fails, by name; may grow while the step runs.

        Raises:
            StepFailed: Something in it went wrong.
        """
        began = time.monotonic()
        try:
            yield
        except Exception as error:
            print(f"  {self._paint('✗', '31;1')} {number:<3} {text}\n      {error}", flush=True)
            for name, process in concerned.items():
                self._show_log(name, process)
            raise StepFailed(number, text, error) from error
        print(f"  {self._paint('✓', '32;1')} {number:<3} {text}  ({time.monotonic() - began:.1f} s)", flush=True)

    def say(self, text: str) -> None:
        """A detail of the step that comes next or was just told."""
        for line in text.splitlines():
            print(f"        {self._paint(line, '2')}", flush=True)

    def elapsed_s(self) -> float:
        """How long the story has taken so far."""
        return time.monotonic() - self._began

    def _show_log(self, name: str, process: Process) -> None:
        state = "runs" if process.running else f"ended with {process.returncode}"
        print(f"      --- last lines of {name} on {process.node} ({state}):", flush=True)
        for line in process.log(LOG_LINES).splitlines():
            print(f"      {line}")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text
