"""Pictures of measurements, as SVG and PNG: the same measurements give the same files, byte by byte.

matplotlib is optional (``tessera-mpc[bench]``) and imported only when there is something to draw.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records import Figure
from mpc.errors import UsageError, unwritable

WIDTH = 7.6
"""Inches: a README's column at 100 pixels to the inch."""
DPI = 200
FORMATS: dict[str, dict[str, Any]] = {
    # No date and no version of the program: they would make every picture a new one.
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"metadata": {"Software": None}, "dpi": DPI},
}
INK, SOFT, GRID, OTHER = "#202226", "#5c5f66", "#e4e2dc", "#8d99a6"
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#332288")
"""Okabe and Ito's, which are told apart with any kind of colour blindness; their black is replaced."""
MARKERS = "osD^vP"

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "svg.hashsalt": "tessera",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True)
class Line:
    """One series; ``measured`` ones have points and spread, predicted ones are lines alone."""

    name: str
    xs: Sequence[float]
    ys: Sequence[Figure]
    measured: bool = True
    joined: bool = True
    colour: int | None = None
    """In the palette; by default the line's place among the others."""


@dataclass(frozen=True)
class Panel:
    """A pair of axes with lines in it."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    ticks: Sequence[float] = ()
    log_x: bool = True
    log_y: bool = True
    factor: float = 1.0
    """From the figures' unit to that of the axis."""
    zero: bool = True
    """Whether a linear axis begins at 0."""


