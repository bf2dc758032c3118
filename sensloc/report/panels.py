"""A box explained in one picture: an image, what the network says of each place, and the box."""

import io
from collections.abc import Callable
from functools import partial
from math import ceil
from textwrap import shorten

import fsspec
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from sensloc.boxes import Boxes
from sensloc.config import absolute
from sensloc.heatmaps import FOREGROUND, MAIN, SECOND, kind_and_stride, title
from sensloc.images.decode import squash
from sensloc.images.pixels import Pixels
from sensloc.prediction.localizer import Prediction
from sensloc.report.explain import LAYERS, Explanation, ExplanationError, ShownMap, explain
from sensloc.report.page.gallery import first_synonym
from sensloc.store import storage

ACROSS = 4
"""Panels of a row."""

WIDTH, TITLES, DPI = 9.6, 0.55, 150
"""Of the picture and of two lines above a panel, in inches; and pixels an inch."""

GAP = 0.04
"""Between two panels, as a share of a panel's width."""

COLOURS = 256
"""A palette makes the file a quarter as large."""

SHAPES = (0.4, 2.0)
"""Heights over widths for which a row has room; beyond them a panel is narrower than its place."""

SIDE = 480
"""Of the squashed photograph, in pixels; its panel has its own shape."""

BRIGHTEST = 99.5
"""Percentile of a map of sensitivities from which all is drawn alike: a few pixels have most."""

LETTERS = 26
"""Letters of a class's name, at most."""

BOX, GREY = "#00c853", "#5f6368"
"""Colours of the box, on photographs and maps alike, and of what explains a title."""

Panel = tuple[str, str, Callable[[Axes], None]]
"""A title, a line that explains it, and what draws the panel."""


def write(localizer: str, image: str, output: str) -> str:
    """Draw why a localizer's box is where it is, as a PNG.

    Args:
        localizer: URL of a finished run, or of a copy of its folder ``localizer``.
        image: path or URL.
        output: path or URL of the PNG.

    Returns:
        The lines that say what was found and drawn, for a terminal.

    Raises:
        LocalizerError: There is no localizer.
        ExplanationError: The image has no box, or the output is not called a PNG.
    """
    if not output.lower().endswith(".png"):
        raise ExplanationError(f"--output {output}: the picture is a PNG: name a file *.png")
    explanation = explain(absolute(localizer), absolute(image))
    files, path = fsspec.core.url_to_fs(absolute(output))
    storage.replace(files, path, picture(explanation))
    return f"{in_words(explanation)}\nopen {absolute(output)}"


def in_words(explanation: Explanation) -> str:
    """Return what the picture shows, for a terminal."""
    found, layers = explanation.prediction, ""
    if len(explanation.strides) < LAYERS:
        named = "of stride " + " and ".join(map(str, explanation.strides))
        layers = f"\ninner layers that the network has: {named if explanation.strides else 'none'}"
    corners = ", ".join(f"{edge:.0f}" for edge in found.box)
    return (
        f"{_name(found)} ({_percent(found.probability)}), box {corners}, right with a chance of "
        f"{_percent(found.confidence)}{layers}"
    )


def picture(explanation: Explanation) -> bytes:
    """Return the PNG: the image, its heat maps in the order of the way, and the box."""
    panels, (height, width) = _panels(explanation), explanation.pixels.shape[:2]
    rows, tall = ceil(len(panels) / ACROSS), WIDTH / ACROSS * np.clip(height / width, *SHAPES)
    figure = Figure((WIDTH, rows * (tall + TITLES) - TITLES))  # the first row's lie above it
    axes = figure.subplots(rows, ACROSS, squeeze=False).ravel()
    figure.subplots_adjust(0, 0, 1, 1, wspace=GAP, hspace=TITLES / tall)
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, line, draw) in zip(axes, panels, strict=False):
        draw(axis)
        axis.set(xlim=(0, 1), ylim=(1, 0), aspect=height / width)
        axis.set_title(name, fontsize=11, pad=18, parse_math=False)
        axis.annotate(
            line,
            xy=(0.5, 1),
            xycoords="axes fraction",
            xytext=(0, 5),
            textcoords="offset points",
            horizontalalignment="center",
            fontsize=9,
            color=GREY,
            parse_math=False,
        )
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()


def _panels(explanation: Explanation) -> list[Panel]:
    """Return the panels in the order of the way; the box is on what it is read from, too."""
    found, (height, width) = explanation.prediction, explanation.pixels.shape[:2]
    pixels = squash(explanation.pixels, SIDE)
    box = np.array(found.box) / [width, height, width, height]
    name = shorten(_name(found), LETTERS, placeholder=" ...")
    photograph = partial(_photograph, pixels=pixels)
    return [
        ("image", f"{width} x {height} pixels", photograph),
        *(
            (*_words(kind, shown), partial(_map, photograph=photograph, shown=shown, box=box))
            for kind, shown in explanation.maps.items()
        ),
        (
            f"{name} ({_percent(found.probability)})",
            f"chance that the box is right: {_percent(found.confidence)}",
            partial(_photograph, pixels=pixels, box=box),
        ),
    ]


def _words(name: str, shown: ShownMap) -> tuple[str, str]:
    """Return a map's title, and the line that explains it."""
    height, width = shown.values.shape
    kind, stride = kind_and_stride(name)
    return {
        MAIN: ("sensitivity at the pixels", f"|d score / d pixel|, {width} x {height}"),
        "inner": (
            f"sensitivity at stride {stride}",
            f"|d score / d activation|, {width} x {height}",
        ),
        FOREGROUND: ("foreground", "share of each cell that is object"),
        SECOND: ("foreground, second look", "of what is around the first box"),
    }.get(kind, (title(name), f"{width} x {height} cells"))


def _name(found: Prediction) -> str:
    return first_synonym(found.class_name) or found.wnid


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _photograph(axis: Axes, pixels: Pixels, box: Boxes | None = None, alpha: float = 1) -> None:
    axis.imshow(pixels, extent=(0, 1, 1, 0), alpha=alpha)
    if box is not None:
        _outline(axis, box, "-", 3)


def _map(axis: Axes, photograph: Callable[..., None], shown: ShownMap, box: Boxes) -> None:
    values, (x0, y0, x1, y1) = shown.values.astype(np.float32), shown.region
    photograph(axis, alpha=0.3)
    most = 1.0 if shown.share else float(np.percentile(values, BRIGHTEST)) or 1.0
    axis.imshow(values, cmap="magma", vmin=0, vmax=most, extent=(x0, x1, y1, y0))
    if shown.read:
        _outline(axis, box, "--", 2)


def _outline(axis: Axes, box: Boxes, style: str, width: float) -> None:
    x0, y0, x1, y1 = box
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=BOX, lw=width, ls=style))
