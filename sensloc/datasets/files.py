"""The files below a data set's root, and the names of files.

A root may be a local folder, ``s3://``, ``gs://``, ``memory://`` or any other URL of fsspec.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import fsspec.core
import fsspec.utils

from sensloc.errors import DatasetError, shown

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Tree:
    """The files below one root. Paths are relative to it and use "/"."""

    root: str
    advice: str = "set dataset.root or --data to"
    """How a message says that another folder is named."""

    def url(self, path: str) -> str:
        """Return where ``path`` is: a local path for a local root, or a URL.

        In a chain such as ``simplecache::s3://bucket`` the path goes to the first link that has
        a place for it.
        """
        links = self.root.split("::")
        at = next((i for i, link in enumerate(links) if "://" in link), 0)
        links[at] += path if links[at].endswith("/") else f"/{path}"
        return "::".join(links)

    def place(self, uri: str) -> str:
        """Return where an image of a user's own table is: below the root if ``uri`` is relative.

        Raises:
            ValueError: it climbs with "..", or is a chain of URLs.
        """
        if not os.path.isabs(uri) and "://" not in uri:
            return self.url(inside(uri))
        if ".." in uri.split("/") or "::" in uri:
            raise ValueError(f"uri {shown(uri)} has '..' or '::' in it")
        return uri

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in ``path``, sorted.

        Raises:
            DatasetError: there is none.
        """
        names = sorted(entry.name for entry in self._entries(path) if entry.is_folder)
        if not names:
            self._fail(path, "no such folder, or no folder in it")
        return names

    def files(self, path: str, suffixes: tuple[str, ...], *, required: bool = False) -> list[str]:
        """Return the names of files in ``path`` that end in a suffix, in any case, sorted.

        Raises:
            DatasetError: ``required``, and there is none.
        """
        files = [entry.name for entry in self._entries(path) if not entry.is_folder]
        names = sorted(name for name in files if name.lower().endswith(suffixes))
        if required and not names:
            self._fail(path, f"no such folder, or no file in it that ends in {'|'.join(suffixes)}")
        return names

    def find(self, pattern: str, suffixes: tuple[str, ...], *, required: bool = True) -> list[str]:
        """Return the paths of files that match a pattern and end in a suffix, sorted.

        Suffixes are of any case. In the pattern ``*`` and ``?`` stay within a name, ``**`` is any
        depth. Hidden files and folders are left alone, as are pipes, sockets and devices.

        Raises:
            DatasetError: ``required``, and there is none; or a path that cannot be part of a URL.
        """
        fs, top = _locate(self.root)
        fs.invalidate_cache()
        matches = re.compile(fsspec.utils.glob_translate(pattern))
        paths = []
        for full, info in fs.find(top, detail=True).items():
            path = full.removeprefix(top).lstrip("/")
            hidden = any(part.startswith(".") for part in path.split("/"))
            if hidden or info["type"] != "file" or not path.lower().endswith(suffixes):
                continue
            if matches.match(path):
                if "::" in path:
                    raise DatasetError(f"{self.root}: rename {path!r}: '::' parts chained URLs")
                paths.append(path)
        if required and not paths:
            self._fail("", f"no file matches {pattern!r} and ends in {'|'.join(suffixes)}")
        return sorted(paths)

    def size(self, path: str) -> int:
        """Return how many bytes a file has.

        Raises:
            DatasetError: there is no such file.
        """
        fs, full = _locate(self.url(path))
        if not fs.isfile(full):
            self._fail(path, "no such file")
        return int(fs.size(full))

    def text(self, path: str) -> str:
        """Return a text file whole. What is not UTF-8 becomes lone surrogates.

        Raises:
            DatasetError: there is no such file.
        """
        try:
            return read_text(self.url(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._fail(path, "no such file")

    def block(self, path: str, offset: int, length: int) -> str:
        """Return the lines of a text file that begin in a range of bytes.

        Ranges in a row share none: a line that begins exactly at ``offset`` > 0 belongs to the
        range before.
        """
        with self.open(path) as file:
            data = fsspec.utils.read_block(file, offset, length, b"\n")
        return str(data.decode("utf-8-sig", errors="surrogateescape"))

    @contextmanager
    def open(self, path: str) -> Iterator[Any]:
        """Open a file to read bytes, in small steps, so that a range costs only its bytes."""
        fs, full = _locate(self.url(path))  # an archive's file system must outlive its files
        with fs.open(full, "rb", block_size=2**16) as file:
            yield file

    def fetch(self, paths: Iterable[str]) -> list[bytes | Exception]:
        """Read many small files, at the same time where the file system can.

        Returns:
            For each path its bytes, or what went wrong with it.
        """
        fs, root = _locate(self.root)
        full = [f"{root.rstrip('/')}/{path}" for path in paths]
        return list(fs.cat_ranges(full, None, None, on_error="return"))

    def _entries(self, path: str) -> "list[_Entry]":
        """Return the files and folders in a folder: none where there is no such folder.

        Pipes, sockets and devices are neither: to read one could take for ever.

        Raises:
            DatasetError: a name that cannot be part of a URL.
        """
        fs, full = _locate(self.url(path))
        try:
            listing = fs.ls(full, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        entries = []
        for info in listing:
            place = info["name"].rstrip("/")
            name = place.rpartition("/")[2]
            if name.startswith(".") or place.strip("/") == full.strip("/"):
                continue  # hidden, or the folder's own marker in an object store
            if "::" in name:
                raise DatasetError(f"{self.url(path)}: rename {name!r}: '::' parts chained URLs")
            if info.get("islink", False):
                is_folder = fs.isdir(info["name"])
                special = fs.exists(info["name"]) and not fs.isfile(info["name"])
            else:
                is_folder = info["type"] == "directory"
                special = info["type"] == "other"
            if is_folder or not special:
                entries.append(_Entry(name, bool(is_folder)))
        return entries

    def _fail(self, path: str, problem: str) -> NoReturn:
        """Raise an error that says what is missing: the root itself, if that is it."""
        fs, full = _locate(self.root)
        if not fs.isdir(full):
            raise DatasetError(f"{self.root}: no such folder; {self.advice} it")
        raise DatasetError(
            f"{self.url(path)}: {problem}; this layout needs it: complete the data set, or "
            f"{self.advice} the folder that holds it"
        )


@dataclass(frozen=True)
class _Entry:
    """A line of a listing."""

    name: str
    is_folder: bool


def _locate(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise DatasetError(f"{url}: {error}") from error
    return fs, str(path)


def read_text(url: str) -> str:
    """Return a text file whole. What is not UTF-8 becomes lone surrogates, see ``Annotation``."""
    fs, path = _locate(url)
    return str(fs.cat_file(path).decode("utf-8-sig", errors="surrogateescape"))


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Cut items into runs of at most ``size``."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def stem(name: str) -> str:
    """Return a file name without its suffix."""
    return name.rpartition(".")[0] or name


def by_stem(names: Iterable[str]) -> dict[str, str]:
    """Return file names by their stems; of two with one stem, the first in sorted order."""
    return {stem(name): name for name in sorted(names, reverse=True)}


def inside(path: str) -> str:
    """Return ``path`` once it is certain to stay below the folder that it will be joined to.

    Raises:
        ValueError: it is empty or absolute, a URL, or climbs with "..".
    """
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or "::" in path or "://" in path:
        raise ValueError(f"path {shown(path)} is not inside the data set's folder")
    return path
