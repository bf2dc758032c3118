"""The command that packs annotated images of any layout into tar shards, for ``webdataset``."""

import io
import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from sensloc.datasets.files import IMAGE_SUFFIXES, chunks
from sensloc.engine import units
from sensloc.images.fetch import ImageError, fetch
from sensloc.stages import annotations
from sensloc.store import tables
from sensloc.store.files import errors_of, load
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

IMAGES_PER_SHARD = 1000

SHARD_BYTES = 2**27
"""Where the images are large, a unit's images fill several shards of about this size."""

AT_ONCE = 64
"""Images that are in memory beside a shard."""

INDEX = "packed"

Sample = tuple[dict[str, Any], bytes | None]
"""A row of an annotation and the bytes of its image; None where the row has an error."""


def pack(run: RunDir, images_per_shard: int = IMAGES_PER_SHARD) -> str:
    """Write ``shard-*.tar``, and ``packed/``: which image is in which of them.

    A run on the shards gives the tables of a run on the files, but for the uri: image ids, boxes,
    sets, errors. Shards of equal images are equal byte by byte.

    Args:
        run: The run directory, for the shards.
        images_per_shard: Images of a shard; fewer where they are large, see ``SHARD_BYTES``.

    Returns:
        The line that says what was packed.

    Raises:
        DatasetError: There is nothing usable under the root, or an image_id occurs twice.
    """
    if not run.finished("pack"):
        reader = run.config.dataset
        reading, listing = annotations.listed(reader)
        with run.stage(
            "pack",
            *(INDEX, annotations.WORK),
            of={"data set's listing": listing},
            images_per_shard=images_per_shard,
        ) as facts:
            annotations.read_all(run, reading, reader)
            sample = annotations.draw_images(run)
            spans = sample.spans(repeat(facts["images_per_shard"]))
            todo = {unit: (unit, cut) for unit, cut in spans.items()}
            units.each(run, INDEX, todo, pack_images, sample.selection)
            packed = load(run, run.files(INDEX), ["shard", "error"], errors=True)
            errors = errors_of(packed)
            facts |= {"images": len(packed) - errors, "errors": errors}
            facts |= {"shards": pc.count_distinct(packed["shard"]).as_py()}
        run.remove(annotations.WORK)
    return "{images} images in {shards} shards, {errors} errors".format(**run.stages()["pack"])


def pack_images(
    run: RunDir, what: tuple[str, Sequence[annotations.Span]], selection: annotations.Selection
) -> pa.Table:
    """Write the shards of some annotated images; return the rows of the index."""
    unit, spans = what
    rows = annotations.read_selected(run, spans, selection)
    packed: list[dict[str, Any]] = []
    samples = _samples(rows.to_pylist(), run)
    for i, (tar, of_tar) in enumerate(tars(samples)):
        name = f"shard-{unit}.tar" if i == 0 else f"shard-{unit}-{i}.tar"
        run.write(name, tar)
        packed += [row | {"shard": name} for row in of_tar]
    return pa.Table.from_pylist(packed, tables.PACKED)


def tars(samples: Iterator[Sample]) -> Iterator[tuple[bytes, list[dict[str, Any]]]]:
    """Yield the samples as tar files with their rows, a new file where one has ``SHARD_BYTES``."""
    full = True
    while full:
        full, rows, buffer = False, [], io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as shard:
            for row, image in samples:
                rows.append(row)
                # dots part the suffix from the key, slashes are folders
                name = quote(row["image_id"], safe="").replace(".", "%2E")
                if image is not None:
                    _add(shard, f"{name}.{_suffix(row['uri'])}", image)
                _add(shard, f"{name}.json", json.dumps(_note(row)).encode())
                if buffer.tell() >= SHARD_BYTES:
                    full = True
                    break
        if rows:
            yield buffer.getvalue(), rows


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    header = tarfile.TarInfo(name)  # owner and time are 0
    header.size = len(data)
    shard.addfile(header, io.BytesIO(data))


def _samples(rows: list[dict[str, Any]], run: RunDir) -> Iterator[Sample]:
    """Yield each row and its image's bytes, or an error as in the manifest."""
    for chunk in chunks(rows, AT_ONCE):
        good = [row["uri"] for row in chunk if row["error"] is None]
        fetched = iter(fetch(good, run.config.resources.connections))
        for row in chunk:
            data = None if row["error"] else next(fetched)
            if isinstance(data, ImageError):
                row["error"], data = f"{row['uri']}: {data}", None
            yield row, data


def _suffix(uri: str) -> str:
    """Return the suffix of an image's name in the shard; its bytes say how it is decoded."""
    suffix = f".{uri.rpartition('.')[2].lower()}"
    return suffix[1:] if suffix in IMAGE_SUFFIXES else "jpg"


def _note(row: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON annotation that ``sensloc.datasets.webdataset`` reads."""
    names = ("image_id", "wnid", "class_name", "source")
    note = {name: row[name] for name in names}
    if row["error"]:
        return note | {"error": row["error"]}
    note |= {"boxes": row["corners"], "convention": row["convention"]}
    return note | dict(zip(("width", "height"), row["size"] or (), strict=False))
