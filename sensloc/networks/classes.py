"""The explicit mapping between classes (wnids) and a network's outputs."""

from importlib import resources
from typing import TYPE_CHECKING

import fsspec

from sensloc.errors import ClassifierError

if TYPE_CHECKING:
    from sensloc.networks.classifier import Classifier


def class_indices(config: "Classifier") -> dict[str, int]:
    """Return the network's output of each class (wnid).

    Raises:
        ClassifierError: the list cannot be read, or names a class twice.
    """
    names = tuple(wnid for wnid, _ in _named(config))
    indices = {name: i for i, name in enumerate(names)}
    if len(indices) < len(names) or not names:
        raise ClassifierError(f"classifier.classes: {config.classes!r} is empty or names one twice")
    return indices


def class_names(config: "Classifier") -> tuple[str, ...]:
    """Return a name for people of each of the network's outputs: its line's first, or the class.

    Raises:
        ClassifierError: the list cannot be read.
    """
    return tuple(name for _, name in _named(config))


def _named(config: "Classifier") -> list[tuple[str, str]]:
    """Return each class, and its first name."""
    if not isinstance(config.classes, str):
        return [(wnid, wnid) for wnid in config.classes]
    parts = [line.split(maxsplit=1) for line in _class_lines(config.classes) if line.strip()]
    return [(part[0], part[-1].split(",")[0].strip()) for part in parts]


def _class_lines(classes: str) -> list[str]:
    """Return the lines of ImageNet's list, or of a file of the user's."""
    if classes == "imagenet1k":
        return resources.files("sensloc").joinpath("imagenet1k.txt").read_text().splitlines()
    try:
        with fsspec.open(classes, "r", encoding="utf-8") as file:
            return list(file)
    except (OSError, ValueError, ImportError) as error:
        raise ClassifierError(f"classifier.classes: cannot read {classes}: {error}") from error
