"""The contact sheet: real examples with their maps and boxes, after the paper's Figure 1."""

import io
from collections.abc import Mapping, Sequence
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
"""Colours of the true and the predicted boxes."""


@dataclass(frozen=True)
class SheetImage:
    """One image of the sheet.

    Attributes:
        title: the class's name.
        pixels: uint8 [S, S, 3], squashed.
        aspect: original width over height.
        maps: [G, G] each, by what they are.
        truth: [m, 4] unit xyxy.
        predicted: [4] unit xyxy.
        iou: of the predicted box, the best over the true ones.
    """

    title: str
    pixels: npt.NDArray[np.uint8]
    aspect: float
    maps: Mapping[str, npt.NDArray[Any]]
    truth: Boxes
    predicted: Boxes
    iou: float


def choose(rows: pa.Table, seed: int, n: int = 10) -> list[str]:
    """Draw images by seed, hits and misses in turn, of different classes while there are any.

    Args:
        rows: image_id, wnid and correct of one method's predictions.
        seed: of the draw.
        n: how many images to draw.

    Returns:
        The ids of n images, or of all where there are fewer.
    """
    ranked = sorted(rows.to_pylist(), key=lambda row: key(row["image_id"], seed))
    chosen: list[dict[str, Any]] = []
    while len(chosen) < min(n, len(ranked)):
        wanted, classes = len(chosen) % 2 == 0, [row["wnid"] for row in chosen]
        rest = [row for row in ranked if row not in chosen]
        chosen.append(
            min(rest, key=lambda row: (row["correct"] != wanted, classes.count(row["wnid"])))
        )
    return [str(row["image_id"]) for row in chosen]


def contact_sheet(images: Sequence[SheetImage]) -> bytes:
    """Return a PNG of two examples a row, each an image with its boxes beside its maps."""
    lines = max(1, -(-len(images) // 2))
    across = 1 + max((len(image.maps) for image in images), default=1)
    figure = Figure(figsize=(5.5 * across, 2.9 * lines + 0.5), layout="constrained")
    panels = figure.subplots(lines, 2 * across, squeeze=False).reshape(-1, across)
    for panel in panels.flat:
        panel.set_axis_off()
    for image, (first, *others) in zip(images, panels, strict=False):
        _draw(first, image)
        for (title, heat), panel in zip(image.maps.items(), others, strict=True):
            panel.imshow(heat, cmap="magma", extent=(0, 1, 1, 0), aspect=1 / image.aspect)
            panel.set_title(title, fontsize=9)
    handles = [
        Line2D([], [], color=TRUTH, lw=2, label="ground truth"),
        Line2D([], [], color=PREDICTED, lw=2, ls="--", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _draw(axes: Axes, image: SheetImage) -> None:
    axes.imshow(image.pixels, extent=(0, 1, 1, 0), aspect=1 / image.aspect)
    boxes = [(box, TRUTH, "-") for box in image.truth] + [(image.predicted, PREDICTED, "--")]
    for (x0, y0, x1, y1), colour, style in boxes:
        axes.add_patch(
            Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=colour, lw=2.2, ls=style)
        )
    name = image.title.split(",")[0]
    axes.set_title(f"{name}   IoU {image.iou:.2f}", fontsize=9, parse_math=False)
