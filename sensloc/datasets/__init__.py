"""The layouts of data sets: one file each, from a config section to ``Annotation`` rows.

To add a layout, write its file (a subclass of ``Dataset``) and add it to ``AnyDataset``.
"""

from typing import Annotated

from pydantic import Field

from sensloc.datasets.annotation import Annotation
from sensloc.datasets.coco import Coco
from sensloc.datasets.dataset import Dataset, Reader, Unboxed
from sensloc.datasets.imagenet import ImageNet
from sensloc.datasets.images import Images
from sensloc.datasets.label_studio import LabelStudio
from sensloc.datasets.scenes import Scenes
from sensloc.datasets.table import Table
from sensloc.datasets.tiny_imagenet import TinyImageNet
from sensloc.datasets.voc import Voc
from sensloc.datasets.webdataset import WebDataset

__all__ = ["Annotation", "AnyDataset", "Dataset", "Reader", "Unboxed"]

AnyDataset = Annotated[
    ImageNet
    | TinyImageNet
    | Voc
    | Coco
    | LabelStudio
    | Table
    | WebDataset
    | Images
    | Scenes,
    Field(discriminator="layout"),
]  # fmt: skip
"""The section ``[dataset]``: the key ``layout`` chooses among these."""
