"""Reading a recording, whatever is in the file."""

import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from wardgate.errors import LabError
from wardgate.lab import Capture

FILE_HEADER = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)


@given(st.lists(st.binary(max_size=50), max_size=10), st.binary(max_size=15))
def test_frames_come_back_in_order_and_a_cut_one_at_the_end_is_left_out(frames: list[bytes], cut: bytes) -> None:
    records = b"".join(struct.pack("=IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)

    with recorded(FILE_HEADER + records + cut) as recording:
        assert list(recording.frames()) == frames
        assert len(recording) == len(frames)
        assert all(recording.contains(frame) for frame in frames)


@given(st.binary(max_size=200))
def test_any_file_gives_frames_or_a_lab_error(content: bytes) -> None:
    for given_content in (content, FILE_HEADER + content):
        try:
            with recorded(given_content) as recording:
                frames = list(recording.frames())
        except LabError:
            assert not given_content.startswith(FILE_HEADER)
        else:
            assert sum(map(len, frames)) <= len(given_content)


@contextmanager
def recorded(content: bytes) -> Iterator[Capture]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield Capture(Path(file.name))
