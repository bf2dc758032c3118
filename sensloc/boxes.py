"""The one box convention: xyxy in the unit square of the original image, continuous edges.

A box is ``(x0, y0, x1, y1)`` with ``0 <= x0 < x1 <= 1`` and ``0 <= y0 < y1 <= 1``, as fractions
of the original width and height. The network sees the whole image squashed to a square, so these
fractions are the same before and after resizing, and IoU does not change when an axis is scaled.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.floating[Any]]
"""Float array [..., 4]: xyxy in the unit square."""

Convention = Literal["edges", "inclusive_0", "inclusive_1", "xywh", "unit"]
"""How a layout writes a box.

- ``edges``: pixel edges ``x0 y0 x1 y1``, 0 <= x <= width (ILSVRC: its corners run from 0 to width).
- ``inclusive_0``: first and last pixel, counted from 0 (Tiny ImageNet).
- ``inclusive_1``: first and last pixel, counted from 1 (PASCAL VOC).
- ``xywh``: left edge, top edge, width, height in pixels (COCO).
- ``unit``: already xyxy fractions.
"""

TOLERANCE_PX = 1.0
"""A box may stick out of its image by this many pixels (annotators round); it is clipped."""


class BoxError(ValueError):
    """A box that is not a box of this image: no area, outside the frame, or not finite."""


def unit_boxes(corners: Any, width: int, height: int, convention: Convention) -> Boxes:
    """Turn an image's boxes, as its layout writes them, into xyxy of the unit square.

    Args:
        corners: [n, 4] numbers in the layout's convention.
        width: the image's, in pixels.
        height: the image's, in pixels.
        convention: how ``corners`` is written.

    Returns:
        float32 [n, 4], unit xyxy.

    Raises:
        BoxError: a value is not finite, a box has no area, or it leaves the image by more than
            ``TOLERANCE_PX``.
    """
    raw = np.asarray(corners, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(raw).all():
        raise BoxError(f"box {raw.tolist()} is not finite")
    edges = raw.copy()
    if convention == "inclusive_0":
        edges[:, 2:] += 1
    elif convention == "inclusive_1":
        edges[:, :2] -= 1
    elif convention == "xywh":
        edges[:, 2:] += edges[:, :2]
    scale = np.array([width, height, width, height], dtype=np.float64)
    if convention == "unit":
        edges *= scale
    for box, written in zip(edges, raw.tolist(), strict=True):
        if box[2] <= box[0] or box[3] <= box[1]:
            raise BoxError(f"box {written} ({convention}) has no area")
        if (box < -TOLERANCE_PX).any() or (box > scale + TOLERANCE_PX).any():
            raise BoxError(f"box {written} ({convention}) is outside the {width} x {height} image")
    unit = np.clip(edges / scale, 0.0, 1.0).astype(np.float32)
    if (unit[:, 2:] <= unit[:, :2]).any():
        raise BoxError(f"box {raw.tolist()} ({convention}) has no area inside the image")
    return unit


def iou(a: Boxes, b: Boxes) -> Boxes:
    """Return intersection over union, elementwise with broadcasting; continuous, so no ``+ 1``.

    ``iou(a[:, None], b[None])`` is ``torchvision.ops.box_iou(a, b)``; the form here also takes
    a whole grid of candidate boxes per image.

    Args:
        a: [..., 4] xyxy.
        b: [..., 4] xyxy, broadcastable with ``a``.

    Returns:
        float array [...] in [0, 1]; 0 where the union has no area.
    """
    a, b = np.asarray(a), np.asarray(b)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    intersection = np.clip(width, 0, None) * np.clip(height, 0, None)
    union = area(a) + area(b) - intersection
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(union), where=union > 0))


def area(boxes: Boxes) -> Boxes:
    """Return the area of each box: [..., 4] -> [...]."""
    return np.asarray((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def largest(boxes: Boxes) -> Boxes:
    """Return the box of largest area, the first of equals: [n, 4] with n >= 1 -> [4]."""
    return np.asarray(boxes[np.argmax(area(boxes))])


def tidy(boxes: Boxes) -> Boxes:
    """Make any four numbers a box: order the corners, then clip to the unit square. [..., 4]."""
    low = np.minimum(boxes[..., :2], boxes[..., 2:])
    high = np.maximum(boxes[..., :2], boxes[..., 2:])
    return np.asarray(np.clip(np.concatenate([low, high], axis=-1), 0.0, 1.0))


def resize(boxes: Boxes, factors: npt.ArrayLike) -> Boxes:
    """Scale widths and heights about each box's centre.

    Args:
        boxes: [..., 4] xyxy.
        factors: [2] or [..., 2]: the width's and the height's.

    Returns:
        [..., 4], not clipped.
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    half = (boxes[..., 2:] - boxes[..., :2]) / 2 * np.asarray(factors)
    return np.concatenate([centre - half, centre + half], axis=-1)
