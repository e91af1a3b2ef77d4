"""The report's pictures: charts as SVG text that follows the page's colours, film strips as JPEG."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import av
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

# Colours that the drawn SVG never has otherwise; each is replaced by a CSS variable, so that charts follow the theme.
_INK, _MUTED, _GRID, _SERIES = "#010203", "#040506", "#070809", "#0a0b0c"
_LINES = tuple(f"#1{i}2{i}3{i}" for i in range(6))
_THEME = {_INK: "currentColor", _MUTED: "var(--muted)", _GRID: "var(--grid)", _SERIES: "var(--line0)"} | {
    colour: f"var(--line{number})" for number, colour in enumerate(_LINES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "noisyactions", "text.parse_math": False,
    "font.family": "sans-serif", "font.size": 10, "text.color": _INK, "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID, "xtick.color": _GRID, "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED, "grid.color": _GRID, "grid.linewidth": 0.8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.axisbelow": True,
    "ytick.left": False, "legend.frameon": False,
}  # fmt: skip


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _draw(paint: Callable[[Axes], None], *, height: float = 2.7) -> str:
    """An SVG element, 5.6 inches wide, from what `paint` does to one pair of axes."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Names may be in any script: the browser has the glyphs, matplotlib's font need not.
        warnings.filterwarnings("ignore", message="(Glyph|Matplotlib currently does not support)", category=UserWarning)
        figure = Figure(figsize=(5.6, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure.add_subplot())
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    return text[text.index("<svg") :]


def _count_axis(axes: Axes, *, which: str = "y") -> None:
    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.grid(axis="y" if which == "y" else "x")
    axis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(_thousands))


def class_distribution(sizes: Sequence[tuple[str, int]]) -> str:
    """Videos of each class, most frequent first, on a logarithmic scale (paper, Figure 1)."""

    def paint(axes: Axes) -> None:
        counts = [count for _, count in sizes]
        ranks = np.arange(1, len(counts) + 1)
        axes.fill_between(ranks, counts, 0.8, step="mid", color=_SERIES, alpha=0.18, linewidth=0)
        axes.step(ranks, counts, where="mid", color=_SERIES, linewidth=1.6)
        axes.set_yscale("log")
        axes.set_ylim(0.8, max(counts) * 2)
        axes.set_xlim(0.5, len(counts) + 0.5)
        axes.yaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.minorticks_off()
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.set_xlabel("class, by rank")
        axes.set_ylabel("videos (log scale)")
        axes.annotate(
            f"{sizes[0][0]}: {counts[0]:,}", (1, counts[0]), xytext=(6, 5), textcoords="offset points", color=_INK
        )

    return _draw(paint)


def bars(values: Sequence[tuple[str, int]], *, unit: str = "videos") -> str:
    """Horizontal bars in the order given, each with its count at its end."""

    def paint(axes: Axes) -> None:
        names = [name if len(name) <= 34 else name[:33] + "\N{HORIZONTAL ELLIPSIS}" for name, _ in values]
        counts = [count for _, count in values]
        places = np.arange(len(counts))
        axes.barh(places, counts, color=_SERIES, height=0.68)
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", labelcolor=_INK, length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, max(counts) * 1.14)
        axes.set_ylim(len(counts) - 0.4, -0.6)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        for place, count in zip(places, counts, strict=True):
            axes.annotate(
                f"{count:,}", (count, place), xytext=(4, 0), textcoords="offset points", va="center", color=_MUTED
            )

    return _draw(paint, height=0.45 + 0.235 * len(values))


def columns(values: Sequence[tuple[int, int]], *, label: str) -> str:
    """Columns over whole numbers (years, label counts), with gaps where there is none."""

    def paint(axes: Axes) -> None:
        axes.bar([x for x, _ in values], [count for _, count in values], color=_SERIES, width=0.72)
        _count_axis(axes)
        axes.set_xlabel(label)
        axes.set_ylabel("videos")
        first, last = values[0][0], values[-1][0]
        axes.set_xticks(range(first, last + 1, 1 + (last - first) // 12))
        axes.set_xlim(first - max(0.6, 3 - (last - first) / 2), last + max(0.6, 3 - (last - first) / 2))

    return _draw(paint)


def duration_histogram(seconds: Sequence[float]) -> tuple[str, int]:
    """Histogram up to the 99th percentile, and the number of videos longer than what it shows."""
    limit = max(float(np.percentile(seconds, 99)), 1e-3)
    width = next(w for w in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 3600, 1e9) if limit / w <= 30)
    edges = np.arange(int(np.ceil(limit / width)) + 1) * width
    if edges[-1] <= limit:
        edges = np.append(edges, edges[-1] + width)
    counts, _ = np.histogram(seconds, bins=edges)

    def paint(axes: Axes) -> None:
        axes.bar(edges[:-1], counts, width=width * 0.92, align="edge", color=_SERIES)
        _count_axis(axes)
        axes.set_xlim(0, edges[-1])
        axes.set_xlabel(f"seconds, in steps of {width:g}")
        axes.set_ylabel("videos")

    return _draw(paint), len(seconds) - int(counts.sum())


def loss_curves(runs: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Loss per step of several runs of one verb: as logged (faint), and its running mean; all finite."""

    def paint(axes: Axes) -> None:
        for (name, points), colour in zip(runs.items(), _LINES * (1 + len(runs) // len(_LINES)), strict=False):
            steps, losses = np.array(points, dtype=float).T
            window = max(1, len(losses) // 40)
            thin = 1 + len(losses) // 1500  # no screen shows more, and a page must not weigh megabytes
            axes.plot(steps[::thin], losses[::thin], color=colour, alpha=0.25, linewidth=0.8)
            sums = np.cumsum(np.insert(losses, 0, 0.0))
            means = (sums[window:] - sums[:-window]) / window
            axes.plot(steps[window - 1 :: thin], means[::thin], color=colour, linewidth=1.8, label=name)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step")
        axes.set_ylabel("training loss")
        axes.legend(loc="upper right", fontsize=9, handlelength=1.2, labelcolor=_INK)

    return _draw(paint)


def burn_down(curve: Sequence[tuple[int, int]], *, planned: int | None) -> str:
    """Calls made so far over hours since the first, with the number planned; the curve is (Unix seconds, calls)."""

    def paint(axes: Axes) -> None:
        hours = [(at - curve[0][0]) / 3600 for at, _ in curve]
        axes.plot(hours, [calls for _, calls in curve], color=_SERIES, linewidth=1.8, marker="o", markersize=3)
        if planned:
            axes.axhline(planned, color=_LINES[1], linewidth=1.2, linestyle="--")
            axes.annotate(
                f"planned: {planned:,}", (0, planned), xytext=(4, -12), textcoords="offset points", color=_MUTED
            )
        _count_axis(axes)
        axes.set_ylim(0, None)
        axes.set_xlabel("hours since the first call")
        axes.set_ylabel("calls")

    return _draw(paint)


def film_strip(video: bytes, *, num_frames: int, count: int = 6) -> list[str]:
    """`count` frames spread over a stored video, as `data:` URLs of JPEG.

    Raises:
        av.error.FFmpegError: the video cannot be decoded.
    """
    wanted = set(np.linspace(0, max(num_frames - 1, 0), count).round().astype(int).tolist())
    strip = []
    with av.open(io.BytesIO(video), mode="r") as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                jpeg = io.BytesIO()
                Image.fromarray(frame.to_ndarray(format="rgb24")).save(jpeg, format="JPEG", quality=80, optimize=True)
                strip.append("data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode())
    return strip
