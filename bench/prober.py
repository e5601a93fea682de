"""Pings through a tunnel and looks at its client, in the client's namespace; prints what it saw as one line of JSON.

    python prober.py TARGET SOCKET SECONDS EVERY_S [--until-direct]

`answers`: when each answered ping was sent and answered; `paths`: when the client's path to the target's resource had
another kind than before. All times are monotonic seconds, so that whoever started it can tell what happened between.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

LOOK_EVERY_S = 0.05
AFTER_DIRECT_S = 0.3


def checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request."""
    body = struct.pack("!BBHHH", 8, 0, 0, identifier, sequence) + bytes(56)
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def path_kind(path: str) -> str | None:
    """The kind of path of the first resource that has one; `None` if the client does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(0.5)
            control.connect(path)
            control.sendall(b'{"command": "status"}\n')
            answer = b"".join(iter(lambda: control.recv(65536), b""))
    except OSError:
        return None
    kinds = [(row.get("path") or {}).get("kind") for row in json.loads(answer).get("resources", [])]
    return next((kind for kind in kinds if kind), "none")


def main() -> None:
    """Runs until its time is over, or a direct path is in use for a moment."""
    target, control, seconds, every_s = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    until_direct = "--until-direct" in sys.argv
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.setblocking(False)
    raw.connect((target, 0))
    identifier, sequence = os.getpid() & 0xFFFF, 0
    sent_at: dict[int, float] = {}
    answers: list[tuple[float, float]] = []
    paths: list[tuple[float, str]] = []
    began = next_ping = next_look = time.monotonic()
    print(json.dumps({"began": began}), flush=True)
    while (now := time.monotonic()) < began + seconds:
        if now >= next_ping:
            sequence, next_ping = (sequence + 1) & 0xFFFF, next_ping + every_s
            sent_at[sequence] = now
            with contextlib.suppress(OSError):
                raw.send(echo(identifier, sequence))
        if now >= next_look:
            next_look = now + LOOK_EVERY_S
            kind = path_kind(control)
            if kind is not None and (not paths or paths[-1][1] != kind):
                paths.append((time.monotonic(), kind))
        if until_direct and answers and paths and paths[-1][1] == "direct" and now > paths[-1][0] + AFTER_DIRECT_S:
            break
        readable, _, _ = select.select([raw], [], [], max(0.0, min(next_ping, next_look) - time.monotonic()))
        while readable:
            try:
                packet = raw.recv(2048)
            except OSError:
                break
            at = 4 * (packet[0] & 15)
            kind_of, _, _, number, answered = struct.unpack_from("!BBHHH", packet, at)
            if kind_of == 0 and number == identifier and answered in sent_at:
                answers.append((sent_at.pop(answered), time.monotonic()))
    print(json.dumps({"answers": answers, "paths": paths}), flush=True)


if __name__ == "__main__":
    main()
