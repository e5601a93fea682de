"""The native data plane of one process: the TUN device, the UDP sockets and the threads between them."""

import errno
import os
import re
from typing import Final

from wardgate._fastpath import Engine, TunDevice, TunnelIo
from wardgate.errors import InterfaceLost
from wardgate.io.priority import Priority
from wardgate.io.udp import UdpSockets, open_udp_sockets

Datagram = tuple[tuple[str, int] | None, tuple[str, int], bytes]
STOP_TIMEOUT_S: Final = 1.0


class Tunnel:
    """Opens what the threads need, opens it again when it is lost, and closes it.

    Args:
        engine: The tables.
        interface: The TUN interface's name.
        offload: Whether segmentation offloads are tried, on the TUN device and on UDP.
        must_mark: Whether unmarked sockets would loop, as on a client.

    Raises:
        InterfaceLost: The device or the sockets cannot be opened.
    """

    def __init__(self, engine: Engine, interface: str, *, offload: bool = True, must_mark: bool) -> None:
        self._engine = engine
        self._interface = interface
        self._offload = offload
        self._must_mark = must_mark
        self._priority = Priority()
        self._open()

    def _open(self) -> None:
        try:
            self._tun = TunDevice.open(self._interface, offload=self._offload)
        except OSError as error:
            raise InterfaceLost(f"the TUN interface {self._interface} cannot be opened: {_reason(error)}") from error
        try:
            self._sockets: UdpSockets = open_udp_sockets(must_mark=self._must_mark)
        except BaseException:
            self._tun.close()
            raise
        v4, v6 = self._sockets.fds
        self._io = TunnelIo(
            self._engine, self._tun, udp4_fd=v4, udp6_fd=v6, udp_gso=self._offload, udp_gro=self._offload
        )

    @property
    def interface(self) -> str:
        """The interface's name."""
        return self._tun.name

    def has_port(self, port: int) -> bool:
        """Whether datagrams over IPv4 leave from that port."""
        return self._sockets.v4 is not None and int(self._sockets.v4.getsockname()[1]) == port

    def start(self) -> None:
        """Starts the threads; they keep the priority of this process, while the calling thread steps back."""
        self._priority.restore()
        self._io.start()
        self._priority.step_back()

    def send(self, datagrams: list[Datagram]) -> int:
        """Sends datagrams of Python's making."""
        return self._io.send(datagrams)

    def write_tun(self, packets: list[bytes]) -> int:
        """Gives packets of Python's making to the host."""
        return self._io.write_tun(packets)

    def failure(self) -> str | None:
        """Why a thread ended by itself, if one did."""
        return self._io.failure()

    def counters(self) -> dict[str, int]:
        """What the threads counted."""
        return self._io.step_counters()

    def rebind(self) -> None:
        """Replaces the sockets by ones on other ports: the host's network changed, and relays know us by address.

        Raises:
            InterfaceLost: No socket can be opened; the old ones stay.
        """
        sockets = open_udp_sockets(port=0, must_mark=self._must_mark)
        self._io.rebind(*sockets.fds)
        self._sockets.close()
        self._sockets = sockets

    def reopen(self) -> None:
        """Opens everything again after a failure and starts.

        Raises:
            InterfaceLost: It cannot be opened.
        """
        self.close()
        self._open()
        self.start()

    def close(self) -> None:
        """Stops the threads and closes the device, whereupon the interface is gone."""
        self._io.stop(STOP_TIMEOUT_S)
        self._sockets.close()
        self._tun.close()


def _reason(error: OSError) -> str:
    """What keeps a device from being opened, and what helps."""
    native = re.search(r"\(os error (\d+)\)", str(error))
    number = error.errno or (int(native[1]) if native else None)
    match number:
        case errno.EBUSY:
            return "another program has it; end that one, or choose another name with --interface"
        case errno.EINVAL:
            return "there is an interface of that name that is none of TUN; choose another name with --interface"
    return str(error) if number is None else os.strerror(number)
