"""How many answers a source gets that has not shown that it is one.

Each prefix (IPv4 /24, IPv6 /56) has a bucket of answers that fills again with time. The buckets are a table of fixed
size in which a keyed hash says the place: sources share buckets, none makes it grow, and nobody can aim at another.
"""

from array import array
from hashlib import blake2s

from wardgate.wire.addresses import packed

_IPV4_PREFIX_BYTES = 3
_IPV6_PREFIX_BYTES = 7


class AnswerLimit:
    """Token buckets by source prefix."""

    def __init__(self, key: bytes, *, per_s: float, burst: float, buckets: int = 4096) -> None:
        """Makes full buckets.

        Args:
            key: 16 random bytes.
            per_s: Answers a second that a prefix gets for long.
            burst: Answers that it gets at once.
        """
        self._key = key
        self._per_s = per_s
        self._burst = burst
        self._level = array("d", [burst]) * buckets
        self._at = array("d", [0.0]) * buckets

    def take(self, host: str, now: float) -> bool:
        """Whether one more answer may go to `host`."""
        address = packed(host)
        prefix = address[: _IPV4_PREFIX_BYTES if len(address) == 4 else _IPV6_PREFIX_BYTES]
        place = int.from_bytes(blake2s(prefix, key=self._key, digest_size=8).digest(), "big") % len(self._level)
        level = min(self._burst, self._level[place] + max(0.0, now - self._at[place]) * self._per_s)
        self._at[place] = now
        may = level >= 1.0
        self._level[place] = level - may
        return may
