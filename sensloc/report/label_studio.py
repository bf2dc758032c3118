"""Boxes for Label Studio: tasks with pre-annotations, and the labelling config that they need."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

from sensloc.datasets.label_studio import LOCAL_FILES, RECTANGLE

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.prediction.facts import LocalizerFacts

CONTROL, OBJECT = "label", "image"
"""The names of the two tags that a task refers to: those of Label Studio's own template."""


def tasks(rows: Iterable[dict[str, Any]], facts: "LocalizerFacts") -> str:
    """Return the JSON of a task for each image that has a box, which is its pre-annotation.

    The score is the confidence; a label is a class as the run's tables name it.

    Args:
        rows: of ``tables.BOXES``; those with an error are no tasks.
        facts: of the localizer.
    """
    version = f"sensloc {facts.version} {facts.run}"
    texts = [json.dumps(_task(row, version)) for row in rows if row["error"] is None]
    return "[" + ",\n".join(texts) + "]"  # texts take a third of the memory of tasks


def _task(row: dict[str, Any], version: str) -> dict[str, Any]:
    guess = {"model_version": version, "score": row["confidence"]}
    return {
        "data": {OBJECT: served(row["uri"]), "image_id": row["image_id"]},
        "predictions": [guess | {"result": [region(row, row["box"])]}],
    }


def region(row: dict[str, Any], box: Sequence[float]) -> dict[str, Any]:
    """Return a labelled rectangle, as predictions and annotations have it.

    Args:
        row: with the image's wnid, width and height.
        box: [4] unit xyxy.
    """
    x0, y0, x1, y1 = (100 * float(edge) for edge in box)
    corner = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
    return {
        "type": RECTANGLE,
        "from_name": CONTROL,
        "to_name": OBJECT,
        "original_width": row["width"],
        "original_height": row["height"],
        "image_rotation": 0,
        "value": corner | {RECTANGLE: [row["wnid"]]},
    }


def served(uri: str) -> str:
    """Return the URL at which Label Studio finds an image: a local path below its own disk's "/".

    Other URLs are what they are: it fetches http and https, and s3 and gs where its project has
    such a storage.
    """
    path = uri.removeprefix("file://")
    return f"{LOCAL_FILES}?d={quote(path[1:])}" if path.startswith("/") else uri


def config(facts: "LocalizerFacts") -> str:
    """Return the labelling config for the tasks of a localizer, as XML.

    People see a class's name, searched by typing; what is saved is the class itself.
    """
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=OBJECT, value=f"${OBJECT}")
    ElementTree.SubElement(view, "Filter", name="filter", toName=CONTROL, minlength="0")
    labels = ElementTree.SubElement(view, "RectangleLabels", name=CONTROL, toName=OBJECT)
    labels.set("canRotate", "false")
    for wnid, name in zip(facts.wnids, facts.names, strict=True):
        if name in ("", wnid):
            ElementTree.SubElement(labels, "Label", value=wnid)
        else:
            ElementTree.SubElement(labels, "Label", value=f"{name} ({wnid})", alias=wnid)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
