"""A data set as large as it has to be: real JPEGs with their real boxes, each file another content.

The images of a Tiny ImageNet folder, over and over, in ImageNet's layout as distributed. A copy
is its original with its running number in a JPEG comment: the same pixels, another content.
"""

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from multiprocessing import get_context
from pathlib import Path

from sensloc.datasets import Annotation, voc_xml
from sensloc.datasets.files import chunks
from sensloc.datasets.imagenet import DATA, NAMES, XML
from sensloc.datasets.tiny_imagenet import TinyImageNet
from sensloc.errors import DatasetError, SenslocError
from sensloc.images.fetch import ImageError, fetch
from sensloc.images.inspection import inspect

log = logging.getLogger(__name__)

MARKER = "rehearsal.json"
"""Name of the file that is written last: with it, the set is complete."""

BYTES_PER_ROW = 3 * 4096
"""Bytes on the disk: an image of a thumbnail's size, its XML file, their inodes and names."""

ORIGINALS_PER_TASK = 250


class RehearsalError(SenslocError):
    """A rehearsal cannot be held: the message says what is in the way, and what to do."""


def make_dataset(source: str, folder: Path, rows: int) -> None:
    """Write ``rows`` images and as many XML files, unless the same set is complete.

    Image ``n`` is a copy of original ``n % originals``; the originals take turns by class, so
    that a small set has all classes too. A set that was cut off is written again.

    Args:
        source: root of Tiny ImageNet.
        folder: root of the new set.
        rows: number of images.

    Raises:
        RehearsalError: another set is there, the disk has no room for it, or an original is no
            JPEG; the message names the file.
        DatasetError: ``source`` has no Tiny ImageNet.
    """
    wanted, marker = {"rows": rows, "source": os.path.abspath(source)}, folder / MARKER
    if marker.exists():
        present = json.loads(marker.read_text())
        if present != wanted:
            raise RehearsalError(f"{folder} holds another set, {present}: delete it")
        log.info("%s is complete", folder)
        return
    originals = _originals(source)
    folder.mkdir(parents=True, exist_ok=True)
    _require_room(folder, rows)
    _prepare(folder, originals)
    write = partial(_write, folder=str(folder), step=len(originals), rows=rows)
    tasks = chunks(list(enumerate(originals[:rows])), ORIGINALS_PER_TASK)
    written = 0
    with get_context("spawn").Pool() as pool:  # no fork: the caller may have threads
        for task, count in enumerate(pool.imap_unordered(write, tasks), 1):
            written += count
            if task % max(1, len(tasks) // 10) == 0:
                log.info("%s: %d of %d images", folder, written, rows)
    marker.write_text(json.dumps(wanted))


def _originals(source: str) -> list[Annotation]:
    """Return the boxed images of Tiny ImageNet: one of each class, then the next of each class."""
    reader = TinyImageNet(layout="tiny_imagenet", root=os.path.abspath(source))
    classes: dict[str, list[Annotation]] = defaultdict(list)
    for unit in reader.units():
        for row in reader.read(unit):
            if row.error is None and row.left_out is None:
                classes[row.wnid].append(row)
    turns = zip_longest(*(classes[wnid] for wnid in sorted(classes)))
    originals = [row for row in chain.from_iterable(turns) if row is not None]
    if not originals:
        raise DatasetError(f"{source}: no image with a box")
    return originals


def _require_room(folder: Path, rows: int) -> None:
    """Refuse to fill a disk.

    Raises:
        RehearsalError: the disk lacks bytes or inodes.
    """
    free, needed = shutil.disk_usage(folder).free, rows * BYTES_PER_ROW
    if free < needed:
        raise RehearsalError(
            f"{folder}: {rows:,} images want about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            "are free: choose another --output, or fewer --rows"
        )
    disk = os.statvfs(folder)
    if disk.f_files and disk.f_favail < 2 * rows:  # no f_files: inodes are made when needed
        raise RehearsalError(
            f"{folder}: {rows:,} images want {2 * rows:,} inodes, and {disk.f_favail:,} are free: "
            "choose another --output, or fewer --rows"
        )


def _prepare(folder: Path, originals: Sequence[Annotation]) -> None:
    """Make the folders of all classes, and the file of their names."""
    names = {row.wnid: row.class_name for row in originals}
    for wnid in names:
        for top in (DATA, XML):
            (folder / top / "train" / wnid).mkdir(parents=True, exist_ok=True)
    (folder / NAMES).write_text("".join(f"{wnid} {name}\n" for wnid, name in names.items()))


def _write(originals: Sequence[tuple[int, Annotation]], folder: str, step: int, rows: int) -> int:
    """Write copies first, first + step, ... below ``rows`` of each original; return how many."""
    written = 0
    contents = fetch([row.uri for _, row in originals])
    for (first, row), content in zip(originals, contents, strict=True):
        try:
            if isinstance(content, ImageError):
                raise content
            seen = inspect(content)
            for number in range(first, rows, step):
                path = f"train/{row.wnid}/{row.wnid}_{number:08d}"
                copy = numbered(content, number)
                Path(f"{folder}/{DATA}/{path}.JPEG").write_bytes(copy)
                xml = _xml(row, path.rpartition("/")[2], seen.width, seen.height)
                Path(f"{folder}/{XML}/{path}.xml").write_bytes(xml)
                written += 1
        except ImageError as error:
            raise RehearsalError(f"{row.uri}: {error}") from error
    return written


def numbered(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG with a number in a comment, right after the start of the file.

    Raises:
        ImageError: the file is no JPEG.
    """
    if not jpeg.startswith(b"\xff\xd8"):
        raise ImageError("not a JPEG")
    text = f"rehearsal {number}".encode()
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _xml(row: Annotation, name: str, width: int, height: int) -> bytes:
    """Return an annotation as ImageNet writes it: corners are edges, the original's are pixels."""
    corners = [(x0, y0, x1 + 1, y1 + 1) for x0, y0, x1, y1 in row.corners]
    return voc_xml.write(name, (width, height), [(row.wnid, box) for box in corners])
