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
from dataclasses import dataclass

from sensloc.config import ImageNet
from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.files import (
    IMAGE_SUFFIXES,
    Object,
    Tree,
    chunks,
    class_filter,
    inside,
    keeps,
    number,
    require_known,
    stem,
)
from sensloc.datasets.voc_xml import Found, list_pairs, read_pairs
from sensloc.errors import DatasetError

DATA = "ILSVRC/Data/CLS-LOC"
XML = "ILSVRC/Annotations/CLS-LOC"
NAMES = "LOC_synset_mapping.txt"
COLUMNS = "ImageId,PredictionString"


@dataclass(frozen=True)
class ImageNetReader:
    """Reads ILSVRC2012 CLS-LOC.

    The class of a train image is its folder; that of a val image is its first object's. Boxes of
    other classes are ignored, and an annotation with none of its class is an error. An image
    without annotation is left out ("no box"), and so is a class folder without images ("empty
    class", under the wnid as image id). ``corners`` are pixel edges, from 0 to the width.

    Both kinds of annotations give the same rows, but for an annotation without its image: the
    XML reader, which lists the images anyway, reports it; the CSV reader leaves it to whoever
    opens the image. The CSV files do not tell the sizes.

    Attributes:
        config: the data set's section.
        names_per_unit: images of one unit of val.
        bytes_per_unit: of a CSV file.
        folders_per_unit: classes whose listings one task compares with the CSV file, which it
            reads for that.
    """

    config: ImageNet
    names_per_unit: int = 1000
    bytes_per_unit: int = 2**20
    folders_per_unit: int = 100

    @property
    def _tree(self) -> Tree:
        return Tree(self.config.root)

    def _class_names(self) -> dict[str, str]:
        """Names for people, by wnid."""
        rows = (line.partition(" ") for line in self._tree.text(NAMES).splitlines())
        return {wnid: name.strip() for wnid, _, name in rows}

    # ----------------------------------------------------------------------- units

    def units(self) -> list[Unit]:
        """For XML: one per wnid folder of train, and runs of val's names.

        For CSV: ranges of the file for the images with boxes ("csv"), and groups of folders for
        those without ("unboxed").

        Raises:
            DatasetError: the root, a folder or a file is missing, a CSV file has other columns,
                or the class filter names a class that the data set does not have.
        """
        config, tree = self.config, self._tree
        names = self._class_names()
        only = class_filter(config.only_classes)
        require_known(only, names, tree.url(NAMES))
        units: list[Unit] = []
        for part in config.parts:
            wnids = self._wnids() if part == "train" else []
            if config.parts == ("train",):
                require_known(only, wnids, tree.url(f"{DATA}/train"))
            wnids = [wnid for wnid in wnids if keeps(only, wnid)]
            of_part = self._csv_units if config.annotations == "csv" else self._xml_units
            units += [{"part": part, "only": only} | unit for unit in of_part(part, wnids)]
        return units

    def _wnids(self) -> list[str]:
        """The class folders of train: all that hold images or XML files."""
        wnids = set(self._tree.folders(f"{DATA}/train"))
        if self.config.annotations == "xml":
            wnids.update(self._tree.folders(f"{XML}/train"))
        return sorted(wnids)

    def _xml_units(self, part: str, wnids: list[str]) -> list[Unit]:
        if part == "train":
            return [{"kind": "xml", "wnid": wnid} for wnid in wnids]
        pairs = list_pairs(self._tree, f"{DATA}/val", f"{XML}/val", self.names_per_unit)
        return [{"kind": "xml", "wnid": ""} | pair for pair in pairs]

    def _csv_units(self, part: str, wnids: list[str]) -> list[Unit]:
        file = _csv(part)
        size = self._tree.size(file)
        header = self._tree.block(file, 0, 1).strip()
        if header != COLUMNS:
            url = self._tree.url(file)
            raise DatasetError(f"{url}: its columns are {header[:200]!r}, not {COLUMNS!r}")
        starts = range(0, size, self.bytes_per_unit)
        blocks: list[Unit] = [
            {"kind": "csv", "offset": start, "length": self.bytes_per_unit} for start in starts
        ]
        groups = chunks(wnids, self.folders_per_unit) if part == "train" else [[""]]
        return blocks + [{"kind": "unboxed", "wnids": list(group)} for group in groups]

    # ----------------------------------------------------------------------- read

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """The unit's images, in the order of their ids or, from a CSV file, of its rows."""
        names, only = self._class_names(), unit["only"]
        rows = {"xml": self._read_xml, "csv": self._read_csv, "unboxed": self._read_unboxed}
        for wnid, found in rows[unit["kind"]](unit):
            annotation = _annotation(unit["part"], wnid, found, names)
            if keeps(only, annotation.wnid):
                yield annotation

    def _read_xml(self, unit: Unit) -> Iterator[tuple[str, Found]]:
        """Images of one folder with their XML files."""
        tree, wnid = self._tree, unit["wnid"]
        images, xmls = _folder(DATA, unit["part"], wnid), _folder(XML, unit["part"], wnid)
        if wnid:
            image_names, xml_names = tree.files(images, IMAGE_SUFFIXES), tree.files(xmls, (".xml",))
        else:
            image_names, xml_names = unit["images"], unit["xmls"]
        if not image_names and not xml_names:
            yield wnid, Found(wnid, tree.url(images), left_out="empty class")
        for found in read_pairs(tree, images, image_names, xmls, xml_names):
            yield wnid, found

    def _read_csv(self, unit: Unit) -> Iterator[tuple[str, Found]]:
        """The rows of a range of a CSV file: the images with boxes."""
        part = unit["part"]
        text = self._tree.block(_csv(part), unit["offset"], unit["length"])
        header = 1 if unit["offset"] == 0 else 0
        for line in text.split("\n")[header:]:
            if line.strip():
                yield self._csv_row(part, line)

    def _csv_row(self, part: str, line: str) -> tuple[str, Found]:
        """One row: the image's folder, and its objects."""
        image_id, prediction = (text.strip() for text in line.partition(",")[::2])
        wnid = image_id.rpartition("_")[0] if part == "train" else ""
        file, uri = _csv(part), ""
        try:
            if part == "train" and not wnid:
                raise ValueError("the ImageId does not begin with a wnid and '_'")
            uri = self._tree.url(inside(f"{_folder(DATA, part, wnid)}/{image_id}.JPEG"))
            return wnid, Found(image_id, uri, file, _objects(prediction))
        except ValueError as error:
            return wnid, Found(image_id, uri, file, error=f"{file}: {image_id}: {error}")

    def _read_unboxed(self, unit: Unit) -> Iterator[tuple[str, Found]]:
        """Images of some folders that the CSV file does not name."""
        part, tree = unit["part"], self._tree
        lines = tree.text(_csv(part)).split("\n")
        boxed = {line.partition(",")[0].strip() for line in lines}
        for wnid in unit["wnids"]:
            folder = _folder(DATA, part, wnid)
            images = tree.files(folder, IMAGE_SUFFIXES, required=part == "val")
            if not images:
                yield wnid, Found(wnid, tree.url(folder), left_out="empty class")
            for image in images:
                if stem(image) not in boxed:
                    yield wnid, Found(stem(image), tree.url(f"{folder}/{image}"), left_out="no box")


