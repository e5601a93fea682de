"""The picture: each figure a panel, each contender a bar from the least to the most of all rounds."""

from pathlib import Path

from bench.cast import ENTRIES
from bench.results import Results, shown
from bench.rows import FIGURES

COLUMNS = 4
PANEL_INCHES = (4.2, 2.3)
COLOURS = {"plain": "#9aa0a6", "openvpn": "#e8710a", "wireguard-go": "#b80672", "gotatun": "#9334e6"}
OUR_COLOURS = {"wardgate": "#137333", "wardgate-dns": "#34a853", "wardgate-relayed": "#81c995"}


def draw(results: Results, date: str, path: Path) -> None:
    """Writes a PNG.

    Raises:
        ImportError: matplotlib is not installed; `make bench` installs it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = shown(FIGURES, results)
    lines = -(-len(figures) // COLUMNS)
    width, height = PANEL_INCHES
    canvas, panels = pyplot.subplots(lines, COLUMNS, figsize=(width * COLUMNS, height * lines), squeeze=False)
    for panel in panels.flat[len(figures) :]:
        panel.axis("off")
    for panel, figure in zip(panels.flat, figures, strict=False):
        names = [name for name in reversed(results.contenders) if results.value(figure, name) is not None]
        values = [results.value(figure, name) or 0.0 for name in names]
        spreads = [results.spread(figure, name) or (value, value) for name, value in zip(names, values, strict=True)]
        reach = [
            [max(0.0, value - least) for value, (least, _) in zip(values, spreads, strict=True)],
            [max(0.0, most - value) for value, (_, most) in zip(values, spreads, strict=True)],
        ]
        colours = [{**COLOURS, **OUR_COLOURS}.get(name, "#5f6368") for name in names]
        panel.barh([ENTRIES[name].title for name in names], values, xerr=None if figure.peak else reach, color=colours)
        panel.set_title(f"{figure.title}\n{figure.unit}, {figure.better.value} is better", fontsize=8)
        panel.tick_params(labelsize=7)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    canvas.suptitle(f"Tunnels compared, {date}: medians, with the least and the most of all rounds", fontsize=10)
    canvas.tight_layout(rect=(0, 0, 1, 0.985))
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)
