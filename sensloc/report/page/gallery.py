"""Real predictions as cards: a photograph, its map laid over it, the true and the found boxes."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from sensloc.images.decode import Pixels
from sensloc.images.fetch import ImageError

IMAGES = 160
"""On the page at most: some 3 MB."""

SIDE = 256
"""Of the squashed photographs, in pixels; the page stretches them to their own shape."""

QUALITY = 80

Card = dict[str, Any]


def card(
    row: Mapping[str, Any],
    pixels: Pixels | ImageError,
    names: Sequence[str],
    boxes: Mapping[str, Mapping[str, Any]],
) -> Card:
    """One image, as the page's script reads it.

    Args:
        row: of the sensitivity table, without an error.
        pixels: uint8 [SIDE, SIDE, 3], squashed; or why there are none.
        names: of the network's outputs.
        boxes: by method: box (unit xyxy, or None), iou and correct.
    """
    lost = isinstance(pixels, ImageError)
    side = row["map_height"], row["map_width"]
    return {
        "id": row["image_id"],
        "name": first(row["class_name"]) or row["wnid"],
        "wnid": row["wnid"],
        "says": first(names[row["predicted_index"]]),
        "recognised": row["predicted_index"] == row["class_index"],
        "size": [row["width"], row["height"]],
        "image": None if lost else _url("jpeg", _jpeg(pixels)),
        "lost": str(pixels) if lost else None,
        "map": _url("png", overlay(np.array(row["map"], np.float64).reshape(side))),
        "truth": [_rounded(box) for box in row["boxes"]],
        "found": {
            method: {
                "box": _rounded(one["box"]),
                "iou": round(one["iou"], 3),
                "correct": one["correct"],
            }
            for method, one in boxes.items()
            if one["box"] is not None
        },
    }


def overlay(values: npt.NDArray[np.float64]) -> bytes:
    """A map [G, G] in [0, 1] as a PNG: the brighter the less one sees through it."""
    rgba = colormaps["magma"](0.25 + 0.75 * values)
    rgba[..., 3] = 0.85 * values
    return _encoded(Image.fromarray((255 * rgba).astype(np.uint8)), "PNG", optimize=True)


def first(name: str | None) -> str:
    """The first of several synonyms."""
    return (name or "").split(",")[0]


def _jpeg(pixels: Any) -> bytes:
    return _encoded(Image.fromarray(pixels), "JPEG", quality=QUALITY)


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in box]
