"""Compares tunnels in the lab: `python -m bench.tunnel [--quick] [--only ROW …] [--contenders NAME …]`."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, peers, plot
from bench.bars import RESULTS
from bench.options import Options, parse
from bench.others import OtherFailed, run_other
from bench.ratio_bars import held
from bench.report import Report
from bench.run import Runner
from wardgate.errors import LabError
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace

MUCH_STOLEN = 0.02
Say = Callable[[str], None]


def main(
    arguments: Sequence[str] | None = None, others: Sequence[str] = (), prog: str = "python -m bench.tunnel"
) -> int:
    """Runs it, writes the results; gives the exit status.

    Args:
        arguments: The command line; the process's own if not given.
        others: Other benchmarks to run afterwards, whose bars belong in the table.
        prog: What this program is called in its usage.
    """
    options = parse(arguments, prog)
    end_on_signals()
    say = say_to_stderr if options.as_json else say_to_stdout
    try:
        report = measure(options, say)
        failed = add_others(report, others, say)
        path = write(report, say)
        print(json.dumps(report.as_json()) if options.as_json else f"\n{report.markdown()}", flush=True)
        return finish(report, failed, path, say)
    except Ended as ended:
        say(f"bench: ended by {ended}; everything is cleaned up")
        return 128 + ended.number
    except (LabError, peers.PeerError, TimeoutError) as error:
        print(f"bench: failed: {error}", file=sys.stderr, flush=True)
        return 1


def measure(options: Options, say: Say) -> Report:
    """Gets the programs, runs all rounds, and gives what came out.

    Raises:
        PeerError: A program cannot be had.
        LabError: The lab or a contender does not start.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H%MZ")
    versions = peers.prepare(options.contenders, say)
    with workplace() as directory:
        runner = Runner(options, directory, say)
        runner.run()
    return Report(date, options, runner.results, machine.describe(), versions, runner.facts, notes_on(runner))


def add_others(report: Report, others: Sequence[str], say: Say) -> int:
    """Runs other benchmarks for their bars; gives how many failed, which the notes tell."""
    failed = 0
    for name in others:
        began = time.monotonic()
        try:
            report.more_bars += run_other(name)
            say(f"{name}: measured in {time.monotonic() - began:.0f} s")
        except OtherFailed as error:
            failed += 1
            report.notes.append(f"failed: {error}")
            say(f"{name}: {error}")
    return failed


def notes_on(runner: Runner) -> list[str]:
    """What a reader of the figures has to know."""
    notes = []
    if not runner.counts_instructions:
        notes.append("instructions are not counted: this machine's `perf` cannot")
    samples = [sample for sample in runner.results.samples if sample.values]
    lasted_s = sum(sample.values["lasted_s"] for sample in samples)
    stolen = sum(sample.values["stolen_s"] for sample in samples) / lasted_s if lasted_s else 0.0
    if stolen > MUCH_STOLEN:
        notes.append(f"the host took {100 * stolen:.1f} % of a core from this machine: figures are noisy")
    others = sum(sample.values["others_cpu_s"] for sample in samples) / lasted_s if lasted_s else 0.0
    notes.append(f"contenders that were not measured used {100 * others:.1f} % of a core meanwhile, all together")
    for sample in runner.results.failures():
        notes.append(f"failed: {sample.row}, {sample.contender}, round {sample.round + 1}: {sample.error}")
    return notes


def write(report: Report, say: Say) -> Path:
    """Writes JSON, Markdown and picture; gives the Markdown's path.

    Only a whole run becomes `tunnel.json`, the latest, which others read.
    """
    RESULTS.mkdir(exist_ok=True)
    stem = RESULTS / f"{report.date}-tunnel{'' if report.options.whole else '-partial'}"
    document = json.dumps(report.as_json(), indent=1) + "\n"
    stem.with_suffix(".json").write_text(document)
    if report.options.whole:
        (RESULTS / "tunnel.json").write_text(document)
    stem.with_suffix(".md").write_text(report.markdown())
    try:
        plot.draw(report.results, report.date, stem.with_suffix(".png"))
    except ImportError:
        say("no picture: matplotlib is not installed (`make bench` does that)")
    return stem.with_suffix(".md")


def finish(report: Report, others_failed: int, path: Path, say: Say) -> int:
    """Says the last line; gives the exit status, which is about the measuring and not about the bars."""
    samples = len(report.results.failures())
    failed = [f"{samples} samples failed"] if samples else []
    failed += [f"{others_failed} other benchmarks failed"] if others_failed else []
    bars = f"; {held(report.bars())}" if report.bars() else ""
    say(f"bench: {' and '.join(failed) or 'ok'}{bars}; results in {path.relative_to(RESULTS.parents[1])} and beside it")
    return 1 if failed else 0


def say_to_stdout(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def say_to_stderr(text: str) -> None:
    """A line of progress, where standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
