"""The contact sheet: real examples with their maps and boxes, after the paper's Figure 1."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from sensloc.boxes import Boxes
from sensloc.dice import key

TRUTH, PREDICTED = "#1b9e3a", "#d62728"


@dataclass(frozen=True)
class Example:
    """One image of the sheet.

    Attributes:
        title: its class.
        pixels: uint8 [S, S, 3], squashed.
        aspect: original width over height.
        map: [G, G].
        truth: [m, 4] unit xyxy.
        predicted: [4] unit xyxy.
        iou: of the prediction.
    """

    title: str
    pixels: npt.NDArray[np.uint8]
    aspect: float
    map: npt.NDArray[Any]
    truth: Boxes
    predicted: Boxes
    iou: float


def choose(rows: pa.Table, seed: int, n: int = 10) -> list[str]:
    """Draw images by seed, hits and misses in turn, of different classes while there are any.

    Args:
        rows: image_id, wnid and correct of one method's predictions.
        seed: of the draw.
        n: how many.

    Returns:
        At most n image ids.
    """
    ranked = sorted(rows.to_pylist(), key=lambda row: key(row["image_id"], seed))
    chosen: list[dict[str, Any]] = []
    while len(chosen) < min(n, len(ranked)):
        want, shown = len(chosen) % 2 == 0, [row["wnid"] for row in chosen]
        rest = [row for row in ranked if row not in chosen]
        chosen.append(min(rest, key=lambda row: (row["correct"] != want, shown.count(row["wnid"]))))
    return [str(row["image_id"]) for row in chosen]


def contact_sheet(examples: Sequence[Example]) -> bytes:
    """Two examples a row, each an image with its boxes and its map. PNG."""
    lines = max(1, -(-len(examples) // 2))
    figure = Figure(figsize=(11, 2.9 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, 4, squeeze=False).reshape(-1, 2)
    for pair in panels:
        for panel in pair:
            panel.set_axis_off()
    for example, (left, right) in zip(examples, panels, strict=False):
        _draw(left, example)
        right.imshow(example.map, cmap="magma", extent=(0, 1, 1, 0), aspect=1 / example.aspect)
        right.set_title("sensitivity map", fontsize=9)
    handles = [
        Line2D([], [], color=TRUTH, lw=2, label="ground truth"),
        Line2D([], [], color=PREDICTED, lw=2, ls="--", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _draw(axes: Axes, example: Example) -> None:
    axes.imshow(example.pixels, extent=(0, 1, 1, 0), aspect=1 / example.aspect)
    boxes = [(box, TRUTH, "-") for box in example.truth] + [(example.predicted, PREDICTED, "--")]
    for (x0, y0, x1, y1), colour, style in boxes:
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=2.2, ls=style)
        )
    name = example.title.split(",")[0]
    axes.set_title(f"{name}   IoU {example.iou:.2f}", fontsize=9, parse_math=False)
