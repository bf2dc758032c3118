"""The plots of the protocol, as PNG bytes: one function each, of numbers alone.

Up to eight methods are told apart by colour, dash and marker together, by their place in the
mapping; give every plot the same methods in the same order and each keeps its look.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator
from sklearn.isotonic import isotonic_regression

DPI = 110
CORLOC = "CorLoc, %"
FRONT = "time per image, ms (filled: no other method is both faster and more accurate)"
GREY = "#8a8a8a"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7A5230")
"""Okabe and Ito's, with a brown for their yellow, which is too light for a line."""

DASHES = ("-", "--", "-.", (0, (1, 1.2)), (0, (6, 1, 1, 1, 1, 1)), (0, (8, 3)), "-", "--")
MARKERS = (("o", 6), ("s", 5.5), ("^", 6.5), ("D", 5), ("v", 6.5), ("P", 7), ("X", 7), ("*", 8.5))
"""Shapes, and the sizes in points that look alike."""

FASTEST = 1.0
"""Milliseconds: what takes less stands here in ``speed_plane``."""

Floats = npt.NDArray[np.float64]

Span = tuple[float, float, float]
"""A value, and the lower and upper end of what is drawn around it."""

Point = tuple[str, float, float, float, float]
"""A name, milliseconds per image > 0, CorLoc, its low and high end, these three in percent."""


def iou_curves(
    thresholds: Sequence[float], curves: Mapping[str, npt.ArrayLike], title: str = ""
) -> bytes:
    """The share of images above each IoU.

    Args:
        thresholds: [t], ascending.
        curves: [t] percent per method. The legend is in the order of the values at 0.5.
        title: of the plot.
    """
    figure, axes = _axes(7.6, 4.6, title)
    at_half = {name: float(np.interp(0.5, thresholds, _floats(y))) for name, y in curves.items()}
    handles = {
        name: axes.plot(thresholds, _floats(y), **_style(i), label=f"{name}  {at_half[name]:.1f}")
        for i, (name, y) in enumerate(curves.items())
    }
    axes.axvline(0.5, color=GREY, lw=0.8, zorder=0)
    axes.set(xlim=(thresholds[0], thresholds[-1]), ylim=(0, 101))
    axes.set(xlabel="IoU threshold", ylabel="images at or above it, %")
    ranked = [handles[name][0] for name in sorted(at_half, key=lambda name: -at_half[name])]
    _legend(figure, ranked, "at IoU 0.5, %")
    return _png(figure)


def class_bars(names: Sequence[str], values: Mapping[str, npt.ArrayLike], title: str = "") -> bytes:
    """CorLoc per class, a line each, highest value of the first method on top.

    The first method's marks are filled; the others are hollow, so that none hides another.

    Args:
        names: of the c classes; the first of several synonyms is shown.
        values: [c] percent per method; nan is not drawn.
        title: of the plot.
    """
    columns = {method: _floats(column) for method, column in values.items()}
    first = next(iter(columns.values()))
    order = np.argsort(np.nan_to_num(-first, nan=np.inf), kind="stable")
    line = 0.26 if len(names) <= 40 else 0.17
    figure, axes = _axes(7.6, max(2.4, 1.1 + line * len(names)), title)
    rows = np.arange(len(names))
    drawn = np.stack(list(columns.values()))[:, order]
    axes.hlines(rows, np.fmin.reduce(drawn), np.fmax.reduce(drawn), color="#d0d0d0", lw=1, zorder=1)
    for i, (method, column) in enumerate(zip(columns, drawn, strict=True)):
        look = _marker(i) if i == 0 else {**_marker(i), "mfc": "none", "mew": 1.2}
        axes.plot(column, rows, ls="", **look, label=method)
    shown = [_short(names[i]) for i in order]
    axes.set_yticks(rows, labels=shown, fontsize=9 if len(names) <= 40 else 7.5, parse_math=False)
    axes.set(xlim=(-2, 102), ylim=(len(names) - 0.4, -0.6), xlabel=CORLOC)
    axes.tick_params(axis="y", length=0)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return _png(figure)


def size_breakdown(
    groups: Sequence[str],
    n_images: Sequence[int],
    values: Mapping[str, Sequence[Span]],
    title: str = "",
    xlabel: str = "share of the image that its largest object covers",
) -> bytes:
    """CorLoc with its interval per group of images, methods side by side.

    Args:
        groups: g names, in order.
        n_images: [g].
        values: g (value, low, high) in percent per method; nan is not drawn.
        title: of the plot.
        xlabel: what the groups are of.
    """
    figure, axes = _axes(8.4, 4.4, title)
    centres, step = np.arange(len(groups)), min(0.12, 0.8 / max(1, len(values)))
    for i, (method, spans) in enumerate(values.items()):
        value, low, high = np.asarray(spans, np.float64).T
        x = centres + (i - (len(values) - 1) / 2) * step
        axes.vlines(x, low, high, color=_colour(i), lw=1.6)
        axes.plot(x, value, ls="", **_marker(i), label=method)
    for edge in centres[1:] - 0.5:
        axes.axvline(edge, color="#d8d8d8", lw=0.8)
    named = [f"{group}\n{n:,} images" for group, n in zip(groups, n_images, strict=True)]
    axes.set_xticks(centres, labels=named, parse_math=False)
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(-2, 102), ylabel=CORLOC, xlabel=xlabel)
    _legend(figure, axes.get_legend_handles_labels()[0])
    return _png(figure)


