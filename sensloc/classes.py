"""The explicit mapping between classes (wnids) and a classifier's outputs."""

from importlib import resources

import fsspec

from sensloc.config import AnyClassifier
from sensloc.errors import SenslocError


class ClassifierError(SenslocError):
    """A classifier that cannot be built: names the config key and what to do."""


def class_indices(config: AnyClassifier) -> dict[str, int]:
    """The explicit mapping from class (wnid) to the network's output.

    Raises:
        ClassifierError: the list cannot be read, or names a class twice.
    """
    names = config.classes
    if isinstance(names, str):
        names = tuple(line.split()[0] for line in _class_lines(names) if line.strip())
    indices = {name: i for i, name in enumerate(names)}
    if len(indices) < len(names) or not names:
        raise ClassifierError(f"classifier.classes: {config.classes!r} is empty or names one twice")
    return indices


def _class_lines(classes: str) -> list[str]:
    if classes == "imagenet1k":
        return resources.files("sensloc").joinpath("imagenet1k.txt").read_text().splitlines()
    try:
        with fsspec.open(classes, "r", encoding="utf-8") as file:
            return list(file)
    except (OSError, ValueError, ImportError) as error:
        raise ClassifierError(f"classifier.classes: cannot read {classes}: {error}") from error
