"""What crosses a wire, recorded: to show what a stranger on the path sees, or to debug a NAT.

With root and `tcpdump` on the machine a capture takes any filter and any speed. Else a small reader of our own records
everything on one interface, and refuses filters.
"""

import os
import shutil
import signal
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wardgate.errors import LabError
from wardgate.lab.node import SYSTEM_DIRECTORIES, Node
from wardgate.lab.process import wait_until

ETH_P_ALL = 3
MAX_FRAME = 262_144  # more than the largest super-packet
MAX_FRAMES = 1_000_000
LINK_TYPE_ETHERNET = 1
_FILE_HEADER = struct.Struct("=IHHiIII")
_FRAME_HEADER = struct.Struct("=IIII")
_MAGIC = 0xA1B2C3D4
READY_TIMEOUT_S = 10.0


class Capture:
    """A recording; complete once the `capture` block has been left.

    Attributes:
        path: The pcap file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def frames(self) -> Iterator[bytes]:
        """Every frame so far, as it was on the wire, first to last."""
        with open(self.path, "rb") as file:
            header = file.read(_FILE_HEADER.size)
            if len(header) == _FILE_HEADER.size and _FILE_HEADER.unpack(header)[0] != _MAGIC:
                raise LabError(f"{self.path} is not a capture made on this machine")
            while len(header := file.read(_FRAME_HEADER.size)) == _FRAME_HEADER.size:
                length = _FRAME_HEADER.unpack(header)[2]
                frame = file.read(length)
                if len(frame) < length:
                    return
                yield frame

    def contains(self, text: bytes) -> bool:
        """Whether these bytes are in any frame."""
        return any(text in frame for frame in self.frames())

    def __len__(self) -> int:
        return sum(1 for _ in self.frames())


@contextmanager
def capture(
    node: Node,
    interface: str,
    expression: str | None = None,
    *,
    path: Path | str | None = None,
    max_frames: int = MAX_FRAMES,
) -> Iterator[Capture]:
    """Records what an interface sends and receives while the block runs.

    Args:
        node: Where; `lab.wan` has one interface for each node on the wan, named like it.
        interface: Which; `any` for all, if `tcpdump` is there.
        expression: Which packets, as `tcpdump` has it, such as `udp port 3478`.
        path: The pcap file to write; a temporary one, gone after the block, if not given.
        max_frames: When to stop recording.

    Raises:
        LabError: The interface does not exist, or a filter was given without `tcpdump`.
    """
    with tempfile.TemporaryDirectory(prefix="wardgate-capture-") as directory:
        target = Path(path) if path is not None else Path(directory) / "capture.pcap"
        made = Capture(target)
        with open(target, "wb") as file:
            recording = _record_with_tcpdump if can_use_tcpdump(node) else _record_ourselves
            with recording(node, interface, expression, file, max_frames):
                yield made
                time.sleep(0.05)  # what was just sent is still on its way through the kernel's ring


def can_use_tcpdump(node: Node) -> bool:
    """Whether tcpdump is there and starts on the node: it gives up where groups may not be changed, as without root."""
    if Path(f"/proc/{node.holder_pid}/setgroups").read_text().strip() == "deny":
        return False
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES))
    return shutil.which("tcpdump", path=places) is not None


@contextmanager
def _record_with_tcpdump(
    node: Node, interface: str, expression: str | None, file: BinaryIO, max_frames: int
) -> Iterator[None]:
    argv = ["tcpdump", "-n", "-Z", "root", "-i", interface, "-s", str(MAX_FRAME), "-B", "16384"]
    argv += ["-c", str(max_frames), "-U", "--immediate-mode", "-w", "-", *([expression] if expression else [])]
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as said:
        process = node.spawn_with(argv, (nothing, file, said))

        def listening() -> bool:
            text = os.pread(said.fileno(), 4096, 0).decode(errors="replace")
            if not process.running and "listening on" not in text:
                raise LabError(f"tcpdump on {node.name}: {text.strip()}")
            return "listening on" in text

        wait_until(listening, READY_TIMEOUT_S, "tcpdump is ready", poll_s=0.005)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(READY_TIMEOUT_S)


@contextmanager
def _record_ourselves(
    node: Node, interface: str, expression: str | None, file: BinaryIO, max_frames: int
) -> Iterator[None]:
    if expression is not None:
        raise LabError("capturing with a filter needs tcpdump, and root for it")
    with node.socket(socket.AF_PACKET, socket.SOCK_RAW) as reader:
        try:
            reader.bind((interface, ETH_P_ALL))
        except OSError as error:
            raise LabError(f"{node.name} has no interface {interface}: {error}") from error
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        reader.settimeout(0.02)
        file.write(_FILE_HEADER.pack(_MAGIC, 2, 4, 0, 0, MAX_FRAME, LINK_TYPE_ETHERNET))
        file.flush()
        done = threading.Event()
        thread = threading.Thread(target=_copy_frames, args=(reader, file, max_frames, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(READY_TIMEOUT_S)


def _copy_frames(reader: socket.socket, file: BinaryIO, max_frames: int, done: threading.Event) -> None:
    recorded = 0
    while recorded < max_frames:
        try:
            frame = reader.recv(MAX_FRAME)
        except TimeoutError:
            if done.is_set():
                return
            continue
        nanoseconds = time.time_ns()
        seconds, rest = divmod(nanoseconds, 1_000_000_000)
        file.write(_FRAME_HEADER.pack(seconds, rest // 1000, len(frame), len(frame)) + frame)
        file.flush()
        recorded += 1
