"""What a folder holds: one listing of the files of any depth that matter here."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import fsspec.core

from sensloc.datasets.files import IMAGE_SUFFIXES, Tree, stem
from sensloc.errors import SenslocError

NOTES = (".xml", ".json", ".csv", ".parquet", ".txt", ".tar")
"""How files end that may say where the boxes are."""

NEEDED = """\
boxes are needed, in one of these ways:
  boxes.csv, or any .csv or .parquet, a row per box: uri,label,x0,y0,x1,y1
  Annotations/*.xml and JPEGImages/, or any two folders, with files of the same names: PASCAL VOC
  annotations.json, or any .json, with lists images, annotations and categories: COCO
  project.json, or any .json, as Label Studio exports a project with rectangles
  ILSVRC/Data/CLS-LOC, ILSVRC/Annotations/CLS-LOC and LOC_synset_mapping.txt: ImageNet
  *.tar, an image and its .json or .xml beside it: WebDataset
A finished run finds boxes in photographs that have none: sensloc predict RUN FOLDER"""


class InitError(SenslocError):
    """No config can be written for a folder: the message says what to do."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    Attributes:
        root: the folder's path or URL.
        images: paths of the images, relative to the root, sorted.
        notes: paths of the files that may say where the boxes are, sorted.
    """

    root: str
    images: tuple[str, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, root: str) -> "Listing":
        """List a folder.

        Raises:
            InitError: there is no such folder, or it holds neither images nor annotations.
            DatasetError: a path cannot be part of a URL.
        """
        try:
            files, top = fsspec.core.url_to_fs(root)
        except (ValueError, ImportError) as error:
            raise InitError(f"{root}: {error}") from error
        if not files.isdir(top):
            raise InitError(f"{root}: no such folder: name one that holds photographs and boxes")
        files.ls(top)  # raises where it may not be read, which `find` passes over
        paths = Tree(root).find("**", (*IMAGE_SUFFIXES, *NOTES), required=False)
        if not paths:
            raise InitError(f"{root}: nothing recognisable is in it; {NEEDED}")
        images = [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]
        notes = [path for path in paths if path.lower().endswith(NOTES)]
        return cls(root, tuple(images), tuple(notes))

    def notes_of(self, *suffixes: str) -> list[str]:
        """Return the paths of the notes that end in a suffix, in any case."""
        return [path for path in self.notes if path.lower().endswith(suffixes)]

    def has(self, folder: str) -> bool:
        """Tell whether a file lies in a folder, at any depth."""
        return any(path.startswith(f"{folder}/") for path in (*self.images, *self.notes))


def by_folder(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return the stems of files by their folder; the root itself is "."."""
    stems: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        stems[folder or "."].add(stem(name))
    return dict(stems)
