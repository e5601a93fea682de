"""The command line of the tunnel benchmark."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cast import ENTRIES, QUICK_CONTENDERS
from bench.rows import QUICK_ROWS, ROWS

MAX_ROUNDS = 100
LEAST_SECONDS, MOST_SECONDS = 1.0, 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    Attributes:
        rounds: How often everybody does every row.
        seconds: How long each bulk sample lasts after its warm-up.
        rows: Their names, in the order of the rows.
        contenders: Their names, in the order of the tables.
        as_json: Whether the result goes to standard output as JSON, and progress elsewhere.
    """

    rounds: int
    seconds: float
    rows: tuple[str, ...]
    contenders: tuple[str, ...]
    as_json: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return len(self.rows) == len(ROWS) and len(self.contenders) == len(ENTRIES)


def parse(arguments: Sequence[str] | None = None, prog: str | None = None) -> Options:
    """Reads the command line; ends the program with an explanation if it is wrong."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Compares tunnels in the lab; bench/README.md has the method."
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="how often everybody does every row (5; quick: 3)")
    parser.add_argument("--seconds", type=_seconds, metavar="S", help="length of a bulk sample (4; quick: 1)")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), metavar="ROW", help=f"rows: {', '.join(ROWS)}")
    names = list(ENTRIES)
    parser.add_argument("--contenders", nargs="+", choices=names, metavar="NAME", help=f"who: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="the main rows and contenders in about three minutes")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and progress on standard error")
    given = parser.parse_args(arguments)
    rows = given.only or (QUICK_ROWS if given.quick else list(ROWS))
    contenders = given.contenders or (QUICK_CONTENDERS if given.quick else names)
    return Options(
        rounds=given.rounds or (3 if given.quick else 5),
        seconds=given.seconds or (1.0 if given.quick else 4.0),
        rows=tuple(name for name in ROWS if name in rows),
        contenders=tuple(name for name in names if name in contenders),
        as_json=given.json,
    )


def _rounds(text: str) -> int:
    return int(_number(text, 1, MAX_ROUNDS, whole=True))


def _seconds(text: str) -> float:
    return _number(text, LEAST_SECONDS, MOST_SECONDS, whole=False)


def _number(text: str, least: float, most: float, *, whole: bool) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if whole else ''}number") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is outside {least:g} to {most:g}")
    return value
