"""The program: `python -m conformance`, or `make conformance`."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from conformance import options as command_line
from conformance import preflight, report, runner
from conformance.lab import Facts, Target
from conformance.links import Unreachable
from conformance.options import Options
from conformance.registry import Requirement, all_requirements
from conformance.report import Column
from conformance.runner import Result, Status

DEFAULT_REPORT = Path("docs/conformance.md")


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
    _write(columns, how, options)
    return int(any(result.is_broken_must for result in columns[0].results))


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

    columns = []
    starts: list[AbstractContextManager[servers.Running]] = [servers.start_ours(), servers.start_coturn()]
    for start in starts:
        with start as running:
            print(f"{running.name}:")
            columns.append(Column(running.name, _over_both(requirements, running.target, options)))
    how = (
        "Made by `make conformance`: our relay, and coturn as Debian has it, both on loopback with loopback peers "
        "allowed, over UDP; what concerns streams alone over TCP."
    )
    return columns, how


def _over_both(requirements: Sequence[Requirement], target: Target, options: Options) -> list[Result]:
    """Everything over UDP, and over TCP what concerns streams alone."""
    streams = [each for each in requirements if each.over == "stream"]
    others = [each for each in requirements if each.over != "stream"]
    results = _run(others, target, preflight.look(target), options)
    over_tcp = replace(target, transport="tcp")
    try:
        results += _run(streams, over_tcp, preflight.look(over_tcp), options) if streams else []
    except Unreachable as error:
        missing = Status.NOT_APPLICABLE, "the server does not listen for TCP"
        results += [Result(each, *missing) for each in streams]
        print(f"{'':15}{error}")
    return sorted(results, key=lambda result: result.requirement.order)


def _run(requirements: Sequence[Requirement], target: Target, facts: Facts, options: Options) -> list[Result]:
    def say(result: Result) -> None:
        if not options.quiet or result.status == Status.FAIL:
            print(report.line(result), flush=True)

    return runner.run(requirements, target, facts, slow=options.slow, report=say)


def _write(columns: list[Column], how: str, options: Options) -> None:
    complete = options.target is None and not options.only
    markdown = options.markdown or (DEFAULT_REPORT if complete else None)
    if markdown is not None:
        markdown.write_text(report.markdown(columns, how))
        print(f"written: {markdown}")
    if options.json is not None:
        options.json.write_text(report.as_json(columns))
        print(f"written: {options.json}")
    for column in columns:
        print(report.summary(column))


if __name__ == "__main__":
    sys.exit(main())
