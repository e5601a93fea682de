"""Runs every fuzz target for a while and says what was found: `make fuzz`.

Native targets run under libFuzzer on stable Rust, with overflow checks and without a sanitizer: the packet path has no
`unsafe`. Python decoders run under atheris. What a run learns stays in the build directory and is its start the next
time; what it finds is printed with the way to replay it.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz.decoders import TARGETS

ROOT: Final = Path(__file__).parents[1]
KEPT: Final = ROOT / "fuzz" / "corpus"
BUILD: Final = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "fuzz"
ATHERIS: Final = "atheris==3.0.0"
LONGEST_INPUT_S: Final = 20
MEMORY_MB: Final = 4096
_COVERAGE: Final = (
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
)


@dataclass(frozen=True)
class Result:
    """What became of one target."""

    name: str
    inputs: int
    seconds: float
    coverage: int
    found: tuple[Path, ...]
    is_broken: bool


def native_names() -> list[str]:
    """The native targets, as their corpora are named."""
    return sorted(one.name for one in KEPT.iterdir() if one.name.startswith("native-"))


def build_native() -> Path:
    """Builds the native targets, which are one program, and returns it."""
    told = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    host = next(line.split()[1] for line in told.splitlines() if line.startswith("host:"))
    # With a target named, the flags are for the targets alone and not for build scripts.
    command = ["cargo", "build", "-q", "--locked", "--release", "-p", "fastpath-fuzz", "--features", "libfuzzer"]
    settings = {"RUSTFLAGS": " ".join(_COVERAGE), "CARGO_PROFILE_RELEASE_LTO": "off", "CARGO_TARGET_DIR": str(BUILD)}
    subprocess.run([*command, "--target", host], check=True, cwd=ROOT, env={**os.environ, **settings})
    return BUILD / host / "release" / "fuzz-target"


def have_atheris() -> None:
    """Installs atheris, which is not among the packages of the tests."""
    if subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, check=False).returncode != 0:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", ATHERIS]
        subprocess.run(pip, check=True)


def fuzz(name: str, program: list[str], seconds: int) -> Result:
    """Runs one target and reads what libFuzzer said."""
    grown, found = BUILD / "corpus" / name, BUILD / "found" / name
    for directory in (grown, found):
        directory.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    options = [f"-max_total_time={seconds}", f"-timeout={LONGEST_INPUT_S}", f"-rss_limit_mb={MEMORY_MB}"]
    options += ["-print_final_stats=1", f"-artifact_prefix={found}/", str(grown), str(KEPT / name)]
    log = BUILD / f"{name}.log"
    started = time.monotonic()
    with log.open("w") as output:
        code = subprocess.run(
            [*program, *options],
            cwd=ROOT,
            env={**os.environ, "FUZZ_TARGET": name},
            stderr=output,
            stdout=output,
            check=False,
        ).returncode
    elapsed, text = time.monotonic() - started, log.read_text(errors="replace")
    inputs = re.findall(r"number_of_executed_units:\s*(\d+)", text) or re.findall(r"^#(\d+)", text, re.MULTILINE)
    coverage = re.findall(r"\bcov: (\d+)", text)
    fresh = tuple(sorted(set(found.iterdir()) - before))
    return Result(
        name, int(inputs[-1]) if inputs else 0, elapsed, int(coverage[-1]) if coverage else 0, fresh, code != 0
    )


def report(result: Result) -> None:
    """One line of the table, and how to replay what was found."""
    state = "ok" if not result.is_broken else "FOUND" if result.found else f"BROKEN, see {BUILD / result.name}.log"
    rate = result.inputs / max(result.seconds, 0.1)
    print(f"  {result.name:<26}{result.inputs:>12,}{rate:>10,.0f}{result.coverage:>10,}  {state}", flush=True)
    for one in result.found:
        print(f"    {one}: copy it to fuzz/corpus/{result.name}/, where the tests replay it, and fix what it shows")


def main() -> None:
    """Runs the targets that are named, or all."""
    parser = argparse.ArgumentParser(description="Runs fuzz targets and says what they found.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("targets", nargs="*", help="their names (default: all)")
    options = parser.parse_args()
    natives = native_names()
    chosen: list[str] = options.targets or [*natives, *TARGETS]
    unknown = [name for name in chosen if name not in TARGETS and name not in natives]
    if unknown:
        parser.error(f"no such target: {', '.join(unknown)}; there are: {', '.join([*natives, *TARGETS])}")
    native = str(build_native()) if set(chosen) & set(natives) else ""
    if set(chosen) & set(TARGETS):
        have_atheris()
    print(f"  {'target':<26}{'inputs':>12}{'per s':>10}{'coverage':>10}")
    broken = []
    for name in chosen:
        program = [native] if name in natives else [sys.executable, "-m", "fuzz.atheris_target", name]
        result = fuzz(name, program, options.seconds)
        report(result)
        if result.is_broken:
            broken.append(name)
    if broken:
        sys.exit(f"fuzz: {', '.join(broken)}")
    print("fuzz: nothing found")


if __name__ == "__main__":
    main()
