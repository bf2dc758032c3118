"""ILSVRC2012 CLS-LOC as distributed.

Below the root::

    ILSVRC/Data/CLS-LOC/train/<wnid>/<image id>.JPEG         ILSVRC/Data/CLS-LOC/val/*.JPEG
    ILSVRC/Annotations/CLS-LOC/train/<wnid>/<image id>.xml   ILSVRC/Annotations/CLS-LOC/val/*.xml
    LOC_train_solution.csv                                   LOC_val_solution.csv
    LOC_synset_mapping.txt

The boxes are read from the XML files or, with far fewer requests, from the two CSV files, which
say the same.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from sensloc.datasets.annotation import EMPTY_CLASS, NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps, require_known
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.files import IMAGE_SUFFIXES, chunks, inside, stem
from sensloc.datasets.values import Object, number
from sensloc.datasets.voc_xml import AnnotatedImage, list_pairs, read_pairs
from sensloc.errors import DatasetError

DATA = "ILSVRC/Data/CLS-LOC"
XML = "ILSVRC/Annotations/CLS-LOC"
NAMES = "LOC_synset_mapping.txt"
COLUMNS = "ImageId,PredictionString"


class ImageNet(Dataset):
    """ILSVRC2012 CLS-LOC as distributed: ``ILSVRC/{Data,Annotations}/CLS-LOC``, ``LOC_*.csv``.

    The class of a train image is its folder; that of a val image is its first object's. Boxes of
    other classes are ignored, and an annotation with none of its class is an error. An image
    without annotation is left out ("no box"), and so is a class folder without images ("empty
    class", under the wnid as image id). Corners are pixel edges, from 0 to the width.

    Both kinds of annotations give the same rows, but for an annotation without its image: the
    XML reader, which lists the images anyway, reports it; the CSV reader leaves it to whoever
    opens the image. The CSV files do not tell the sizes.
    """

    layout: Literal["imagenet"]
    parts: tuple[Literal["train", "val"], ...] = ("train", "val")
    annotations: Literal["xml", "csv"] = "xml"

    names_per_unit: ClassVar[int] = 1000
    """Images of one unit of val."""
    bytes_per_unit: ClassVar[int] = 2**20
    """Length of the range of a CSV file that is one unit."""
    folders_per_unit: ClassVar[int] = 100
    """Classes whose listings one task compares with the CSV file, which it reads for that."""

    def _class_names(self) -> dict[str, str]:
        """Return the names for people, by wnid."""
        rows = (line.partition(" ") for line in self.tree.text(NAMES).splitlines())
        return {wnid: name.strip() for wnid, _, name in rows}

    # ----------------------------------------------------------------------- units

    def units(self) -> list[Unit]:
        """Return, for XML, one unit per wnid folder of train, and runs of val's names.

        For CSV they are ranges of the file for the images with boxes ("csv"), and groups of
        folders for those without ("unboxed").

        Raises:
            DatasetError: the root, a folder or a file is missing, a CSV file has other columns,
                or the class filter names a class that the data set does not have.
        """
        tree = self.tree
        names = self._class_names()
        only = class_filter(self.only_classes)
        require_known(only, names, tree.url(NAMES))
        units: list[Unit] = []
        for part in self.parts:
            wnids = self._wnids() if part == "train" else []
            if self.parts == ("train",):
                require_known(only, wnids, tree.url(f"{DATA}/train"))
            wnids = [wnid for wnid in wnids if keeps(only, wnid)]
            of_part = self._csv_units if self.annotations == "csv" else self._xml_units
            units += [{"part": part, "only": only} | unit for unit in of_part(part, wnids)]
        return units

    def _wnids(self) -> list[str]:
        """Return the class folders of train: all that hold images or XML files."""
        wnids = set(self.tree.folders(f"{DATA}/train"))
        if self.annotations == "xml":
            wnids.update(self.tree.folders(f"{XML}/train"))
        return sorted(wnids)

    def _xml_units(self, part: str, wnids: list[str]) -> list[Unit]:
        if part == "train":
            return [{"kind": "xml", "wnid": wnid} for wnid in wnids]
        pairs = list_pairs(self.tree, f"{DATA}/val", f"{XML}/val", self.names_per_unit)
        return [{"kind": "xml", "wnid": ""} | pair for pair in pairs]

    def _csv_units(self, part: str, wnids: list[str]) -> list[Unit]:
        file = _csv(part)
        size = self.tree.size(file)
        header = self.tree.block(file, 0, 1).strip()
        if header != COLUMNS:
            url = self.tree.url(file)
            raise DatasetError(f"{url}: its columns are {header[:200]!r}, not {COLUMNS!r}")
        starts = range(0, size, self.bytes_per_unit)
        blocks: list[Unit] = [
            {"kind": "csv", "offset": start, "length": self.bytes_per_unit} for start in starts
        ]
        groups = chunks(wnids, self.folders_per_unit) if part == "train" else [[""]]
        return blocks + [{"kind": "unboxed", "wnids": list(group)} for group in groups]

    # ----------------------------------------------------------------------- read

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images, in the order of their ids or, from a CSV file, of its rows."""
        names, only = self._class_names(), unit["only"]
        rows = {"xml": self._read_xml, "csv": self._read_csv, "unboxed": self._read_unboxed}
        for wnid, image in rows[unit["kind"]](unit):
            annotation = _annotation(unit["part"], wnid, image, names)
            if keeps(only, annotation.wnid):
                yield annotation

    def _read_xml(self, unit: Unit) -> Iterator[tuple[str, AnnotatedImage]]:
        """Yield the images of a folder with their XML files."""
        tree, wnid = self.tree, unit["wnid"]
        images, xmls = _folder(DATA, unit["part"], wnid), _folder(XML, unit["part"], wnid)
        if wnid:
            image_names, xml_names = tree.files(images, IMAGE_SUFFIXES), tree.files(xmls, (".xml",))
        else:
            image_names, xml_names = unit["images"], unit["xmls"]
        if not image_names and not xml_names:
            yield wnid, AnnotatedImage(wnid, tree.url(images), left_out=EMPTY_CLASS)
        for image in read_pairs(tree, images, image_names, xmls, xml_names):
            yield wnid, image

    def _read_csv(self, unit: Unit) -> Iterator[tuple[str, AnnotatedImage]]:
        """Yield the rows of a range of a CSV file: the images with boxes."""
        part = unit["part"]
        text = self.tree.block(_csv(part), unit["offset"], unit["length"])
        header = 1 if unit["offset"] == 0 else 0
        for line in text.split("\n")[header:]:
            if line.strip():
                yield self._csv_row(part, line)

    def _csv_row(self, part: str, line: str) -> tuple[str, AnnotatedImage]:
        """Return the image of a row, and the class that its name tells."""
        image_id, prediction = (text.strip() for text in line.partition(",")[::2])
        wnid = image_id.rpartition("_")[0] if part == "train" else ""
        file, uri = _csv(part), ""
        try:
            if part == "train" and not wnid:
                raise ValueError("the ImageId does not begin with a wnid and '_'")
            uri = self.tree.url(inside(f"{_folder(DATA, part, wnid)}/{image_id}.JPEG"))
            return wnid, AnnotatedImage(image_id, uri, file, _objects(prediction))
        except ValueError as error:
            return wnid, AnnotatedImage(image_id, uri, file, error=f"{file}: {image_id}: {error}")

    def _read_unboxed(self, unit: Unit) -> Iterator[tuple[str, AnnotatedImage]]:
        """Yield the images of a group of folders that the CSV file does not name."""
        part, tree = unit["part"], self.tree
        lines = tree.text(_csv(part)).split("\n")
        boxed = {line.partition(",")[0].strip() for line in lines}
        for wnid in unit["wnids"]:
            folder = _folder(DATA, part, wnid)
            images = tree.files(folder, IMAGE_SUFFIXES, required=part == "val")
            if not images:
                yield wnid, AnnotatedImage(wnid, tree.url(folder), left_out=EMPTY_CLASS)
            for image in images:
                if stem(image) not in boxed:
                    uri = tree.url(f"{folder}/{image}")
                    yield wnid, AnnotatedImage(stem(image), uri, left_out=NO_BOX)


def _csv(part: str) -> str:
    return f"LOC_{part}_solution.csv"


def _folder(top: str, part: str, wnid: str) -> str:
    """Return the folder of a class's images or XML files; of all val's for an empty wnid."""
    return f"{top}/{part}/{wnid}" if wnid else f"{top}/{part}"


def _objects(prediction: str) -> list[Object]:
    """Return the objects of a PredictionString: "wnid x0 y0 x1 y1", repeated.

    Raises:
        ValueError: it is empty or not of that form.
    """
    words = prediction.split()
    if not words or len(words) % 5:
        raise ValueError(f"{prediction[:200]!r} is not a sequence of 'wnid x0 y0 x1 y1'")
    return [(wnid, [number(word) for word in corners]) for wnid, *corners in chunks(words, 5)]


def _annotation(part: str, wnid: str, image: AnnotatedImage, names: dict[str, str]) -> Annotation:
    """Choose an image's class and its boxes."""
    if not wnid and image.objects:
        wnid = image.objects[0][0]
    corners = [corners for name, corners in image.objects if name == wnid]
    error = image.error
    if error is None and image.left_out is None:
        if not corners:
            error = f"{image.file}: no object" + (f" of the class {wnid}" if wnid else "")
        elif wnid not in names:
            error = f"{image.file}: the class {wnid} is not in {NAMES}"
    return Annotation(
        image_id=image.image_id,
        uri=image.uri,
        wnid=wnid,
        corners=corners,
        convention="edges",
        source=f"imagenet/{part}",
        class_name=names.get(wnid, ""),
        size=image.size,
        left_out=image.left_out,
        error=error,
    )
