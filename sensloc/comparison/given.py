"""Heat maps that others made: read from where the config says, and made a column like our own."""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec.core
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from torch.nn import functional as F

from sensloc.comparison.proposals import with_failures
from sensloc.config.sections import IMAGE_ID
from sensloc.errors import one_line
from sensloc.heatmaps import given
from sensloc.images.fetch import ImageError, fetch
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir, RunError

Grid = npt.NDArray[np.float16]

COLUMNS = ("image_id", "map", "height", "width")
"""Of a Parquet table of maps."""

LOOKED_AT = 64
"""Images whose maps are looked for before anything is made."""


def require(run: RunDir) -> None:
    """Make sure that there are maps of the run's images where the config says.

    Raises:
        RunError: There is none of the first images; the message says what was looked for.
    """
    first = run.files("sensitivity")[0].rpartition("/")[2].removesuffix(".parquet")
    rows = load_unit(run, "sensitivity", first, ["image_id", "error"])
    ids = rows.filter(pc.is_null(rows["error"]))["image_id"].to_pylist()[:LOOKED_AT]
    for name, place in run.config.compare.maps.items():
        maps = read(place, ids, run.config.sensitivity.grid)
        problems = [problem for problem in maps if isinstance(problem, ValueError)]
        if problems and len(problems) == len(ids):
            raise RunError(
                f"compare.maps.{name} = {place!r}: no map of {len(ids)} of the run's images, whose "
                f"ids are such as {ids[0]!r}: {problems[0]}"
            )


def beside(run: RunDir, rows: pa.Table) -> pa.Table:
    """Return rows of the comparison with a column for each of ``compare.maps``.

    A map that is missing or broken is null, and ``failures`` says why.
    """
    grid, good = run.config.sensitivity.grid, np.asarray(pc.is_null(rows["error"]))
    ids = rows.filter(pa.array(good))["image_id"].to_pylist()
    failures: list[dict[str, str]] = [{} for _ in range(len(rows))]
    for name, place in run.config.compare.maps.items():
        column, values, there = given(name), np.zeros((len(rows), grid**2), np.float32), good.copy()
        for i, found in zip(np.flatnonzero(good), read(place, ids, grid), strict=True):
            if isinstance(found, ValueError):
                there[i], failures[i][column] = False, str(found)
            else:
                values[i] = found
        rows = rows.append_column(column, tables.nullable(values, there, pa.float32()))
    return with_failures(rows, failures)


def read(place: str, image_ids: Sequence[str], grid: int) -> list[Grid | ValueError]:
    """Read the maps of some images, each as our own are kept: see ``encoded``.

    Args:
        place: See ``Compare.maps``.
        image_ids: n of them.
        grid: G.

    Returns:
        For each image its map, float16 [G * G], or what is wrong with it.

    Raises:
        RunError: There is no such table, or it has other columns.
        StorageError: The storage does not answer, or refuses.
    """
    arrays = _of_files if IMAGE_ID in place else _of_table
    maps: list[Grid | ValueError] = []
    for array in arrays(place, image_ids):
        try:
            if isinstance(array, ValueError):
                raise array
            maps.append(encoded(array, grid))
        except ValueError as error:
            maps.append(error)
    return maps


def encoded(array: npt.NDArray[Any], grid: int) -> Grid:
    """Return a map on our grid, in [0, 1]: [h, w] of any size -> float16 [G * G], row by row.

    It is interpolated where it is coarser than the grid, and means are taken over cells where it is
    finer. Zero stays zero, unless there are values below it: then the least becomes zero. The
    greatest becomes one.

    Raises:
        ValueError: It is no map: not of two axes (axes of one aside), no numbers, not finite.
    """
    array = array.reshape([side for side in array.shape[:-2] if side != 1] + [*array.shape[-2:]])
    if array.ndim != 2 or array.dtype.kind not in "biuf" or not array.size:
        raise ValueError(f"an array {list(array.shape)} of {array.dtype}, not a map [h, w]")
    if not np.isfinite(array).all():
        raise ValueError("the map is not finite")
    maps = torch.from_numpy(array.astype(np.float64))[None, None]
    finer = [max(side, grid) for side in array.shape]
    if finer != list(array.shape):
        maps = F.interpolate(maps, size=finer, mode="bilinear")
    pooled = F.adaptive_avg_pool2d(maps, grid).numpy().reshape(-1)
    above = pooled - min(pooled.min(), 0)
    return np.asarray(above / (above.max() or 1), np.float16)


def _of_files(place: str, image_ids: Sequence[str]) -> Iterator[npt.NDArray[Any] | ValueError]:
    """Yield the array of each image's own file."""
    for data in fetch([place.replace(IMAGE_ID, image_id) for image_id in image_ids]):
        if isinstance(data, ImageError):
            yield data
            continue
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            yield ValueError(f"not a .npy file: {one_line(str(error), 200)}")
            continue
        yield array if isinstance(array, np.ndarray) else ValueError("a .npz file, not a .npy file")


def _of_table(place: str, image_ids: Sequence[str]) -> Iterator[npt.NDArray[Any] | ValueError]:
    """Yield the array of each image's row.

    Raises:
        RunError: There is no such table, or it has other columns.
    """
    wanted = pc.field("image_id").isin(pa.array(image_ids, pa.string()))
    try:
        files, path = fsspec.core.url_to_fs(place)
        dataset = pads.dataset(path, filesystem=PyFileSystem(FSSpecHandler(files)))
        rows = dataset.to_table(columns=list(COLUMNS), filter=wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise RunError(
            f"{place}: no Parquet table with the columns {', '.join(COLUMNS)}: "
            f"{one_line(str(error), 300)}"
        ) from error
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_id.setdefault(row["image_id"], []).append(row)
    for image_id in image_ids:
        found = by_id.get(image_id, [])
        yield _array(found[0]) if len(found) == 1 else ValueError(f"{len(found)} rows of it")


def _array(row: dict[str, Any]) -> npt.NDArray[Any] | ValueError:
    """Return the array of a row."""
    height, width, values = row["height"], row["width"], row["map"]
    count = 0 if values is None else len(values)
    if not count or count != (height or 0) * (width or 0):
        return ValueError(f"a map of {count} values, height {height} and width {width}")
    return np.asarray(values, np.float64).reshape(height, width)