def _csv(part: str) -> str:
    return f"LOC_{part}_solution.csv"


def _folder(top: str, part: str, wnid: str) -> str:
    """Of a class's images or XML files; of all val's, where the wnid is empty."""
    return f"{top}/{part}/{wnid}" if wnid else f"{top}/{part}"


def _objects(prediction: str) -> list[Object]:
    """A PredictionString: "wnid x0 y0 x1 y1", repeated.

    Raises:
        ValueError: it is empty or not of that form.
    """
    words = prediction.split()
    if not words or len(words) % 5:
        raise ValueError(f"{prediction[:200]!r} is not a sequence of 'wnid x0 y0 x1 y1'")
    return [(wnid, [number(word) for word in corners]) for wnid, *corners in chunks(words, 5)]


def _annotation(part: str, wnid: str, found: Found, names: dict[str, str]) -> Annotation:
    """Choose the class and its boxes."""
    if not wnid and found.objects:
        wnid = found.objects[0][0]
    corners = [corners for name, corners in found.objects if name == wnid]
    error = found.error
    if error is None and found.left_out is None:
        if not corners:
            error = f"{found.file}: no object" + (f" of the class {wnid}" if wnid else "")
        elif wnid not in names:
            error = f"{found.file}: the class {wnid} is not in {NAMES}"
    return Annotation(
        image_id=found.image_id,
        uri=found.uri,
        wnid=wnid,
        corners=corners,
        convention="edges",
        source=f"imagenet/{part}",
        class_name=names.get(wnid, ""),
        size=found.size,
        left_out=found.left_out,
        error=error,
    )
