"""The demo's directory: gone after a run, and one of a killed run gone after the next."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardgate.lab.demo.workplace import LOCK, PREFIX, remove_stale, workplace

HOLD = """
import sys
from wardgate.lab.demo.workplace import workplace
with workplace() as directory:
    print(directory, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    argv = [sys.executable, "-c", HOLD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_directory_is_gone_after_its_run_and_after_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with workplace() as first:
        (first / "portal.log").write_text("x")
    with pytest.raises(KeyError), workplace():
        raise KeyError

    assert list(tmp_path.iterdir()) == []


def test_kept_directory_stays_also_in_later_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with workplace(keep=True) as kept:
        (kept / "portal.log").write_text("x")
    with workplace():
        pass

    assert [path.name for path in kept.iterdir()] == ["portal.log"]


def test_next_run_removes_what_a_killed_one_left(
    other_run: tuple["subprocess.Popen[str]", Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, left = other_run
    process.kill()
    process.wait()
    assert left.exists()

    with workplace() as ours:
        assert not left.exists()
        assert ours.parent == left.parent


def test_directory_of_a_run_that_goes_on_is_left_alone(other_run: tuple["subprocess.Popen[str]", Path]) -> None:
    process, theirs = other_run

    remove_stale(theirs.parent)

    assert theirs.exists()
    assert process.poll() is None


def test_what_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}empty").mkdir()
    (tmp_path / f"{PREFIX}link-inside").mkdir()
    (tmp_path / f"{PREFIX}link-inside" / LOCK).symlink_to(elsewhere / LOCK)

    remove_stale(tmp_path)

    assert (elsewhere / LOCK).exists()
    assert (tmp_path / f"{PREFIX}empty").exists()
    assert (tmp_path / f"{PREFIX}link-inside").exists()
