"""What all layouts share: their files, through fsspec, and a few checks of what is in them.

A root may be a local folder, ``s3://``, ``gs://``, ``memory://`` or any other URL of fsspec.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import fsspec.core
import fsspec.utils

from sensloc.boxes import Convention
from sensloc.errors import DatasetError, one_line

MOST_PIXELS = 2**31 - 1
"""A larger width or height is none: image formats and tables have 31 bits for it."""

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")

Item = TypeVar("Item")

Object = tuple[str, list[float]]
"""One annotated object: its class and its four corners, as the layout writes them."""

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True)
class Tree:
    """The files below one root. Paths are relative to it and use "/"."""

    root: str
    advice: str = "set dataset.root or --data to"
    """How another folder is named."""

    def url(self, path: str) -> str:
        """Where ``path`` is: a local path for a local root, or a URL.

        In a chain such as ``simplecache::s3://bucket`` the path goes to the first link that has
        a place for it.
        """
        links = self.root.split("::")
        at = next((i for i, link in enumerate(links) if "://" in link), 0)
        links[at] += path if links[at].endswith("/") else f"/{path}"
        return "::".join(links)

    def folders(self, path: str) -> list[str]:
        """Names of the folders in ``path``, sorted.

        Raises:
            DatasetError: there is none.
        """
        names = sorted(entry.name for entry in self._entries(path) if entry.is_folder)
        if not names:
            self._fail(path, "no such folder, or no folder in it")
        return names

    def files(self, path: str, suffixes: tuple[str, ...], *, required: bool = False) -> list[str]:
        """Names of the files in ``path`` that end in one of ``suffixes``, in any case, sorted.

        Raises:
            DatasetError: ``required``, and there is none.
        """
        files = [entry.name for entry in self._entries(path) if not entry.is_folder]
        names = sorted(name for name in files if name.lower().endswith(suffixes))
        if required and not names:
            self._fail(path, f"no such folder, or no file in it that ends in {'|'.join(suffixes)}")
        return names

    def find(self, pattern: str, suffixes: tuple[str, ...]) -> list[str]:
        """Paths of the files at any depth that match a pattern and end so, in any case, sorted.

        ``*`` and ``?`` stay within a name, ``**`` is any depth. Hidden files and folders are left
        alone, as are pipes, sockets and devices.

        Raises:
            DatasetError: there is none, or a path that cannot be part of a URL.
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
        if not paths:
            self._fail("", f"no file matches {pattern!r} and ends in {'|'.join(suffixes)}")
        return sorted(paths)

    def size(self, path: str) -> int:
        """Bytes of a file.

        Raises:
            DatasetError: there is no such file.
        """
        fs, full = _locate(self.url(path))
        if not fs.isfile(full):
            self._fail(path, "no such file")
        return int(fs.size(full))

    def text(self, path: str) -> str:
        """A text file, whole. What is not UTF-8 becomes lone surrogates, see ``Annotation``.

        Raises:
            DatasetError: there is no such file.
        """
        try:
            return _text(self.url(path))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._fail(path, "no such file")

    def block(self, path: str, offset: int, length: int) -> str:
        r"""The lines of a text file that begin in a range of bytes; ranges in a row share none.

        A line that begins exactly at ``offset`` > 0 belongs to the range before.
        """
        with self.open(path) as file:
            data = fsspec.utils.read_block(file, offset, length, b"\n")
        return str(data.decode("utf-8-sig", errors="surrogateescape"))

    @contextmanager
    def open(self, path: str) -> Iterator[Any]:
        """A file, open for reading bytes; small steps, so that a range costs only its bytes."""
        fs, full = _locate(self.url(path))  # an archive's file system must outlive its files
        with fs.open(full, "rb", block_size=2**16) as file:
            yield file

    def fetch(self, paths: Iterable[str]) -> list[bytes | Exception]:
        """Many small files, at the same time where the file system can.

        Returns:
            for each path its bytes, or what went wrong with it.
        """
        fs, root = _locate(self.root)
        full = [f"{root.rstrip('/')}/{path}" for path in paths]
        return list(fs.cat_ranges(full, None, None, on_error="return"))

    def _entries(self, path: str) -> "list[_Entry]":
        """The files and folders in a folder, in one call; nothing where there is no such folder.

        Pipes, sockets and devices are neither: to read one could take for ever.

        Raises:
            DatasetError: a name that cannot be part of a URL.
        """
        fs, full = _locate(self.url(path))
        try:
            found = fs.ls(full, detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        entries = []
        for info in found:
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
        """Say what is missing: the root itself, if that is it."""
        fs, full = _locate(self.root)
        if not fs.isdir(full):
            raise DatasetError(f"{self.root}: no such folder; {self.advice} it")
        raise DatasetError(
            f"{self.url(path)}: {problem}; this layout needs it: complete the data set, or "
            f"{self.advice} the folder that holds it"
        )


@dataclass(frozen=True)
class _Entry:
    """One line of a listing."""

    name: str
    is_folder: bool


def _locate(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise DatasetError(f"{url}: {error}") from error
    return fs, str(path)


def _text(url: str) -> str:
    fs, path = _locate(url)
    return str(fs.cat_file(path).decode("utf-8-sig", errors="surrogateescape"))


# --------------------------------------------------------------------------- the class filter


def class_filter(url: str | None) -> list[str] | None:
    """The classes of an ``only_classes`` file: the first word of each line; None without a file.

    It is read where the units are made and travels in them, so workers need not see the file.

    Raises:
        DatasetError: there is no such file, or it names no class.
    """
    if url is None:
        return None
    try:
        lines = _text(url).splitlines()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DatasetError(
            f"{url}: no such file; dataset.only_classes must name a text file, one class a line"
        ) from error
    classes = sorted({line.split()[0] for line in lines if line.strip()})
    if not classes:
        raise DatasetError(f"{url}: names no class; dataset.only_classes wants one on each line")
    return classes


def require_known(only: Collection[str] | None, known: Iterable[str], where: str) -> None:
    """Refuse a class filter that names what the data set does not have.

    Raises:
        DatasetError: naming the classes that are not in ``known``, and ``where`` they should be.
    """
    unknown = sorted(set(only or ()) - set(known))
    if unknown:
        raise DatasetError(f"dataset.only_classes names {', '.join(unknown)}: not in {where}")


def keeps(only: Collection[str] | None, wnid: str) -> bool:
    """Whether a class passes the filter. An unknown class ("") does: its row says why."""
    return only is None or not wnid or wnid in only


# --------------------------------------------------------------------------- small things


def chunks(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Runs of at most ``size`` items."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def stem(name: str) -> str:
    """A file name without its suffix."""
    return name.rpartition(".")[0] or name


def by_stem(names: Iterable[str]) -> dict[str, str]:
    """File names under their stems; of two with one stem, the first in sorted order."""
    return {stem(name): name for name in sorted(names, reverse=True)}


def shown(value: object) -> str:
    """Python's own way to write a value, shortened for a message."""
    return one_line(repr(value), 100)


def inside(path: str) -> str:
    """``path`` itself, once it is certain to stay below the folder that it will be joined to.

    Raises:
        ValueError: it is empty or absolute, a URL, or climbs with "..".
    """
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or "::" in path or "://" in path:
        raise ValueError(f"path {shown(path)} is not inside the data set's folder")
    return path


def number(value: object) -> float:
    """A finite number.

    Raises:
        ValueError: it is not. Neither is True, nor what only Python reads as one: "1_000".
    """
    try:
        if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
            raise ValueError
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{shown(value)} is not a number") from error
    if not math.isfinite(result):
        raise ValueError(f"{shown(value)} is not finite")
    return result


def declared_size(width: object, height: object) -> Size | None:
    """(width, height) as an annotation declares it; None unless both are whole and positive.

    Raises:
        ValueError: no image is so large.
    """
    try:
        size = int(str(width)), int(str(height))
    except ValueError:
        return None
    if max(size) > MOST_PIXELS:
        raise ValueError(f"its size is {shown(size)} pixels")
    return size if min(size) > 0 else None


def main_class(objects: Sequence[Object], convention: Convention) -> tuple[str, list[list[float]]]:
    """The class of the largest object, the first of equals, and all corners of that class.

    Returns:
        the class ("" without objects), and its corners, [n][4].
    """
    if not objects:
        return "", []
    wnid = max(objects, key=lambda item: _area(item[1], convention))[0]
    return wnid, [corners for name, corners in objects if name == wnid]


def _area(corners: list[float], convention: Convention) -> float:
    """Of one box as its layout writes it; 0 where it has none."""
    x0, y0, x1, y1 = corners
    if convention == "xywh":
        width, height = x1, y1
    else:
        pixel = 1 if convention in ("inclusive_0", "inclusive_1") else 0
        width, height = x1 - x0 + pixel, y1 - y0 + pixel
    return max(width, 0.0) * max(height, 0.0)
