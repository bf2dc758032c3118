"""What annotations say: numbers, sizes and objects, each checked where it is read."""

import math
from collections.abc import Sequence

from sensloc.boxes import Convention
from sensloc.errors import shown

MOST_PIXELS = 2**31 - 1
"""The largest width or height: image formats and tables have 31 bits for it."""

Object = tuple[str, list[float]]
"""An annotated object: its class and its four corners, as the layout writes them."""

Size = tuple[int, int]
"""(width, height) in pixels."""


def number(value: object) -> float:
    """Return a value as a finite number.

    Raises:
        ValueError: it is not. Neither is True, nor what only Python reads as one: "1_000".
    """
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{shown(value)} is not a number") from error
    if not math.isfinite(result):
        raise ValueError(f"{shown(value)} is not finite")
    return result


def require_upright(name: str, degrees: object) -> None:
    """Check that a box, or the image that it was drawn on, was not turned.

    Args:
        name: What the layout calls the turn.
        degrees: As the layout writes it; None where it does not.

    Raises:
        ValueError: it was.
    """
    if degrees is not None and number(degrees) % 360:
        raise ValueError(f"{name} {shown(degrees)}: draw the box upright, on the upright image")


def declared_size(width: object, height: object) -> Size | None:
    """Return the declared (width, height), or None unless both are whole and positive.

    Raises:
        ValueError: no image is so large.
    """
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        return None
    if max(size) > MOST_PIXELS:
        raise ValueError(f"its size is {shown(size)} pixels")
    return size if min(size) > 0 else None


def main_class(objects: Sequence[Object], convention: Convention) -> tuple[str, list[list[float]]]:
    """Choose the class of the largest object, the first of equals, and all corners of that class.

    Returns:
        The class ("" without objects), and its corners, [n][4].
    """
    if not objects:
        return "", []
    wnid = max(objects, key=lambda item: _area(item[1], convention))[0]
    return wnid, [corners for name, corners in objects if name == wnid]


def _area(corners: list[float], convention: Convention) -> float:
    """Return the area of a box as its layout writes it; 0 where it has none."""
    x0, y0, x1, y1 = corners
    if convention == "xywh":
        width, height = x1, y1
    else:
        pixel = 1 if convention in ("inclusive_0", "inclusive_1") else 0
        width, height = x1 - x0 + pixel, y1 - y0 + pixel
    return max(width, 0.0) * max(height, 0.0)
