"""The program: `python -m conformance`, or `make conformance`."""

import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from conformance import options as command_line
from conformance import preflight, report, runner
from conformance.deliberate import DELIBERATE, surprises
from conformance.lab import Facts, Target, stopping
from conformance.links import Unreachable
from conformance.options import Options
from conformance.registry import Requirement, all_requirements
from conformance.report import Column
from conformance.runner import Result, Status

TCP_IS_SERVED = "8656-5-05"
DEFAULT_REPORT = Path(__file__).parents[1] / "docs" / "conformance.md"


def main(arguments: list[str] | None = None) -> int:
    """Runs the suite and returns the exit status."""
    options = command_line.parse(arguments)
    requirements = options.choose(all_requirements())
    if not requirements:
        print(f"conformance: no requirement matches {', '.join(options.only)}", file=sys.stderr)
        return 2
    if options.list_only:
        print(report.listing(requirements))
        return 0
    try:
        columns, how = _compare(requirements, options) if options.target is None else _one(requirements, options)
    except (Unreachable, preflight.Refused) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("conformance: interrupted", file=sys.stderr)
        return 130
    _write(columns, how, options)
    if options.target is not None:
        return int(any(result.is_broken_must for result in columns[0].results))
    unexpected = surprises(columns[0].results)
    for text in unexpected:
        print(f"conformance: {text}", file=sys.stderr)
    return int(bool(unexpected))


def _end(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _one(requirements: Sequence[Requirement], options: Options) -> tuple[list[Column], str]:
    """The server that was named."""
    assert options.target is not None
    target = options.target
    results = _run(requirements, target, preflight.look(target), options)
    how = f"Made by `python -m conformance` over {target.transport.upper()}."
    return [Column(str(target.server), results)], how


def _compare(requirements: Sequence[Requirement], options: Options) -> tuple[list[Column], str]:
    """Ours and coturn; ours decides on the exit status."""
    from conformance import servers  # needs the tests' folder, which others may not have

    with ExitStack() as stack:
        started = [stack.enter_context(start()) for start in (servers.start_ours, servers.start_coturn)]
        # What waits for minutes waits at both at once; else one after the other, which disturbs nobody.
        with ThreadPoolExecutor(len(started) if options.slow else 1) as pool:
            results = pool.map(lambda one: _over_both(requirements, one.name, one.target, options), started)
            try:
                columns = [Column(one.name, result) for one, result in zip(started, results, strict=True)]
            except BaseException:
                stopping.set()
                raise
    how = (
        "Made by `make conformance`: our relay, and coturn as Debian has it, both on loopback with loopback peers "
        "allowed, over UDP; what concerns streams alone over TCP."
    )
    return columns, how


def _over_both(requirements: Sequence[Requirement], name: str, target: Target, options: Options) -> list[Result]:
    """Everything over UDP, and over TCP what concerns streams alone."""
    print(f"{name}:")
    streams = [each for each in requirements if each.over == "stream"]
    others = [each for each in requirements if each.over != "stream"]
    results = _run(others, target, preflight.look(target), options)
    over_tcp = replace(target, transport="tcp")
    try:
        results += _run(streams, over_tcp, preflight.look(over_tcp), options) if streams else []
    except Unreachable as error:
        print(f"{name}: {error}")
        results += [_without_tcp(each) for each in streams]
    return sorted(results, key=lambda result: result.requirement.order)


def _without_tcp(requirement: Requirement) -> Result:
    """What concerns streams does not concern a server without them, but that it should have them."""
    missed = Status.FAIL if requirement.id == TCP_IS_SERVED else Status.NOT_APPLICABLE
    return Result(requirement, missed, "the server does not take TCP connections")


def _run(requirements: Sequence[Requirement], target: Target, facts: Facts, options: Options) -> list[Result]:
    def say(result: Result) -> None:
        if not options.quiet or result.status == Status.FAIL:
            print(report.line(result), flush=True)

    return runner.run(requirements, target, facts, slow=options.slow, report=say)


def _write(columns: list[Column], how: str, options: Options) -> None:
    is_comparison = options.target is None
    markdown = options.markdown or (DEFAULT_REPORT if is_comparison and options.slow and not options.only else None)
    if markdown is not None:
        markdown.write_text(report.markdown(columns, how, DELIBERATE if is_comparison else {}))
        print(f"written: {markdown}")
    if options.json is not None:
        options.json.write_text(report.as_json(columns))
        print(f"written: {options.json}")
    for column in columns:
        print(report.summary(column))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)  # so that the servers that were started end as well
    sys.exit(main())
