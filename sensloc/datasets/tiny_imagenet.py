"""Tiny ImageNet 200 as distributed.

Below the root::

    wnids.txt    words.txt (wnid, tab, name)
    train/<wnid>/images/*.JPEG    train/<wnid>/<wnid>_boxes.txt (file name, then the corners)
    val/images/*.JPEG             val/val_annotations.txt (file name, wnid, then the corners)
"""

from collections import Counter
from collections.abc import Iterator
from typing import Literal

from sensloc.datasets.annotation import EMPTY_CLASS, NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps, require_known
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.files import IMAGE_SUFFIXES, inside, stem
from sensloc.datasets.values import Object, number
from sensloc.errors import DatasetError


class TinyImageNet(Dataset):
    """Tiny ImageNet 200 as distributed: ``train/<wnid>``, ``val/val_annotations.txt``.

    Its classes are those of ``wnids.txt``; other folders are ignored. Corners are the first and
    last pixel, from 0. An image without a line is left out ("no box"), and so is a class of
    ``wnids.txt`` without images ("empty class", under the wnid as image id). A line without its
    image is an error, under its file where another has its stem.
    """

    layout: Literal["tiny_imagenet"]
    parts: tuple[Literal["train", "val"], ...] = ("train", "val")

    def _class_names(self) -> dict[str, str]:
        """Return the names for people, by wnid; ``words.txt`` has many more than the 200."""
        rows = (line.partition("\t") for line in self.tree.text("words.txt").splitlines())
        return {wnid: name.strip() for wnid, _, name in rows}

    def units(self) -> list[Unit]:
        """Return one unit per class of train, and one for val.

        Raises:
            DatasetError: the root, a folder or one of the text files of the whole set is missing,
                or ``wnids.txt`` lacks a class of the filter, or ``words.txt`` one of ``wnids.txt``.
        """
        tree = self.tree
        wnids = sorted(set(tree.text("wnids.txt").split()))
        try:
            for wnid in wnids:
                inside(wnid)  # each is a folder's name
        except ValueError as error:
            raise DatasetError(f"{tree.url('wnids.txt')}: {error}") from error
        names, only = self._class_names(), class_filter(self.only_classes)
        require_known(only, wnids, tree.url("wnids.txt"))
        if nameless := [wnid for wnid in wnids if wnid not in names]:
            raise DatasetError(f"{tree.url('words.txt')}: has no line for {', '.join(nameless)}")
        units: list[Unit] = []
        if "train" in self.parts:
            tree.folders("train")
            units += [
                {"part": "train", "wnid": wnid, "class_name": names[wnid], "only": only}
                for wnid in wnids
                if keeps(only, wnid)
            ]
        if "val" in self.parts:
            tree.size("val/val_annotations.txt")
            units.append({"part": "val", "only": only})
        return units

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images, in the order of their ids."""
        tree, part = self.tree, unit["part"]
        if part == "train":
            wnid = unit["wnid"]
            names = {wnid: unit["class_name"]}
            folder, file = f"train/{wnid}/images", f"train/{wnid}/{wnid}_boxes.txt"
        else:
            wnid, names = "", self._class_names()
            folder, file = "val/images", "val/val_annotations.txt"
        images = set(tree.files(folder, IMAGE_SUFFIXES))
        if wnid and not images:
            uri = tree.url(folder)
            yield Annotation(wnid, uri, wnid, source="tiny_imagenet/train", left_out=EMPTY_CLASS)
            return
        try:
            lines, missing = tree.text(file).splitlines(), None
        except DatasetError as problem:
            lines, missing = [], str(problem)
        objects, errors = _parse(lines, file, wnid)
        found = sorted(images | objects.keys() | errors.keys())
        stems = Counter(map(stem, found))
        for image in found:
            own = objects.get(image, [])
            label = own[0][0] if own else wnid
            own_name = image in images or stems[stem(image)] == 1
            error = missing or errors.get(image)
            if error is None and image not in images:
                error = f"{file}: no image {folder}/{image}"
            if error is None and own and label not in names:
                error = f"{file}: {image}: the class {label} is not in words.txt"
            if keeps(unit["only"], label):
                yield Annotation(
                    image_id=stem(image) if own_name else f"{file}: {image}",
                    uri=tree.url(f"{folder}/{image}") if image in images else "",
                    wnid=label,
                    corners=[corners for name, corners in own if name == label],
                    convention="inclusive_0",
                    source=f"tiny_imagenet/{part}",
                    class_name=names.get(label, ""),
                    left_out=None if own or error else NO_BOX,
                    error=error,
                )


def _parse(
    lines: list[str], file: str, wnid: str
) -> tuple[dict[str, list[Object]], dict[str, str]]:
    """Parse the lines of a file of boxes, where ``wnid`` is empty if each line has its own.

    Returns:
        For each file name its objects; and, for names whose line is wrong, what is wrong.
    """
    objects: dict[str, list[Object]] = {}
    errors: dict[str, str] = {}
    for row, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        image, *words = line.split()
        try:
            label, *corners = [wnid, *words] if wnid else words
            if len(corners) != 4:
                raise ValueError(f"{len(corners)} corners, not 4")
            objects.setdefault(image, []).append((label, [number(word) for word in corners]))
        except ValueError as error:
            errors[image] = f"{file}: line {row}: {error}"
    return objects, errors