def label_efficiency(
    labels: Sequence[int],
    curves: Mapping[str, Sequence[Span]],
    references: Mapping[str, float],
    title: str = "",
) -> bytes:
    """CorLoc against the number of boxes to learn from; labels stand at the right.

    Args:
        labels: [k] boxed training images, ascending; 0 may be among them.
        curves: k (mean, lowest, highest) over the draws, in percent, per method.
        references: percent, of what is not learned from boxes: horizontal lines.
        title: of the plot.
    """
    figure, axes = _axes(8.2, 4.8, title)
    ends: list[tuple[str, float, str]] = []
    for i, (method, spans) in enumerate(curves.items()):
        mean, low, high = np.asarray(spans, np.float64).T
        axes.fill_between(labels, low, high, color=_colour(i), alpha=0.15, lw=0)
        axes.plot(labels, mean, **_style(i) | _marker(i), clip_on=False)
        ends.append((method, float(mean[-1]), _colour(i)))
    for j, (name, value) in enumerate(references.items(), len(curves)):
        axes.axhline(value, color=_colour(j), lw=1.1, ls=(0, (2, 2)), zorder=1)
        ends.append((name, value, _colour(j)))
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xticks(labels, labels=[f"{n:,}" for n in labels])
    axes.minorticks_off()
    axes.set(xlabel="boxed training images", ylabel=CORLOC, xlim=(labels[0], labels[-1]))
    _labels_at_right(axes, ends)
    return _png(figure)


def speed_plane(points: Sequence[Point], title: str = "") -> bytes:
    """CorLoc against time; methods that no other beats in both are filled and joined.

    Args:
        points: of the methods.
        title: of the plot.

    Raises:
        ValueError: a time that a logarithmic axis cannot show.
    """
    for name, ms, *_ in points:
        if not ms > 0:
            raise ValueError(f"{name}: {ms} ms per image is not positive")
    figure, axes = _axes(10.2, 5.2, title)
    named = sorted(points, key=lambda point: -point[2])
    points = [(p[0], max(p[1], FASTEST), p[2], p[3], p[4]) for p in points]
    front: list[tuple[float, float]] = []
    for _, ms, corloc, low, high in sorted(points, key=lambda point: (point[1], -point[2])):
        best = not front or corloc > front[-1][1]
        colour = COLOURS[0] if best else GREY
        axes.vlines(ms, low, high, color=colour, lw=1.2)
        axes.plot(ms, corloc, "o", ms=7, mew=1.5, mec=colour, mfc=colour if best else "white")
        front += [(ms, corloc)] if best else []
    axes.step(*zip(*front, strict=True), where="post", color=COLOURS[0], lw=1, alpha=0.4, zorder=0)
    times = [point[1] for point in points]
    axes.set_xscale("log")
    axes.set(xlim=(min(times) / 1.8, max(times) * 1.8), xlabel=FRONT)
    decades = np.log10(max(times) / min(times))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 3 else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.minorticks_off()
    axes.set_ylabel(CORLOC)
    _key(figure, axes, named)
    return _png(figure)


# ------------------------------------------------------------------------------- labels


def _labels_at_right(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """(text, y, colour) beside the right edge, moved as little as keeps them apart."""
    low, high = axes.get_ylim()
    ends = sorted(ends, key=lambda end: end[1])
    steps = np.arange(len(ends)) * (high - low) / 22
    placed = isotonic_regression([y for _, y, _ in ends] - steps) + steps
    for (text, y, colour), at in zip(ends, placed, strict=True):
        axes.annotate(
            f"{text}  {y:.1f}",
            (1, y),
            (1.04, at),
            axes.get_yaxis_transform(),
            va="center",
            fontsize=9,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 1.4, "shrinkA": 1, "shrinkB": 0},
            annotation_clip=False,
        )
    axes.set_ylim(low, high)


def _key(figure: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Number the points in their order, on alternate sides; a list beside the plot names them."""
    handles = []
    for i, (name, ms, corloc, *_) in enumerate(points, 1):
        axes.annotate(
            str(i),
            (max(ms, FASTEST), corloc),
            (7 if i % 2 else -7, 3),
            textcoords="offset points",
            fontsize=8.5,
            ha="left" if i % 2 else "right",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        time = f"{ms:.3g} ms" if ms >= FASTEST else f"under {FASTEST:g} ms"
        text = f"{i}  {name}: {corloc:.1f} %, {time}"
        handles.append(Line2D([], [], lw=0, label=text))
    _legend(figure, handles, handlelength=0, handletextpad=0)


# ------------------------------------------------------------------------------- the common look


def _axes(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y" if height < 5.5 else "both", color="#ebebeb", lw=0.8)
    axes.set_axisbelow(True)
    axes.set_title(title, loc="left", fontsize=11, parse_math=False)
    return figure, axes


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _style(i: int) -> dict[str, Any]:
    """The line of method i."""
    return {"color": _colour(i), "ls": DASHES[i % len(DASHES)], "lw": 1.8}


def _marker(i: int) -> dict[str, Any]:
    """The mark of method i, in its colour."""
    marker, size = MARKERS[i % len(MARKERS)]
    return {"color": _colour(i), "marker": marker, "ms": size}


def _legend(figure: Figure, handles: Sequence[Any], title: str | None = None, **look: Any) -> None:
    legend = figure.legend(
        handles=handles, loc="outside right upper", frameon=False, fontsize=9, title=title, **look
    )
    legend.get_title().set_fontsize(9)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _short(name: str) -> str:
    """The first synonym, cut where it is long."""
    first = name.split(",")[0]
    return first if len(first) <= 28 else first[:27] + "…"


def _floats(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, np.float64)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()
