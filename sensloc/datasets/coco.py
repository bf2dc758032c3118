"""COCO: one JSON file of instances, and a folder of images."""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps, require_known
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.files import inside
from sensloc.datasets.values import Object, declared_size, main_class, number, require_upright
from sensloc.errors import DatasetError, shown

LISTS = ("images", "annotations", "categories")


class Coco(Dataset):
    """A COCO JSON file of instances, and a folder of images.

    The image id is that of the JSON file, the class a category's name.

    An image has one class here: that of its largest object. Its boxes are all objects of that
    class; objects of other classes are ignored, and the class filter looks only at the chosen
    class. Crowds (``iscrowd``) are no objects. Corners are x, y, width, height.

    An image without object is left out ("no box"). What is wrong with an entry is the error of
    its image, or a row of its own ("annotations[7]") where the entry names no image of the file.
    """

    layout: Literal["coco"]
    images: str = "images"
    annotations: str = "annotations.json"

    def units(self) -> list[Unit]:
        """Return one unit, the JSON file.

        Raises:
            DatasetError: the root, or the file, is missing.
        """
        self.tree.size(self.annotations)
        return [{"only": class_filter(self.only_classes)}]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield all images, in the order of their ids as text.

        Raises:
            DatasetError: the file is not JSON or not COCO's, or it lacks a class of the filter.
        """
        lists = self._load()
        names: dict[str, str] = {}
        for row, entry in enumerate(lists["categories"]):
            try:
                category, name = str(_field(entry, "id")), str(_field(entry, "name"))
            except ValueError as error:
                raise self._refusal(f"categories[{row}]: {error}") from error
            if names.setdefault(category, name) != name:
                raise self._refusal(f"category {category} is {names[category]!r} and {name!r}")
        url = self.tree.url(self.annotations)
        require_known(unit["only"], names.values(), f"the categories of {url}")
        rows = self._rows(lists, names)
        for image_id in sorted(rows):
            if keeps(unit["only"], rows[image_id].wnid):
                yield rows[image_id]

    def _load(self) -> dict[str, list[Any]]:
        """Return the JSON file's content, which has the three lists."""
        try:
            loaded = json.loads(self.tree.text(self.annotations))
        except (ValueError, RecursionError) as error:
            raise self._refusal(f"not a JSON file: {error}") from error
        if not isinstance(loaded, dict):
            raise self._refusal(f"a JSON {type(loaded).__name__}")
        if not all(isinstance(loaded.get(key), list) for key in LISTS):
            raise self._refusal(f"its keys are {', '.join(sorted(loaded))}")
        return loaded

    def _refusal(self, problem: str) -> DatasetError:
        url = self.tree.url(self.annotations)
        return DatasetError(f"{url}: {problem}; expected an object with lists {', '.join(LISTS)}")

    def _rows(self, lists: dict[str, list[Any]], names: dict[str, str]) -> dict[str, Annotation]:
        """Return a row for each image, and for each entry that belongs to none, by image id."""
        file = self.annotations
        objects, errors = _objects(lists["annotations"], names)
        rows = {}
        for row, entry in enumerate(lists["images"]):
            where = f"images[{row}]"
            try:
                image_id = str(_field(entry, "id"))
                if image_id in rows:
                    raise ValueError(f"a second image with id {image_id}")
            except ValueError as problem:
                errors[where] = f"{where}: {problem}"
                continue
            error, uri, size = errors.pop(image_id, None), "", None
            try:
                path = inside(str(_field(entry, "file_name")))
                uri = self.tree.url(f"{self.images}/{path}")
                size = declared_size(entry.get("width"), entry.get("height"))
            except ValueError as problem:
                error = f"{where}: {problem}"
            wnid, corners = main_class(objects.pop(image_id, []), "xywh")
            rows[image_id] = Annotation(
                image_id=image_id,
                uri=uri,
                wnid=wnid,
                corners=corners,
                convention="xywh",
                source="coco",
                size=size,
                left_out=None if corners or error else NO_BOX,
                error=f"{file}: {error}" if error else None,
            )
        orphans = {image_id: f"{image_id} is not in images" for image_id in objects} | errors
        for key, text in orphans.items():
            rows[key] = Annotation(key, "", "", source="coco", error=f"{file}: {text}")
        return rows


def _objects(
    entries: list[Any], names: dict[str, str]
) -> tuple[dict[str, list[Object]], dict[str, str]]:
    """Return objects by image id; and what is wrong, by image id or, without one, by entry."""
    objects: dict[str, list[Object]] = defaultdict(list)
    errors: dict[str, str] = {}
    for row, entry in enumerate(entries):
        where = image_id = f"annotations[{row}]"
        try:
            image_id = str(_field(entry, "image_id"))
            if not entry.get("iscrowd"):
                objects[image_id].append(_object(entry, names))
        except ValueError as error:
            errors[image_id] = f"{where}: {error}"
    return objects, errors


def _object(entry: dict[str, Any], names: dict[str, str]) -> Object:
    """Return the object of an entry of ``annotations``."""
    category, box = str(_field(entry, "category_id")), _field(entry, "bbox")
    if category not in names:
        raise ValueError(f"category_id {category} is not in categories")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox {shown(box)} is not a list of four numbers")
    if isinstance(attributes := entry.get("attributes"), dict):  # CVAT's bbox is the upright one
        require_upright("rotation", attributes.get("rotation"))
    return names[category], [number(value) for value in box]


def _field(entry: Any, key: str) -> Any:
    """Return a value that an entry must have."""
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise ValueError(f"an entry without {key}")
    return entry[key]
