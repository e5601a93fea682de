"""The bars that other programs of this directory measure, for the table of a whole benchmark."""

import json
import subprocess
import sys

from bench.bars import RESULTS, Bar
from bench.ratio_bars import read_bars
from wardgate.errors import WardgateError

OTHERS = ("flows", "memory")
"""Each is `python -m bench.NAME`, and leaves `results/NAME.json`."""


class OtherFailed(WardgateError):
    """Another benchmark did not come to its end, or left nothing that can be read."""


def run_other(name: str) -> list[Bar]:
    """Runs another benchmark, whose words go to standard error, and gives its bars.

    Raises:
        OtherFailed: There are none.
    """
    done = subprocess.run([sys.executable, "-m", f"bench.{name}"], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise OtherFailed(f"bench.{name} ended with {done.returncode}")
    try:
        return read_bars(json.loads((RESULTS / f"{name}.json").read_text()))
    except (OSError, ValueError) as error:
        raise OtherFailed(f"bench.{name}: {error}") from error
