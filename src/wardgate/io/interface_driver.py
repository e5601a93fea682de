"""Which driver a network interface has."""

import array
import contextlib
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 3
INFO_SIZE = 196  # struct ethtool_drvinfo; after the command, 32 bytes of the driver's name


def interface_driver(interface: str) -> str | None:
    """The driver's name, or `None` if there is no such interface or it does not say."""
    info = array.array("B", struct.pack("=I", ETHTOOL_GDRVINFO) + bytes(INFO_SIZE - 4))
    request = struct.pack("16sP", interface.encode()[:15], info.buffer_info()[0])
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        return info.tobytes()[4:36].split(b"\0")[0].decode(errors="replace")
    return None
