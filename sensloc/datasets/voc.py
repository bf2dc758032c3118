"""PASCAL VOC: a folder of XML files beside a folder of images, matched by file stem."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.values import main_class
from sensloc.datasets.voc_xml import list_pairs, read_pairs


class Voc(Dataset):
    """PASCAL VOC XML files beside a folder of images; the image id is the file stem.

    An image has one class here: that of its largest object. Its boxes are all objects of that
    class, difficult and truncated ones too; objects of other classes are ignored, and the class
    filter looks only at the chosen class. Corners are the first and last pixel, from 1.

    An image without XML file or without object is left out ("no box"); an XML file without its
    image is an error. Of two images of one stem, the first in sorted order is taken.
    """

    layout: Literal["voc"]
    images: str = "JPEGImages"
    annotations: str = "Annotations"

    names_per_unit: ClassVar[int] = 1000
    """Images of one unit."""

    def units(self) -> list[Unit]:
        """Return runs of file names, from one listing of each folder.

        The classes are in the XML files alone, so a class of the filter that the data set does
        not have cannot be told here.

        Raises:
            DatasetError: the root or one of the two folders is missing or empty.
        """
        only = class_filter(self.only_classes)
        pairs = list_pairs(self.tree, self.images, self.annotations, self.names_per_unit)
        return [{"only": only} | pair for pair in pairs]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images, in the order of their ids."""
        for image in read_pairs(
            self.tree, self.images, unit["images"], self.annotations, unit["xmls"]
        ):
            wnid, corners = main_class(image.objects, "inclusive_1")
            if keeps(unit["only"], wnid):
                yield Annotation(
                    image_id=image.image_id,
                    uri=image.uri,
                    wnid=wnid,
                    corners=corners,
                    convention="inclusive_1",
                    source="voc",
                    size=image.size,
                    left_out=None if corners or image.error else NO_BOX,
                    error=image.error,
                )
