"""nftables through the JSON interface of its own library; no program is started and nothing is parsed by eye."""

import ctypes
import ctypes.util
import json
from typing import Any, Final

from wardgate.errors import WardgateError

_JSON_OUTPUT: Final = 1 << 4
_HANDLE_OUTPUT: Final = 1 << 3


class FirewallError(WardgateError):
    """The kernel or the library refused a change of the firewall."""


class Nftables:
    """One context of libnftables.

    Args:
        library: Its file, if it is not to be looked for.

    Raises:
        FirewallError: The library is not there.
    """

    def __init__(self, library: str | None = None) -> None:
        try:
            self._library = ctypes.CDLL(library or ctypes.util.find_library("nftables") or "libnftables.so.1")
        except OSError as error:
            raise FirewallError(
                "the firewall cannot be set up: libnftables is not there. Install the package nftables, or start the "
                "gateway with --no-masquerade if the host's network is managed elsewhere"
            ) from error
        self._declare()
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _JSON_OUTPUT | _HANDLE_OUTPUT)

    def _declare(self) -> None:
        library = self._library
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

    def close(self) -> None:
        """Frees the context."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = ctypes.c_void_p()

    def run(self, commands: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Runs commands as one transaction and returns the objects they list.

        Raises:
            FirewallError: Nothing was changed.
        """
        text = json.dumps({"nftables": commands}).encode()
        status = self._library.nft_run_cmd_from_buffer(self._context, text)
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        problem: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if status != 0:
            raise FirewallError(f"nftables: {problem.decode(errors='replace').strip()[:300]}")
        if not output.strip():
            return []
        listed: list[dict[str, Any]] = json.loads(output)["nftables"]
        return listed

    def __enter__(self) -> "Nftables":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
