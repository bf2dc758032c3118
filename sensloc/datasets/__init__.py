"""Dataset readers: one file per layout, each from a layout to the same ``Annotation`` rows."""

from typing import assert_never

from sensloc.config import (
    AnyDataset,
    Coco,
    ImageNet,
    Images,
    Scenes,
    Table,
    TinyImageNet,
    Voc,
    WebDataset,
)
from sensloc.datasets.annotation import Annotation, Reader
from sensloc.datasets.coco import CocoReader
from sensloc.datasets.imagenet import ImageNetReader
from sensloc.datasets.plain import ImagesReader
from sensloc.datasets.table import TableReader
from sensloc.datasets.tiny_imagenet import TinyImageNetReader
from sensloc.datasets.voc import VocReader
from sensloc.datasets.webdataset import WebDatasetReader
from sensloc.errors import DatasetError

__all__ = ["Annotation", "DatasetError", "Reader", "reader_for"]


def reader_for(dataset: AnyDataset) -> Reader:
    """The reader of a config's ``[dataset]``."""
    match dataset:
        case ImageNet():
            return ImageNetReader(dataset)
        case TinyImageNet():
            return TinyImageNetReader(dataset)
        case Voc():
            return VocReader(dataset)
        case Coco():
            return CocoReader(dataset)
        case Table():
            return TableReader(dataset)
        case WebDataset():
            return WebDatasetReader(dataset)
        case Images():
            return ImagesReader(dataset)
        case Scenes():
            from sensloc.datasets.scenes import ScenesReader  # scikit-learn, for this layout only

            return ScenesReader(dataset)
        case _:
            assert_never(dataset)
