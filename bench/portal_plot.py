"""The picture of `bench.portal`: how figures grow with the number of clients."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.statistics import percentile

if TYPE_CHECKING:
    from bench.portal import Measured

PANEL_INCHES = (4.2, 3.0)


def draw(measured: "Sequence[Measured]", path: Path) -> None:
    """Writes an SVG: memory, changes and storms at each size, with their bars as dashed lines.

    Raises:
        ImportError: matplotlib is not installed; `make bench-portal` installs it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, str, dict[str, list[float]], float | None]] = [
        ("memory of an idle agent", "KB", {"PSS": [one.pss_per_agent / 1000 for one in measured]}, 50.0),
        ("idle", "share of a processor", {"": [one.idle_cpu_share for one in measured]}, None),
        ("change, to the last client concerned (p99)", "s", _of_changes(measured, is_time=True), 1.0),
        ("change, processor time", "ms", _of_changes(measured, is_time=False), None),
        ("storm, to the last agent", "s", {"": [one.storm.seconds if one.storm else 0.0 for one in measured]}, 60.0),
    ]
    sizes = [one.size.agents for one in measured]
    width, height = PANEL_INCHES
    canvas, axes = pyplot.subplots(1, len(panels), figsize=(width * len(panels), height), squeeze=False)
    for axis, (title, unit, lines, bar) in zip(axes.flat, panels, strict=True):
        for name, values in lines.items():
            axis.plot(sizes, values, marker="o", label=name or None)
        if bar is not None:
            axis.axhline(bar, linestyle="--", color="#b80672", linewidth=1)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("clients", fontsize=8)
        axis.set_ylabel(unit, fontsize=8)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        if len(lines) > 1:
            axis.legend(fontsize=7)
    canvas.tight_layout()
    canvas.savefig(path)
    pyplot.close(canvas)


def _of_changes(measured: "Sequence[Measured]", *, is_time: bool) -> dict[str, list[float]]:
    names = list(measured[0].changes)
    return {
        name: [
            percentile(one.changes[name].seconds, 0.99) if is_time else 1000 * one.changes[name].cpu_s
            for one in measured
        ]
        for name in names
    }