@dataclass(frozen=True)
class Stack:
    """Stacked bars of one unit: each bar a name and its parts."""

    title: str
    x: str
    bars: Sequence[tuple[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Bars:
    """Groups of bars beside each other: for each group a figure of each series, or None where there is none."""

    title: str
    x: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[Figure | None]]
    factor: float = 1.0
    log: bool = True
    highlighted: str = ""
    """Groups whose names begin so have the first colour, all others another; with one series alone."""


def middle(figure: Figure) -> float:
    """A number: the median of a spread."""
    return float(figure) if isinstance(figure, int | float) else float(figure["median"])


def whiskers(figure: Figure, factor: float = 1.0) -> tuple[float, float]:
    """How far the least and the greatest lie from the median."""
    if isinstance(figure, int | float):
        return 0.0, 0.0
    return (figure["median"] - figure["min"]) * factor, (figure["max"] - figure["median"]) * factor


class Pictures:
    """Writes pictures into a folder.  Raises UsageError where matplotlib is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            import matplotlib
            import matplotlib.patches
            import matplotlib.ticker
            from matplotlib.figure import Figure as Canvas
        except ImportError as error:
            raise UsageError(f"pictures need matplotlib ({error}): install tessera-mpc[bench]") from error
        self._matplotlib, self._canvas = matplotlib, Canvas
        self._folder = folder
        self.written: list[Path] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(f"the folder {folder}", error) from error

    @contextlib.contextmanager
    def _drawn(self, name: str, height: float, rows: int = 1, columns: int = 1) -> Iterator[tuple[Any, Any]]:
        """A figure and its axes as a list; written when the block ends."""
        with self._matplotlib.rc_context():
            self._matplotlib.rcdefaults()
            parameters: Any = self._matplotlib.rcParams
            parameters.update(STYLE)
            figure: Any = self._canvas(figsize=(WIDTH, height), layout="constrained")
            yield figure, list(figure.subplots(rows, columns, squeeze=False).flat)
            for suffix, options in FORMATS.items():
                path = self._folder / f"{name}.{suffix}"
                try:
                    figure.savefig(path, format=suffix, **options)
                except OSError as error:
                    raise unwritable(f"the picture {path}", error) from error
                self.written.append(path)

    def lines(self, name: str, panels: Sequence[Panel]) -> str:
        """Panels beside each other; the picture's name."""
        with self._drawn(name, 3.3, columns=len(panels)) as (_, axes):
            for ax, panel in zip(axes, panels, strict=True):
                self._panel(ax, panel)
        return name

    def _panel(self, ax: Any, panel: Panel) -> None:
        for n, line in enumerate(panel.lines):
            ys = [middle(y) * panel.factor for y in line.ys]
            colour = PALETTE[(n if line.colour is None else line.colour) % len(PALETTE)]
            if not line.measured:
                ax.plot(line.xs, ys, color=colour, label=line.name)
                continue
            spread = list(zip(*(whiskers(y, panel.factor) for y in line.ys), strict=True))
            ax.errorbar(
                line.xs, ys, yerr=spread, color=colour, label=line.name, marker=MARKERS[n % len(MARKERS)], capsize=2.5,
                linestyle="-" if line.joined else "none", elinewidth=1,
            )  # fmt: skip
        for chosen, axis, scale in ((panel.log_x, ax.xaxis, ax.set_xscale), (panel.log_y, ax.yaxis, ax.set_yscale)):
            if chosen:
                scale("log")
                axis.set_major_formatter(self._plain())
                axis.set_minor_formatter(self._nothing())
        if panel.ticks:
            ax.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        if not panel.log_y and panel.zero:
            ax.set_ylim(bottom=0)
        ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        ax.grid(visible=True, which="major")
        if len(panel.lines) > 1:
            ax.legend(loc="best")

    def stacks(self, name: str, stacks: Sequence[Stack]) -> str:
        """Stacked horizontal bars, one panel below the other, with one colour for a part throughout."""
        parts = list(dict.fromkeys(part for stack in stacks for _, values in stack.bars for part in values))
        colours = dict(zip(parts, (PALETTE[n % len(PALETTE)] for n in range(len(parts))), strict=True))
        # More parts than colours: the second round is hatched, so that no two look alike.
        hatches = {part: "////" if n >= len(PALETTE) else "" for n, part in enumerate(parts)}
        bars = sum(len(stack.bars) for stack in stacks)
        with self._drawn(name, 0.75 + 0.62 * len(stacks) + 0.4 * bars, rows=len(stacks)) as (figure, axes):
            for ax, stack in zip(axes, stacks, strict=True):
                for row, (_, values) in enumerate(stack.bars):
                    left = 0.0
                    for part, value in values.items():
                        ax.barh(
                            row, value, left=left, height=0.68, color=colours[part], hatch=hatches[part],
                            edgecolor="white", linewidth=0.6,
                        )  # fmt: skip
                        left += value
                ax.set_yticks(range(len(stack.bars)), [bar for bar, _ in stack.bars])
                ax.set(title=stack.title, xlabel=stack.x, ylim=(len(stack.bars) - 0.5, -0.5))
                ax.tick_params(axis="y", length=0)
                ax.grid(visible=True, axis="x")
            handles = [
                self._matplotlib.patches.Patch(
                    facecolor=colours[part], hatch=hatches[part], edgecolor="white", label=part
                )
                for part in parts
            ]
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(parts), 6))
        return name

    def bars(self, name: str, panels: Sequence[Bars], columns: int = 2) -> str:
        """Horizontal bars with spread, panels in rows of ``columns``."""
        columns = min(columns, len(panels))
        rows = math.ceil(len(panels) / columns)
        most = max(len(panel.groups) * len(panel.series) for panel in panels)
        height = rows * (0.85 + 0.23 * most)
        with self._drawn(name, height, rows=rows, columns=columns) as (_, axes):
            for ax, panel in zip(axes, panels, strict=False):
                self._bars(ax, panel)
            for ax in axes[len(panels) :]:
                ax.set_visible(False)
        return name

    def _bars(self, ax: Any, panel: Bars) -> None:
        thick = 0.76 / len(panel.series)
        least = math.inf
        for n, (series, figures) in enumerate(panel.series.items()):
            first = next((row for row, figure in enumerate(figures) if figure is not None), 0)
            for row, figure in enumerate(figures):
                if figure is None:
                    continue
                value = middle(figure) * panel.factor
                least = min(least, value) if value > 0 else least
                colour = PALETTE[n]
                if panel.highlighted and not panel.groups[row].startswith(panel.highlighted):
                    colour = OTHER
                low, high = whiskers(figure, panel.factor)
                ax.barh(
                    row + (n - (len(panel.series) - 1) / 2) * thick, value, height=thick * 0.92, color=colour,
                    xerr=[[low], [high]] if high or low else None, ecolor=INK, capsize=2,
                    error_kw={"elinewidth": 0.9}, label=series if row == first else None,
                )  # fmt: skip
                text = f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
                y = row + (n - (len(panel.series) - 1) / 2) * thick
                ax.annotate(
                    text, (value + high, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=SOFT
                )
        if panel.log and math.isfinite(least):
            ax.set_xscale("log")
            ax.set_xlim(left=10 ** math.floor(math.log10(least) - 0.15))
            ax.xaxis.set_major_formatter(self._plain())
            ax.xaxis.set_minor_formatter(self._nothing())
        ax.margins(x=0.22)
        ax.set_yticks(range(len(panel.groups)), panel.groups)
        ax.set(title=panel.title, xlabel=panel.x, ylim=(len(panel.groups) - 0.5, -0.5))
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=True, axis="x")
        if len(panel.series) > 1:
            ax.legend(loc="best")

    def _plain(self) -> Any:
        """0.1, 1, 10, 1,000 rather than powers of ten."""
        return self._matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:,.10g}")

    def _nothing(self) -> Any:
        return self._matplotlib.ticker.NullFormatter()
