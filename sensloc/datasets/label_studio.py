"""Label Studio: the JSON export of a project, in which people drew rectangles on images."""

import json
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps, require_known
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.files import Tree
from sensloc.datasets.values import Object, declared_size, main_class, number, require_upright
from sensloc.errors import DatasetError, shown

RECTANGLE = "rectanglelabels"
"""The type of a labelled rectangle; what else an annotation has is left alone."""

LOCAL_FILES = "/data/local-files/"
"""The path at which Label Studio serves files of its own disk, as ``?d=<path>``."""

UPLOADS = "/data/upload/"
"""The path at which it serves what was uploaded into it."""

NOT_ANNOTATED = "not annotated"
SKIPPED = "skipped"


class LabelStudio(Dataset):
    """Label Studio's JSON export of a project with RectangleLabels.

    A task is an image; its id is ``image_id`` of the task's data or, without one, what its data
    says of where the image is. That is a URL, an absolute path, a path below the root, or a file
    that Label Studio serves from its own disk (``/data/local-files/?d=<path>``), a path below
    ``documents``. All are taken wherever they lead (the project is the user's own), but for those
    with ".." and chains of URLs.

    Of several annotations the newest that was not cancelled counts. A task without any is left
    out ("not annotated"), and so is one whose annotations were all cancelled ("skipped"), and an
    image without rectangle ("no box"). A rectangle that is rotated makes its image an error.

    An image has one class here: the label of its largest rectangle. Its boxes are all those of
    that label, and the class filter looks only at the chosen one. Corners are fractions.
    """

    layout: Literal["label_studio"]
    file: str = "project.json"
    """The export in the format JSON, below ``root`` (JSON-MIN lacks what was cancelled)."""
    image: str = "image"
    """The key of a task's data that says where its image is."""
    documents: str = "/"
    """Label Studio's LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, as this machine names that folder."""

    def units(self) -> list[Unit]:
        """Return one unit, the JSON file.

        Raises:
            DatasetError: the root, or the file, is missing.
        """
        self.tree.size(self.file)
        return [{"only": class_filter(self.only_classes)}]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield all images, in the order of their ids.

        Raises:
            DatasetError: the file is not JSON or no list of tasks, or it lacks a class of the
                filter.
        """
        rows: dict[str, Annotation] = {}
        labels: set[str] = set()
        for number_of, task in enumerate(self._load()):
            row = self._row(f"[{number_of}]", task, labels)
            if row.image_id in rows:
                again = f"{self.file}: [{number_of}]: a second task of {shown(row.image_id)}"
                row = Annotation(f"[{number_of}]", "", "", source="label_studio", error=again)
            rows[row.image_id] = row
        require_known(unit["only"], labels, f"the labels of {self.tree.url(self.file)}")
        for image_id in sorted(rows):
            if keeps(unit["only"], rows[image_id].wnid):
                yield rows[image_id]

    def _load(self) -> list[Any]:
        """Return the JSON file's tasks."""
        url = self.tree.url(self.file)
        try:
            tasks = json.loads(self.tree.text(self.file))
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{url}: not a JSON file: {error}") from error
        if not isinstance(tasks, list):
            raise DatasetError(
                f"{url}: a JSON {type(tasks).__name__}; expected a list of tasks: export the "
                "project in the format JSON"
            )
        return tasks

    def _row(self, where: str, task: Any, labels: set[str]) -> Annotation:
        """Return the row of a task, and add its labels to those of the file."""
        image_id, uri, objects, left_out, error = where, "", list[Object](), None, None
        size = None
        try:
            data = _part(task, "data", dict)
            place = data.get(self.image)
            if not isinstance(place, str) or not place:
                raise ValueError(f"its data has no {self.image} (dataset.image names the key)")
            image_id = str(data.get("image_id") or place)
            uri = self._place(place)
            annotation, left_out = _newest(task)
            if annotation is not None:
                objects, size = _objects(annotation)
                left_out = None if objects else NO_BOX
        except ValueError as problem:
            error = f"{self.file}: {where}: {problem}"
        labels |= {label for label, _ in objects}
        wnid, corners = main_class(objects, "unit")
        return Annotation(
            image_id=image_id,
            uri=uri,
            wnid=wnid,
            corners=corners,
            convention="unit",
            source="label_studio",
            size=size,
            left_out=left_out,
            error=error,
        )

    def _place(self, image: str) -> str:
        """Return where an image is that a task's data names."""
        parts = urlsplit(image)
        if parts.path.endswith(LOCAL_FILES):
            paths = parse_qs(parts.query).get("d", [])
            if len(paths) != 1:
                raise ValueError(f"{shown(image)} names no file: it has no ?d=")
            return Tree(self.documents).place(paths[0].lstrip("/"))
        if image.startswith(UPLOADS):
            raise ValueError(
                f"{shown(image)} was uploaded into Label Studio, which keeps it: let its tasks "
                "name URLs or files instead, as those of `sensloc predict` do"
            )
        return self.tree.place(image)


def _newest(task: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:
    """Return a task's newest annotation that was not cancelled, or why there is none.

    Times are of one form, in UTC, so that they sort as texts; of equal ones the last counts.
    """
    annotations = _part(task, "annotations", list) if "annotations" in task else []
    if not all(isinstance(annotation, dict) for annotation in annotations):
        raise ValueError("an annotation that is no object")
    valid = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    if not valid:
        return None, SKIPPED if annotations else NOT_ANNOTATED
    return max(reversed(valid), key=_time), None


def _time(annotation: dict[str, Any]) -> str:
    return str(annotation.get("updated_at") or annotation.get("created_at") or "")


def _objects(annotation: dict[str, Any]) -> tuple[list[Object], tuple[int, int] | None]:
    """Return an annotation's rectangles, and the size of the image that they were drawn on."""
    objects, size = [], None
    for i, region in enumerate(_part(annotation, "result", list)):
        if not isinstance(region, dict):
            raise ValueError(f"result[{i}] is no object")
        if region.get("type") == RECTANGLE:
            try:
                objects.append(_object(region))
                size = declared_size(region.get("original_width"), region.get("original_height"))
            except ValueError as error:
                raise ValueError(f"result[{i}]: {error}") from error
    return objects, size


def _object(region: dict[str, Any]) -> Object:
    """Return a rectangle's label and its corners, as fractions of the image's sides."""
    value = _part(region, "value", dict)
    require_upright("rotation", value.get("rotation"))
    require_upright("image_rotation", region.get("image_rotation"))
    labels = _part(value, RECTANGLE, list)
    if len(labels) != 1 or not isinstance(labels[0], str) or not labels[0]:
        raise ValueError(f"{RECTANGLE} {shown(labels)} is not one label")
    x, y, width, height = (number(value.get(key)) for key in ("x", "y", "width", "height"))
    return labels[0], [x / 100, y / 100, (x + width) / 100, (y + height) / 100]


def _part(entry: Any, key: str, kind: type[Any]) -> Any:
    """Return a list or an object that an entry must have."""
    part = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(part, kind):
        raise ValueError(f"an entry without {key}")
    return part
