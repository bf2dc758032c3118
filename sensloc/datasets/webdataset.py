"""WebDataset: tar shards in which the files of one sample stand next to each other.

In a shard::

    n01440764_10026.jpg    the image: .jpg, .jpeg, .png, ...
    n01440764_10026.json   {"wnid": "n01440764", "boxes": [[x0, y0, x1, y1], ...], ...}
    n01440764_10029.jpg
    n01440764_10029.xml    or PASCAL VOC's XML, as ILSVRC has it

A sample's key is the path up to the first dot of the file name. A JSON annotation may also hold
image_id (the key where it is absent), class_name, width and height, convention (of the boxes,
see ``sensloc.boxes``) and source; "label" is another name of "wnid". With "error", and no image
beside it, it says that this image is not there, and why. ``sensloc pack`` writes such shards.
"""

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from sensloc.boxes import Convention
from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.shard import LONGEST_NOTE, NOTES, Sample, samples
from sensloc.datasets.values import declared_size, main_class, number
from sensloc.datasets.voc_xml import parse
from sensloc.errors import DatasetError, shown

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class WebDataset(Dataset):
    """Tar shards whose samples are an image and, beside it, its annotation (XML or JSON).

    An image's uri is its range of the shard's bytes.

    An image has one class: its JSON annotation's or, of an XML annotation, that of its largest
    object, whose boxes are all objects of that class. An image without annotation or without box
    is left out ("no box"). A bad sample is an error under its key, a shard that breaks off (or is
    no tar file) an error under its name; what stands before the break is read.
    """

    layout: Literal["webdataset"]
    shards: str = "*.tar"
    """Pattern of the shards' names, below ``root``."""
    convention: Convention = "edges"
    """How the corners are written, where a JSON annotation does not name its own."""

    def units(self) -> list[Unit]:
        """Return one unit per shard.

        The classes are in the shards alone, so a class of the filter that the data set does not
        have cannot be told here.

        Raises:
            DatasetError: the root is missing, no name matches, or a shard is compressed.
        """
        folder, _, pattern = self.shards.rpartition("/")
        tars = self.tree.files(folder, (".tar", *COMPRESSED), required=True)
        names = [name for name in tars if fnmatchcase(name, pattern)]
        url = self.tree.url(folder)
        for name in names or tars:
            if name.lower().endswith(COMPRESSED):
                raise DatasetError(
                    f"{url}: {name} is compressed: images are read by their place in a shard, so "
                    "unpack it to a .tar (images are compressed already)"
                )
            if not name.endswith(".tar"):
                raise DatasetError(f"{url}: {name}: the name of a shard must end in .tar")
        if not names:
            raise DatasetError(f"{url}: no name matches dataset.shards, {pattern!r}: {tars[0]}")
        only = class_filter(self.only_classes)
        return [{"shard": f"{folder}/{name}".lstrip("/"), "only": only} for name in names]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the shard's images, in its order.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        shard = unit["shard"]
        url = self.tree.url(shard)
        for sample in samples(url, shard):
            row = self._row(sample, url, shard)
            if keeps(unit["only"], row.wnid):
                yield row

    def _row(self, sample: Sample, url: str, shard: str) -> Annotation:
        """Return the row of a sample of a shard."""
        values: dict[str, Any] = {"image_id": sample.name, "uri": url, "wnid": ""}
        try:
            if sample.error:
                raise ValueError(sample.error)
            image = sample.image()
            if image is not None:
                values["uri"] = f"{url}#{image.offset_data}+{image.size}"
            values |= self._noted(sample)
            if image is None and "error" not in values:
                raise ValueError("no image in this sample")
            if not values.get("corners") and "error" not in values:
                values["left_out"] = NO_BOX
        except ValueError as error:
            values["error"] = f"{shard}: {sample.key}: {error}"
        return Annotation(**{"source": "webdataset"} | values)

    def _noted(self, sample: Sample) -> dict[str, Any]:
        """Return the fields of an ``Annotation`` that the sample's own annotation tells."""
        suffixes = [suffix for suffix in NOTES if suffix in sample.files]
        if not suffixes:
            return {}
        if len(suffixes) > 1:
            raise ValueError("two annotations, .json and .xml")
        member, data = sample.files[suffixes[0]]
        try:
            if member.size > LONGEST_NOTE:
                raise ValueError(f"{member.size:,} bytes are too many for an annotation")
            if suffixes == ["json"]:
                return _parse_json(data, self.convention)
            objects, size = parse(data)
        except ValueError as error:
            raise ValueError(f".{suffixes[0]}: {error}") from error
        wnid, corners = main_class(objects, self.convention)
        return {
            "wnid": wnid,
            "corners": corners,
            "size": size,
            "convention": self.convention,
        }


def _parse_json(data: bytes, convention: Convention) -> dict[str, Any]:
    """Return the fields of an ``Annotation`` that a JSON file tells.

    Raises:
        ValueError: it is not JSON, or not such an annotation.
    """
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON file: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"a JSON {type(loaded).__name__}, not an object")
    names = {"wnid": "wnid", "label": "wnid"} | {
        name: name for name in ("image_id", "class_name", "source", "error")
    }
    values: dict[str, Any] = {
        names[key]: _text(key, loaded[key]) for key in reversed(names) if key in loaded
    }
    if "error" in values:
        return values
    values["convention"] = loaded.get("convention", convention)
    if values["convention"] not in get_args(Convention):
        raise ValueError(f"the convention {shown(values['convention'])} is unknown")
    if not isinstance(loaded.get("boxes"), list):
        raise ValueError("has no list of boxes")
    values["corners"] = [_box(box) for box in loaded["boxes"]]
    if values["corners"] and not values.get("wnid"):
        raise ValueError("has boxes and no wnid")
    return values | {"size": declared_size(loaded.get("width"), loaded.get("height"))}


def _text(key: str, value: object) -> str:
    """Return a value as text that any table can hold; a class may also be a number."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} {shown(value)} is not a text")
    try:
        return str(value).encode().decode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key} {shown(value)} is not UTF-8") from error


def _box(value: object) -> list[float]:
    """Return the four corners of a box."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"the box {shown(value)} is not a list of four numbers")
    return [number(corner) for corner in value]
