"""Which readers a folder's listing suggests: a function for each layout that is recognised.

To recognise another layout, write its function and add it to ``SUGGEST``, or to ``WHOLE``.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Literal

from sensloc.datasets import Dataset
from sensloc.datasets.coco import Coco
from sensloc.datasets.files import Tree
from sensloc.datasets.imagenet import DATA, XML, ImageNet
from sensloc.datasets.label_studio import LabelStudio
from sensloc.datasets.table import Table
from sensloc.datasets.tiny_imagenet import TinyImageNet
from sensloc.datasets.voc import Voc
from sensloc.datasets.webdataset import WebDataset
from sensloc.errors import DatasetError
from sensloc.init.listing import Listing, by_folder

Part = Literal["train", "val"]

PARTS: tuple[Part, ...] = ("train", "val")


def imagenet(listing: Listing) -> Iterator[Dataset]:
    """ILSVRC as distributed, of it the parts that are there."""
    parts = tuple(part for part in PARTS if listing.has(f"{DATA}/{part}"))
    if parts:
        kind: Literal["xml", "csv"] = "xml" if listing.has(XML) else "csv"
        yield ImageNet(layout="imagenet", root=listing.root, parts=parts, annotations=kind)


def tiny_imagenet(listing: Listing) -> Iterator[Dataset]:
    """Tiny ImageNet as distributed, of it the parts that are there."""
    if {"wnids.txt", "words.txt"} <= set(listing.notes):
        parts = tuple(part for part in PARTS if listing.has(part))
        yield TinyImageNet(layout="tiny_imagenet", root=listing.root, parts=parts)


def voc(listing: Listing) -> Iterator[Dataset]:
    """Each folder of XML files, with the folder that has most images of the same stems."""
    folders_of = defaultdict(list)
    for folder, stems in by_folder(listing.images).items():
        for name in stems:
            folders_of[name].append(folder)
    for xmls, stems in by_folder(listing.notes_of(".xml")).items():
        for images, _ in Counter(f for name in stems for f in folders_of[name]).most_common(1):
            yield Voc(layout="voc", root=listing.root, images=images, annotations=xmls)


def coco(listing: Listing) -> Iterator[Dataset]:
    """Each JSON file that names images, with the folder where most of these are."""
    for path in listing.notes_of(".json"):
        names = _file_names(Tree(listing.root).text(path))
        folders = Counter(
            image[: -len(name)].rstrip("/") or "."
            for image in listing.images
            if (name := names.get(image.rpartition("/")[2], ""))
            and f"/{image}".endswith(f"/{name}")
        )
        if names:
            folder = max(folders, key=folders.__getitem__, default=".")
            yield Coco(layout="coco", root=listing.root, images=folder, annotations=path)


def _file_names(text: str) -> dict[str, str]:
    """Return the file names of a JSON file's list ``images``, by their last part."""
    try:
        entries = json.loads(text)["images"]
        names = [str(entry["file_name"]) for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError):  # not COCO's
        return {}
    return {name.rpartition("/")[2]: name for name in names}


def label_studio(listing: Listing) -> Iterator[Dataset]:
    """Each JSON file that is a list of tasks with annotations."""
    for path in listing.notes_of(".json"):
        try:
            tasks = json.loads(Tree(listing.root).text(path))
        except (ValueError, RecursionError):
            continue
        if isinstance(tasks, list) and any(
            isinstance(task, dict) and {"data", "annotations"} <= task.keys() for task in tasks
        ):
            yield LabelStudio(layout="label_studio", root=listing.root, file=path)


def table(listing: Listing) -> Iterator[Dataset]:
    """Each CSV or Parquet file."""
    for path in listing.notes_of(".csv", ".parquet"):
        yield Table(layout="table", root=listing.root, file=path, convention="edges")


def webdataset(listing: Listing) -> Iterator[Dataset]:
    """Each folder of tar shards."""
    for folder in by_folder(listing.notes_of(".tar")):
        shards = "*.tar" if folder == "." else f"{folder}/*.tar"
        yield WebDataset(layout="webdataset", root=listing.root, shards=shards)


WHOLE = (imagenet, tiny_imagenet)
"""Layouts as distributed: their folders hold files that others would take for theirs."""

SUGGEST = (voc, coco, label_studio, table, webdataset)


def suggested(listing: Listing) -> tuple[list[Dataset], list[str]]:
    """Return the readers that take a folder as theirs, and why others that were tried do not.

    Raises:
        DatasetError: it is a layout as distributed, and lacks a file.
    """
    for suggest in WHOLE:
        for reader in suggest(listing):
            reader.units()
            return [reader], []
    readers, refusals = [], []
    for suggest in SUGGEST:
        for reader in suggest(listing):
            try:
                reader.units()
                readers.append(reader)
            except DatasetError as error:
                refusals.append(str(error))
    return readers, refusals
