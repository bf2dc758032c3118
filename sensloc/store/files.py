"""The Parquet files of a stage: how they are read, and what is stamped into them. No Ray."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from sensloc.dice import keys
from sensloc.store.run import RunDir

ROWS_PER_GROUP = 1024
"""Rows of one row group, so that a few rows of a long file cost little to read."""


def load(
    run: RunDir,
    files: Sequence[str],
    columns: Sequence[str] | None,
    split: str | None = None,
    errors: bool = False,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Return the rows of some files of a stage.

    Args:
        run: The run directory.
        files: Paths as ``RunDir.files`` and ``RunDir.file`` give them.
        columns: The columns to read; None reads all of them.
        split: The only set to keep; None keeps all.
        errors: Whether rows with an error are kept.
        where: A further condition that the kept rows meet.
    """
    wanted = pc.scalar(True) if where is None else where
    if split is not None:
        wanted &= pc.field("split") == split
    if not errors:
        wanted &= pc.field("error").is_null()
    names = None if columns is None else list(columns)
    return pads.dataset(list(files), filesystem=run.arrow).to_table(columns=names, filter=wanted)


def load_unit(
    run: RunDir,
    stage: str,
    unit: str,
    columns: Sequence[str] | None = None,
    where: pc.Expression | None = None,
) -> pa.Table:
    """Return the rows of one unit of a stage in their order, those with an error among them."""
    return load(run, [run.file(stage, unit)], columns, errors=True, where=where).combine_chunks()


def stamp(run: RunDir) -> dict[str, str]:
    """Return the metadata of every table's schema: which run made it, by which config."""
    return {"sensloc.config_hash": run.config.fingerprint, "sensloc.run": run.config.name}


def parquet(table: pa.Table, metadata: dict[str, str]) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    stamped = table.replace_schema_metadata(metadata)
    pq.write_table(stamped, buffer, compression="zstd", row_group_size=ROWS_PER_GROUP)
    return buffer.getvalue()


def errors_of(rows: pa.Table) -> int:
    """Return how many of the rows have an error."""
    return len(rows) - int(rows["error"].null_count)


def image_keys(rows: pa.Table) -> npt.NDArray[np.uint64]:
    """Return a 64-bit hash of each row's image id: [n]."""
    return keys(rows["image_id"].to_pylist(), 0)
