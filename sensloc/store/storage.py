"""Files that appear whole or not at all, on a disk or an object store (fsspec)."""

import os
import uuid
from typing import Any

from fsspec.implementations.local import LocalFileSystem

WHOLE = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"})
"""File systems that show a new file only when all of it is there; elsewhere it is renamed."""

PART = ".part"
"""Suffix of a file that is being written; its name begins with a dot, so that no reader of a
folder takes it for a table."""


def replace(files: Any, path: str, data: bytes) -> None:
    """Write a file: a reader sees the old one or the new one, whoever dies when.

    Args:
        files: an fsspec file system.
        path: on it; its folder is made.
        data: all of it.
    """
    if WHOLE.intersection(_protocols(files)):
        files.pipe_file(path, data)
        return
    folder, _, name = path.rpartition("/")
    files.makedirs(folder, exist_ok=True)
    part = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}{PART}"
    if isinstance(files, LocalFileSystem):
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    else:
        files.pipe_file(part, data)
        files.mv(part, path)


def create(files: Any, path: str, data: bytes) -> None:
    """Write a small file that is not there yet: of several who try at once, one can.

    Raises:
        FileExistsError: it is there.
    """
    if isinstance(files, LocalFileSystem):
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
    else:
        files.pipe_file(path, data, mode="create")


def remove_parts(files: Any, folder: str) -> None:
    """Remove what writers that were killed left in a folder."""
    for path in files.glob(f"{folder}/.*{PART}"):
        files.rm_file(path)


def _protocols(files: Any) -> tuple[str, ...]:
    """Return the names of a file system's protocols."""
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
