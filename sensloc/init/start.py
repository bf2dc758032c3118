"""``sensloc init``: look at a folder, write a config for it, and say what is there and missing."""

from typing import NoReturn

import fsspec.core

from sensloc.config import absolute
from sensloc.errors import DatasetError, one_line
from sensloc.init import lacks
from sensloc.init.layouts import suggested
from sensloc.init.listing import NEEDED, InitError, Listing
from sensloc.init.look import Look, look
from sensloc.init.text import config_text, name_of
from sensloc.networks.classes import class_indices
from sensloc.networks.efficientnet_lite0 import EfficientNetLite0
from sensloc.store import storage

MOST_REASONS = 5
"""As many are named of what was tried in vain."""


def start(folder: str, output: str | None = None) -> str:
    """Write a config for a folder of photographs and boxes.

    Args:
        folder: path or URL.
        output: the file to write, path or URL; by default the folder's name and ".toml", here.

    Returns:
        What is there, what is missing, and what to do next, for a terminal.

    Raises:
        InitError: nothing that a run can learn from is there, or the file to write is.
    """
    name = name_of(folder)
    file = output or f"{name}.toml"
    files, path = fsspec.core.url_to_fs(absolute(file))
    if files.exists(path):
        raise InitError(f"{file} is there already: delete it, or name another --output")
    seen, others = _best(Listing.of(folder))
    known = class_indices(EfficientNetLite0(source="efficientnet_lite0"))
    unknown = sorted(seen.classes.keys() - known.keys())
    storage.create(files, path, config_text(name, seen, truth=not unknown).encode())
    missing = [
        *lacks.of_images(seen),
        *lacks.of_classes(unknown, len(seen.classes)),
        *(f"{other.kind} is not taken: a run has one data set" for other in others),
        *lacks.of_packages(),
    ]
    return "\n".join(
        [
            f"{folder}: {seen.kind}: {len(seen.boxed):,} images with {seen.boxes:,} boxes of "
            f"{len(seen.classes):,} classes",
            *(f"missing: {lack}" for lack in missing),
            f"{file} is written, every line explained; next: sensloc run {file}",
        ]
    )


def _best(listing: Listing) -> tuple[Look, list[Look]]:
    """Return what the reader with most usable images sees, and what others see that have some.

    Raises:
        InitError: no reader has an image with boxes that fit it.
    """
    readers, reasons = suggested(listing)
    looks = []
    for reader in readers:
        try:
            looks.append(look(reader, listing))
        except DatasetError as error:
            reasons.append(str(error))
    useful = sorted((seen for seen in looks if seen.usable), key=lambda seen: -seen.usable)
    if not useful:
        reasons += [f"{seen.kind}: {lack}" for seen in looks for lack in lacks.of_images(seen)]
        _refuse(listing, reasons)
    return useful[0], useful[1:]


def _refuse(listing: Listing, reasons: list[str]) -> NoReturn:
    """Raise the error about a folder from which no run can learn."""
    few = "\n".join(f"  {one_line(reason, 500)}" for reason in reasons[:MOST_REASONS])
    raise InitError(
        f"{listing.root}: {len(listing.images):,} images, and none with a box that can be used; "
        f"{NEEDED}" + (f"\nWhat was tried:\n{few}" if few else "")
    )
