"""Boxes in the formats of other programs: COCO's JSON, PASCAL VOC's XML, YOLO's text.

Those of Label Studio are in ``label_studio``.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sensloc.datasets import voc_xml

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.prediction.facts import LocalizerFacts


class Format(StrEnum):
    """A format that predicted boxes can be written in, beside Parquet."""

    COCO = "coco"
    LABEL_STUDIO = "label-studio"
    VOC = "voc"
    YOLO = "yolo"


Row = dict[str, Any]
"""A row of a table, by default of ``tables.BOXES``."""


def coco(rows: Iterable[Row], facts: "LocalizerFacts", by_wnid: bool = False) -> str:
    """Return the JSON of predicted boxes, as pycocotools, FiftyOne and CVAT load it.

    Every image is in it; one with an error has no annotation. A category is an output of the
    network, numbered from 1; ``score`` is the confidence; ``bbox`` is x, y, width, height.

    Args:
        rows: of ``tables.BOXES``; their order numbers the images, from 1.
        facts: of the localizer.
        by_wnid: whether a category's name is its wnid, so that a corrected file names the classes
            as the network does; otherwise it is for people.
    """
    images, annotations = [], []  # as texts, which take a third of the memory
    category = {wnid: i for i, wnid in enumerate(facts.wnids, 1)}
    for number, row in enumerate(rows, 1):
        images.append(json.dumps(_image(number, row)))
        if row["error"] is None:
            bbox = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
            annotation = _annotation(number, number, category[row["wnid"]], bbox)
            annotations.append(json.dumps(annotation | {"score": row["confidence"]}))
    names = facts.wnids if by_wnid else _unique(facts)
    classes = enumerate(zip(facts.wnids, names, strict=True), 1)
    categories = [_category(i, wnid, name) for i, (wnid, name) in classes]
    info = _info(f"sensloc {facts.version}, boxes of the run {facts.run}")
    frame = json.dumps(info | {"categories": categories}).removesuffix("}")
    return f'{frame}, "images": [{", ".join(images)}], "annotations": [{", ".join(annotations)}]}}'


def _unique(facts: "LocalizerFacts") -> list[str]:
    """Return the classes' names; CVAT refuses a name that is twice there, as ImageNet's crane."""
    often = Counter(facts.names)
    pairs = zip(facts.wnids, facts.names, strict=True)
    return [f"{name} ({wnid})" if often[name] > 1 else name for wnid, name in pairs]


def coco_truth(rows: Iterable[Row], name: str) -> dict[str, Any]:
    """Return the annotated boxes of a run's images, as pycocotools and FiftyOne load them.

    Args:
        rows: of ``tables.MANIFEST``, without errors; their order numbers the images, from 1.
        name: of the run.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        images.append(_image(number, row))
        new = _category(len(categories) + 1, row["wnid"], row["class_name"] or row["wnid"])
        category = categories.setdefault(row["wnid"], new)
        for box in row["boxes"]:
            bbox = _xywh(box, (row["width"], row["height"]))
            annotation_id = len(annotations) + 1
            annotations.append(_annotation(annotation_id, number, category["id"], bbox))
    return _info(f"annotated boxes of the run {name}") | {
        "images": images,
        "annotations": annotations,
        "categories": list(categories.values()),
    }


def coco_results(rows: Iterable[Row], truth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one method's boxes for ``COCO.loadRes``, each with the image's annotated category.

    The score of all is 1: a run gives one box per image.

    Args:
        rows: of ``tables.PREDICTIONS``, without errors.
        truth: as ``coco_truth`` returns it.
    """
    images = {image["file_name"]: image for image in truth["images"]}
    category = {named["wnid"]: named["id"] for named in truth["categories"]}
    return [
        {
            "image_id": (image := images[row["image_id"]])["id"],
            "category_id": category[row["wnid"]],
            "bbox": _xywh(row["box"], (image["width"], image["height"])),
            "score": 1.0,
        }
        for row in rows
    ]


def _info(description: str) -> dict[str, Any]:
    return {"info": {"description": description}, "licenses": []}


def _image(number: int, row: Row) -> Row:
    return {
        "id": number,
        "file_name": row["image_id"],
        "coco_url": row["uri"],
        "width": row["width"],
        "height": row["height"],
    }


def _annotation(number: int, image: int, category: int, bbox: list[float]) -> Row:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [],  # CVAT's reader wants it
        "bbox": bbox,
        "area": bbox[2] * bbox[3],
        "iscrowd": 0,
    }


def _category(number: int, wnid: str, name: str) -> Row:
    return {"id": number, "name": name, "supercategory": "", "wnid": wnid}


def _xywh(box: Sequence[float], sides: tuple[int, int]) -> list[float]:
    """Turn a unit xyxy box into x, y, width, height in pixels."""
    x0, y0, x1, y1 = (float(v) * side for v, side in zip(box, (*sides, *sides), strict=True))
    return [x0, y0, x1 - x0, y1 - y0]


def voc(row: Row) -> bytes:
    """Return one image's XML file: corners are the first and last pixel, counted from 1.

    Args:
        row: without an error.
    """
    first = [int(row[name]) + 1 for name in ("x0", "y0")]
    last = [max(1, round(row[name])) for name in ("x1", "y1")]
    name = row["image_id"].rpartition("/")[2]
    return voc_xml.write(name, (row["width"], row["height"]), [(row["wnid"], first + last)])


def yolo(row: Row, classes: Mapping[str, int]) -> str:
    """Return one image's line: class, centre and size in the unit square, confidence.

    Args:
        row: without an error.
        classes: the number of each wnid, from 0.
    """
    x0, y0, x1, y1 = row["box"]
    numbers = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, row["confidence"])
    return " ".join([str(classes[row["wnid"]]), *(f"{n:.6f}" for n in numbers)]) + "\n"


def place(image_id: str) -> str:
    """Return an image id as the path of a file without its suffix; none leaves its folder."""
    stem, dot, suffix = image_id.rpartition(".")
    name = stem if dot and "/" not in suffix and stem.rpartition("/")[2] else image_id
    parts = [quote(part, safe=" ") or "%" for part in name.split("/")]
    return "/".join("%2E" + part[1:] if part.startswith(".") else part for part in parts)
