"""The bars: what the product is held to, as ratios within one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.bars import Bar
from bench.results import Results
from bench.statistics import median


@dataclass(frozen=True, slots=True)
class _Ratio:
    """How a bar is computed: the median of all rounds' ratios, over all these figures."""

    name: str
    measured: tuple[tuple[str, str], ...]
    ours: str
    theirs: str
    limit: float
    aim: float
    is_ceiling: bool = False

    def bar(self, results: Results) -> Bar | None:
        every = [ratio for row, key in self.measured for ratio in results.ratios(row, key, self.ours, self.theirs)]
        value = median(every)
        return None if value is None else Bar(self.name, value, "x", self.limit, self.is_ceiling, self.aim)


def _rate(*rows: str) -> tuple[tuple[str, str], ...]:
    return tuple((row, "gbit_per_s") for row in rows)


_CPU = (("tcp-down", "cpu_s_per_gb"), ("tcp-up", "cpu_s_per_gb"))
_SMALL = (("udp-100", "packets_per_s"),)
_BESIDE = "p99 of a ping beside a full TCP flow"
_OURS, _GO = "wardgate", "wireguard-go"
_RATIOS = (
    _Ratio("one TCP flow down, against OpenVPN", _rate("tcp-down"), _OURS, "openvpn", 7, 12),
    _Ratio("one TCP flow up, against OpenVPN", _rate("tcp-up"), _OURS, "openvpn", 7, 12),
    _Ratio("one TCP flow down, against wireguard-go", _rate("tcp-down"), _OURS, _GO, 1.35, 2),
    _Ratio("one TCP flow up, against wireguard-go", _rate("tcp-up"), _OURS, _GO, 1.35, 2),
    _Ratio("one TCP flow down, against plain forwarding", _rate("tcp-down"), _OURS, "plain", 0.25, 0.45),
    _Ratio("one TCP flow up, against plain forwarding", _rate("tcp-up"), _OURS, "plain", 0.25, 0.45),
    _Ratio("10 TCP flows, against wireguard-go", _rate("tcp-10"), _OURS, _GO, 1.35, 2),
    _Ratio("UDP packets of 100 bytes, against wireguard-go", _SMALL, _OURS, _GO, 1.5, 3),
    _Ratio("processor time per gigabyte, against wireguard-go", _CPU, _OURS, _GO, 0.75, 0.5, is_ceiling=True),
    _Ratio("DNS against CIDR resource, TCP", _rate("tcp-down", "tcp-up", "tcp-10"), "wardgate-dns", _OURS, 0.95, 0.99),
    _Ratio("relayed against direct, TCP", _rate("tcp-down", "tcp-up"), "wardgate-relayed", _OURS, 0.4, 0.6),
    _Ratio(
        f"{_BESIDE} down, against wireguard-go", (("latency-down", "p99_ms"),), _OURS, _GO, 1.0, 0.5, is_ceiling=True
    ),
    _Ratio(f"{_BESIDE} up, against wireguard-go", (("latency-up", "p99_ms"),), _OURS, _GO, 1.0, 0.5, is_ceiling=True),
    _Ratio("one TCP flow at 20 ms each way, against plain forwarding", _rate("tcp-20ms"), _OURS, "plain", 0.5, 0.9),
)


def bars_of(results: Results) -> list[Bar]:
    """All bars that this run has figures for."""
    return [bar for bar in (ratio.bar(results) for ratio in _RATIOS) if bar is not None]


def read_bars(document: Any) -> list[Bar]:
    """The bars in a benchmark's JSON: `bars`, a list of what `Bar.as_json` gives.

    Without `is_ceiling`, which way is good follows from `holds`.

    Raises:
        ValueError: There is no such list.
    """
    try:
        return [_read_bar(found) for found in document["bars"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no list of bars: {error!r}") from error


def _read_bar(found: dict[str, Any]) -> Bar:
    value, limit, aim = float(found["value"]), float(found["limit"]), found.get("aim")
    is_ceiling = bool(found.get("is_ceiling", value != limit and (value < limit) == bool(found["holds"])))
    return Bar(str(found["name"]), value, str(found["unit"]), limit, is_ceiling, None if aim is None else float(aim))


def held(bars: Sequence[Bar]) -> str:
    """In words: how many hold."""
    return f"{sum(bar.holds for bar in bars)} of {len(bars)} bars hold"
