"""PASCAL VOC: a folder of XML files beside a folder of images, matched by file stem."""

from collections.abc import Iterator
from dataclasses import dataclass

from sensloc.config import Voc
from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.files import Tree, class_filter, keeps, main_class
from sensloc.datasets.voc_xml import list_pairs, read_pairs


@dataclass(frozen=True)
class VocReader:
    """Reads PASCAL VOC; the image id is the file stem.

    An image has one class here: that of its largest object. Its boxes are all objects of that
    class, difficult and truncated ones too; objects of other classes are ignored, and the class
    filter looks only at the chosen class. ``corners`` are the first and last pixel, from 1.

    An image without XML file or without object is left out ("no box"); an XML file without its
    image is an error. Of two images of one stem, the first in sorted order is taken.

    Attributes:
        config: the data set's section.
        names_per_unit: images of one unit.
    """

    config: Voc
    names_per_unit: int = 1000

    def units(self) -> list[Unit]:
        """Runs of file names, from one listing of each folder.

        The classes are in the XML files alone, so a class of the filter that the data set does
        not have cannot be told here.

        Raises:
            DatasetError: the root or one of the two folders is missing or empty.
        """
        config = self.config
        only = class_filter(config.only_classes)
        pairs = list_pairs(
            Tree(config.root), config.images, config.annotations, self.names_per_unit
        )
        return [{"only": only} | pair for pair in pairs]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """The unit's images, in the order of their ids."""
        config = self.config
        for found in read_pairs(
            Tree(config.root), config.images, unit["images"], config.annotations, unit["xmls"]
        ):
            wnid, corners = main_class(found.objects, "inclusive_1")
            if keeps(unit["only"], wnid):
                yield Annotation(
                    image_id=found.image_id,
                    uri=found.uri,
                    wnid=wnid,
                    corners=corners,
                    convention="inclusive_1",
                    source="voc",
                    size=found.size,
                    left_out=None if corners or found.error else "no box",
                    error=found.error,
                )
