"""What a process lacks is named, with the way to grant it."""

import errno
import os
from pathlib import Path

from wardgate.io.privileges import CAP_NET_ADMIN, has_capability, tun_problem, tun_remedy

STATUS = "Name:\tpython\nCapEff:\t{:016x}\nSeccomp:\t0\n"


def test_capability_is_read_from_the_status() -> None:
    assert has_capability(CAP_NET_ADMIN, STATUS.format(1 << 12))
    assert not has_capability(CAP_NET_ADMIN, STATUS.format(0xFFFF ^ 1 << 12))
    assert not has_capability(CAP_NET_ADMIN, "Name:\tpython\n")


def test_unusable_tun_device_is_named_with_a_remedy(tmp_path: Path) -> None:
    problem = tun_problem(tmp_path)  # a directory cannot be opened for writing

    assert problem is not None
    assert str(tmp_path) in problem
    assert "modprobe tun" in problem


def test_device_that_only_root_may_open_is_another_matter() -> None:
    assert "chmod 666 /dev/net/tun" in tun_remedy(PermissionError(errno.EACCES, "Permission denied"))
    assert "--device=/dev/net/tun" in tun_remedy(PermissionError(errno.EPERM, "Operation not permitted"))


def test_usable_device_is_no_problem() -> None:
    assert tun_problem(Path(os.devnull)) is None
