"""Real predictions as cards: a photograph, its map laid over it, true and predicted boxes."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

from sensloc import heatmaps
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.report.text import Row

IMAGES = 160
"""Cards on a page, at most: some 3 MB."""

SIDE = 256
"""Of the squashed photographs, in pixels; the page stretches them to their own shape."""

QUALITY = 80
"""Of the photographs' JPEGs."""

SHOWN = (heatmaps.MAIN, heatmaps.FOREGROUND)
"""The heat maps that are shown, where the run has them."""

Card = dict[str, Any]
"""One image, as page.js reads it."""


def card(
    row: Row, pixels: Pixels | ImageError, names: Sequence[str], predictions: Mapping[str, Row]
) -> Card:
    """Return one image's card.

    Args:
        row: of the sensitivity table, without an error.
        pixels: uint8 [SIDE, SIDE, 3], squashed; or why there are none.
        names: of the network's outputs.
        predictions: by the method's title: box (unit xyxy, or None), iou and correct.
    """
    missing = isinstance(pixels, ImageError)
    return {
        "id": row["image_id"],
        "name": first_synonym(row["class_name"]) or row["wnid"],
        "wnid": row["wnid"],
        "predicted": first_synonym(names[row["predicted_index"]]),
        "recognised": row["predicted_index"] == row["class_index"],
        "size": [row["width"], row["height"]],
        "image": None if missing else _url("jpeg", _jpeg(pixels)),
        "problem": str(pixels) if missing else None,
        "maps": {title: _url("png", overlay(values)) for title, values in shown_maps(row).items()},
        "truth": [_rounded(box) for box in row["boxes"]],
        "predictions": {
            title: {
                "box": _rounded(prediction["box"]),
                "iou": round(prediction["iou"], 3),
                "correct": prediction["correct"],
            }
            for title, prediction in predictions.items()
            if prediction["box"] is not None
        },
    }


def shown_maps(row: Row) -> dict[str, npt.NDArray[np.float64]]:
    """Return the heat maps of a row that are shown, by their titles: [height, width] each."""
    columns = {heatmaps.title(name): heatmaps.column(name) for name in SHOWN}
    return {
        title: np.array(row[at], np.float64).reshape(row[f"{at}_height"], row[f"{at}_width"])
        for title, at in columns.items()
        if at in row
    }


def overlay(values: npt.NDArray[np.float64]) -> bytes:
    """Return a map [G, G] in [0, 1] as a PNG, the more opaque the larger its value."""
    rgba = colormaps["magma"](0.25 + 0.75 * values)
    rgba[..., 3] = 0.85 * values
    return _encoded(Image.fromarray((255 * rgba).astype(np.uint8)), "PNG", optimize=True)


def first_synonym(name: str | None) -> str:
    """Return the first of a class's names, which commas part; "" where there is none."""
    return (name or "").split(",")[0]


def _jpeg(pixels: Any) -> bytes:
    return _encoded(Image.fromarray(pixels), "JPEG", quality=QUALITY)


def _encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def _url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in box]
