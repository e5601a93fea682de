"""Log files that stay small by themselves."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wardgate.cli import app
from wardgate.io.log_files import LogFiles

START = 1_780_000_000.0
HOUR = 3600.0


class Clock:
    """A wall clock that a test turns."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def test_file_is_named_by_its_time_and_the_latest_is_found(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "new", "wardgate-client", now=Clock())

    files.write("\x1b[32mgreen\x1b[0m\n")
    files.write("two\n")

    path = tmp_path / "new" / "wardgate-client.2026-05-28-20-26-40.log"
    assert path.read_text() == "green\ntwo\n"
    assert os.readlink(tmp_path / "new" / "wardgate-client.latest") == path.name
    assert path.stat().st_mode & 0o007 == 0


def test_file_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs", "wardgate-client", now=Clock())
    files.write("one\n")
    (path,) = log_files(tmp_path / "logs")
    path.unlink()

    files.write("two\n")
    (tmp_path / "logs" / "wardgate-client.latest").unlink()
    path.unlink()
    (tmp_path / "logs").rmdir()
    files.write("three\n")

    assert path.read_text() == "three\n"
    assert (tmp_path / "logs" / "wardgate-client.latest").read_text() == "three\n"


def test_full_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, "wardgate-client", max_file_bytes=100, now=clock)

    for _ in range(4):
        files.write("x" * 60 + "\n")
        clock.now += 1

    assert [path.stat().st_size for path in log_files(tmp_path)] == [122, 122]
    assert (tmp_path / "wardgate-client.latest").resolve() == log_files(tmp_path)[-1]


def test_oldest_files_go_and_young_ones_foreign_ones_and_the_own_stay(tmp_path: Path) -> None:
    clock = Clock()
    old = [
        made(tmp_path, f"wardgate-gateway.2026-01-0{day}-00-00-00.log", 40, START - 86400 + day) for day in (1, 2, 3)
    ]
    young = made(tmp_path, "wardgate-client.2026-01-04-00-00-00.log", 40, START - 100)
    foreign = made(tmp_path, "access.log", 1000, START - 86400)
    link = tmp_path / "wardgate-x.2026-01-01-00-00-00.log"
    link.symlink_to(foreign)
    files = LogFiles(tmp_path, "wardgate-client", max_bytes=100, now=clock)
    files.write("x" * 10)
    os.utime(newest(tmp_path), (START - 90000, START - 90000))

    files.clean_up()

    assert [path.exists() for path in old] == [False, False, True]
    assert young.exists()
    assert foreign.exists()
    assert link.is_symlink()
    assert newest(tmp_path).stat().st_size == 10


def test_young_files_stay_however_large_they_are(tmp_path: Path) -> None:
    clock = Clock()
    young = made(tmp_path, "wardgate-client.2026-01-04-00-00-00.log", 400, START - 299)
    files = LogFiles(tmp_path, "wardgate-client", max_bytes=100, now=clock)

    first = files.clean_up()
    clock.now += 2
    second = files.clean_up()

    assert (first, second) == (0, 1)
    assert not young.exists()


def test_cleaning_up_is_due_at_the_start_and_every_hour(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, "wardgate-client", max_bytes=100, now=clock)
    left = []

    for passed in (0.0, HOUR - 1, HOUR, HOUR * 1.5, HOUR * 2):
        path = made(tmp_path, "wardgate-client.2026-01-01-00-00-00.log", 400, START - 86400)
        clock.now = START + passed
        files.tick()
        left.append(path.exists())

    assert left == [False, True, False, True, False]


def test_disk_that_is_full_is_an_error_and_later_lines_are_written(tmp_path: Path) -> None:
    files = LogFiles(tmp_path / "logs", "wardgate-client", now=Clock())
    (tmp_path / "logs").write_text("no directory")
    with pytest.raises(OSError, match="logs"):
        files.write("lost\n")
    (tmp_path / "logs").unlink()

    files.write("kept\n")

    assert [path.read_text() for path in log_files(tmp_path / "logs")] == ["kept\n"]


@pytest.mark.parametrize("words", [("client", "up"), ("gateway",), ("relay", "--public-ip4-addr", "192.0.2.1")])
def test_directory_that_cannot_be_used_is_a_wrong_setting(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "logs").write_text("no directory")

    done = CliRunner().invoke(app, [*words, "--log-dir", str(tmp_path / "logs")], env={"WARDGATE_TOKEN": ".t"})

    assert done.exit_code == 2
    assert f"--log-dir: {tmp_path}/logs cannot be written (File exists)" in done.stderr


def test_program_writes_its_log_and_its_last_words_come_last(tmp_path: Path) -> None:
    words = ["gateway", "--api-url", "ws://127.0.0.1:9", "--interface", "lo", "--no-check", "--log-dir", str(tmp_path)]
    environment = {**os.environ, "WARDGATE_TOKEN": ".t", "WARDGATE_STATE_DIR": str(tmp_path), "WARDGATE_ID": "one"}
    code = "import structlog, wardgate.gateway.main as main\n"
    code += "main.run = lambda *_, **__: structlog.get_logger().warning('something', number=7) or 'it ended'\n"
    code += f"from wardgate.cli import app; app({words!r})"

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    *_, logged, last = done.stderr.splitlines()
    (path,) = log_files(tmp_path)
    assert done.returncode == 1
    assert "something" in logged
    assert last == "wardgate gateway: it ended"
    assert path.name.startswith("wardgate-gateway.")
    assert re.search(r"\[warning  \] something +number=7\n", path.read_text())


def made(directory: Path, name: str, size: int, changed_at: float) -> Path:
    path = directory / name
    path.write_text("x" * size)
    os.utime(path, (changed_at, changed_at))
    return path


def log_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def newest(directory: Path) -> Path:
    return (directory / "wardgate-client.latest").resolve()


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)
