"""The embedded data set: handwritten digits on crops of photographs, rendered on demand.

It needs no download: the digits (1,797 scans of 8 x 8, UCI) and the two photographs (CC BY,
"china" by Over the Ricefields and "flower" by ultra7) come with scikit-learn. A scene is a pure
function of its seed and index. One scan serves several scenes, each time at another place, size,
contrast and background.
"""

import io
from collections.abc import Iterator
from functools import cache
from typing import Any, ClassVar, Literal

import fsspec
import numpy as np
import numpy.typing as npt
from PIL import Image

from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.dataset import Dataset
from sensloc.sections import Positive

SIZE = 64
"""Width and height of a scene, in pixels."""

DIGIT = (20, 44)
"""Least and greatest width and height of a digit, in pixels, drawn independently."""

SCRAPS = (2, 5)
"""Least and greatest number of scraps: bits of other digits, in the same ink, as clutter."""

SCRAP = (4, 9)
"""Least and greatest width and height of a scrap, in pixels, drawn independently."""

SCRAP_OPACITY = 0.8
"""Under 1, so that a digit shows on a scrap."""

CONTRAST = 0.6
"""Share of its range that the photograph keeps; the ink takes the end that this leaves free."""

FAINT = 0.25
"""A stretched scan's pixels below this opacity are left out, so that its edge can be seen."""

Floats = npt.NDArray[np.float64]


class Scenes(Dataset):
    """The embedded, synthetic set: handwritten digits on crops of photographs.

    The scenes are rendered into ``root`` while they are listed: one root per ``scene_seed``.
    """

    layout: Literal["scenes"]
    count: Positive
    scene_seed: int = 0

    scenes_per_unit: ClassVar[int] = 256

    def units(self) -> list[Unit]:
        """Return ranges of scene indices, ``start`` to ``stop`` (exclusive)."""
        size = self.scenes_per_unit
        return [
            {"start": start, "stop": min(start + size, self.count)}
            for start in range(0, self.count, size)
        ]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Write each scene to ``<root>/<digit>/scene_<index>.png`` and yield its annotation.

        Raises:
            OSError: a file cannot be written.
        """
        root = self.root.rstrip("/")
        filesystem, _ = fsspec.url_to_fs(root)
        for digit in range(10):
            filesystem.makedirs(f"{root}/{digit}", exist_ok=True)
        for index in range(unit["start"], unit["stop"]):
            pixels, digit, corners = render(self.scene_seed, index)
            uri = f"{root}/{digit}/scene_{index:06d}.png"
            filesystem.pipe_file(uri, png(pixels))
            yield Annotation(
                image_id=f"scene_{index:06d}",
                uri=uri,
                wnid=str(digit),
                corners=[[float(corner) for corner in corners]],
                convention="edges",
                source="scenes",
                size=(SIZE, SIZE),
            )


def render(
    scene_seed: int, index: int
) -> tuple[npt.NDArray[np.uint8], int, tuple[int, int, int, int]]:
    """Render a scene, a pure function of its arguments (both at least 0).

    Returns:
        uint8 [64, 64, 3] pixels, the digit, and the edges x0, y0, x1, y1 in pixels of the
        smallest box that holds every pixel which the digit touches.
    """
    background, opacity, ink, digit = layers(scene_seed, index)
    pixels = np.rint(blend(background, opacity, ink)).astype(np.uint8)
    columns, rows = np.flatnonzero(opacity.any(0)), np.flatnonzero(opacity.any(1))
    corners = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return pixels, digit, corners


def layers(scene_seed: int, index: int) -> tuple[Floats, Floats, Floats, int]:
    """Draw what a scene is made of.

    Returns:
        The background with its clutter, float [64, 64, 3] in [0, 255]; the digit's opacity,
        float [64, 64], 0 or ``FAINT`` to 1; its colour, float [3]; the digit.
    """
    rng = np.random.default_rng([scene_seed, index])
    scans, labels, photographs = _material()

    photograph = photographs[rng.integers(len(photographs))]
    side = rng.integers(SIZE, 2 * SIZE, endpoint=True)
    x, y = (int(rng.integers(length - side + 1)) for length in photograph.size)
    crop = photograph.resize((SIZE, SIZE), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    bright = rng.integers(2)
    background = CONTRAST * np.asarray(crop, dtype=np.float64)
    background += 0 if bright else 255 * (1 - CONTRAST)
    ink = rng.uniform(215, 255, 3) if bright else rng.uniform(0, 40, 3)

    clutter = np.zeros((SIZE, SIZE))
    for _ in range(rng.integers(*SCRAPS, endpoint=True)):
        scan = scans[rng.integers(len(scans))]
        top, left = (rng.integers(max(length - 2, 1)) for length in scan.shape)
        scrap = _placed(scan[top : top + 3, left : left + 3], SCRAP, rng)
        clutter = np.maximum(clutter, scrap)
    background = blend(background, SCRAP_OPACITY * clutter, ink)

    drawn = rng.integers(len(scans))
    return background, _placed(scans[drawn], DIGIT, rng), ink, int(labels[drawn])


def blend(canvas: Floats, opacity: Floats, ink: Floats) -> Floats:
    """Paint ``ink`` [3] over ``canvas`` [h, w, 3] through ``opacity`` [h, w] in [0, 1]."""
    return canvas + opacity[..., None] * (ink - canvas)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the bytes of a PNG file: lossless, so that a box is exact in the file as well."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _placed(scan: Floats, sides: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Stretch a scan to random ``sides`` at a random place: its opacity, [64, 64]."""
    width, height = (int(side) for side in rng.integers(*sides, 2, endpoint=True))
    x, y = int(rng.integers(SIZE - width + 1)), int(rng.integers(SIZE - height + 1))
    image = Image.fromarray(scan.astype(np.float32))
    stretched = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    opacity = np.zeros((SIZE, SIZE))
    opacity[y : y + height, x : x + width] = np.where(stretched < FAINT, 0, stretched)
    return opacity


@cache
def _material() -> tuple[list[Floats], list[int], list[Any]]:
    """Return the scans cut tight (float [h, w] in [0, 1]), their digits, the photographs."""
    from sklearn.datasets import load_digits, load_sample_images

    digits = load_digits()
    scans = []
    for scan in digits.images / 16:
        rows, columns = (
            np.flatnonzero((scan >= FAINT).any(1)),
            np.flatnonzero((scan >= FAINT).any(0)),
        )
        scans.append(scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    return scans, digits.target.tolist(), photographs
