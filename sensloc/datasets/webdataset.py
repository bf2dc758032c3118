"""WebDataset: tar shards in which the files of one sample stand next to each other.

In a shard::

    n01440764_10026.jpg    the image: .jpg, .jpeg, .png, ...
    n01440764_10026.json   {"wnid": "n01440764", "boxes": [[x0, y0, x1, y1], ...], ...}
    n01440764_10029.jpg
    n01440764_10029.xml    or PASCAL VOC's XML, as ILSVRC has it

A sample's key is the path up to the first dot of the file name. A JSON annotation may also hold
image_id (the key where it is absent), class_name, width and height, convention (of the boxes,
see ``sensloc.boxes``) and source; "label" is another name of "wnid". With "error", and no image
beside it, it says that this image is not there, and why. ``sensloc pack`` writes such shards.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, get_args

from sensloc.boxes import Convention
from sensloc.config import WebDataset
from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.files import (
    IMAGE_SUFFIXES,
    Tree,
    class_filter,
    declared_size,
    inside,
    keeps,
    main_class,
    number,
    shown,
)
from sensloc.datasets.voc_xml import parse
from sensloc.errors import DatasetError, StorageError
from sensloc.images.fetch import read_range

NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""Key and suffix. Other names, such as hidden files, are no part of a sample."""

NOTES = ("json", "xml")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

STEP = 2**22
"""Bytes that are read at once: headers lie close together, requests take their time."""

LONGEST_NOTE = 2**24
"""Bytes of an annotation."""


@dataclass(frozen=True)
class WebDatasetReader:
    """Reads WebDataset shards. An image's uri is its range of the shard's bytes.

    An image has one class: its JSON annotation's or, of an XML annotation, that of its largest
    object, whose boxes are all objects of that class. An image without annotation or without box
    is left out ("no box"). A bad sample is an error under its key, a shard that breaks off (or is
    no tar file) an error under its name; what stands before the break is read.
    """

    config: WebDataset

    @property
    def _tree(self) -> Tree:
        return Tree(self.config.root)

    def units(self) -> list[Unit]:
        """One per shard.

        The classes are in the shards alone, so a class of the filter that the data set does not
        have cannot be told here.

        Raises:
            DatasetError: the root is missing, no name matches, or a shard is compressed.
        """
        folder, _, pattern = self.config.shards.rpartition("/")
        there = self._tree.files(folder, (".tar", *COMPRESSED), required=True)
        names = [name for name in there if fnmatchcase(name, pattern)]
        url = self._tree.url(folder)
        for name in names or there:
            if name.lower().endswith(COMPRESSED):
                raise DatasetError(
                    f"{url}: {name} is compressed: images are read by their place in a shard, so "
                    "unpack it to a .tar (images are compressed already)"
                )
            if not name.endswith(".tar"):
                raise DatasetError(f"{url}: {name}: the name of a shard must end in .tar")
        if not names:
            raise DatasetError(f"{url}: no name matches dataset.shards, {pattern!r}: {there[0]}")
        only = class_filter(self.config.only_classes)
        return [{"shard": f"{folder}/{name}".lstrip("/"), "only": only} for name in names]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """The shard's images, in its order.

        Raises:
            StorageError: the storage does not answer, or refuses.
        """
        shard = unit["shard"]
        url = self._tree.url(shard)
        for sample in _samples(url, shard):
            row = self._row(sample, url, shard)
            if keeps(unit["only"], row.wnid):
                yield row

    def _row(self, sample: "_Sample", url: str, shard: str) -> Annotation:
        values: dict[str, Any] = {"image_id": sample.name, "uri": url, "wnid": ""}
        try:
            if sample.error:
                raise ValueError(sample.error)
            image = sample.image()
            if image is not None:
                values["uri"] = f"{url}#{image.offset_data}+{image.size}"
            values |= self._noted(sample)
            if image is None and "error" not in values:
                raise ValueError("no image in this sample")
            if not values.get("corners") and "error" not in values:
                values["left_out"] = "no box"
        except ValueError as error:
            values["error"] = f"{shard}: {sample.key}: {error}"
        return Annotation(**{"source": "webdataset"} | values)

    def _noted(self, sample: "_Sample") -> dict[str, Any]:
        """What the sample's annotation says."""
        suffixes = [suffix for suffix in NOTES if suffix in sample.files]
        if not suffixes:
            return {}
        if len(suffixes) > 1:
            raise ValueError("two annotations, .json and .xml")
        member, data = sample.files[suffixes[0]]
        try:
            if member.size > LONGEST_NOTE:
                raise ValueError(f"{member.size:,} bytes are too many for an annotation")
            if suffixes == ["json"]:
                return _parse_json(data, self.config.convention)
            objects, size = parse(data)
        except ValueError as error:
            raise ValueError(f".{suffixes[0]}: {error}") from error
        wnid, corners = main_class(objects, self.config.convention)
        found = {"wnid": wnid, "corners": corners, "size": size}
        return found | {"convention": self.config.convention}


def _parse_json(data: bytes, convention: Convention) -> dict[str, Any]:
    """The fields of an ``Annotation`` that a JSON file tells.

    Raises:
        ValueError: it is not JSON, or not such an annotation.
    """
    try:
        loaded = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON file: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"a JSON {type(loaded).__name__}, not an object")
    names = {"wnid": "wnid", "label": "wnid"} | {
        name: name for name in ("image_id", "class_name", "source", "error")
    }
    values: dict[str, Any] = {
        names[key]: _text(key, loaded[key]) for key in reversed(names) if key in loaded
    }
    if "error" in values:
        return values
    values["convention"] = loaded.get("convention", convention)
    if values["convention"] not in get_args(Convention):
        raise ValueError(f"the convention {shown(values['convention'])} is unknown")
    if not isinstance(loaded.get("boxes"), list):
        raise ValueError("has no list of boxes")
    values["corners"] = [_box(box) for box in loaded["boxes"]]
    if values["corners"] and not values.get("wnid"):
        raise ValueError("has boxes and no wnid")
    return values | {"size": declared_size(loaded.get("width"), loaded.get("height"))}


def _text(key: str, value: object) -> str:
    """A text that any table can hold, or a number of a class."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{key} {shown(value)} is not a text")
    try:
        return str(value).encode().decode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{key} {shown(value)} is not UTF-8") from error


def _box(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"the box {shown(value)} is not a list of four numbers")
    return [number(corner) for corner in value]


# --------------------------------------------------------------------------- the shard


@dataclass(frozen=True)
class _Entry:
    """One member of a shard that belongs to a sample; or, with ``error``, what is wrong with it.

    Attributes:
        key: of the sample.
        suffix: of the name, in lower case.
        member: the header.
        data: the bytes of an annotation; empty for others, and for one that is too long.
        error: about the member or, where there is none, about the shard.
    """

    key: str
    suffix: str = ""
    member: tarfile.TarInfo | None = None
    data: bytes = b""
    error: str | None = None


@dataclass
class _Sample:
    """Members of a shard that share a key.

    Attributes:
        key: the shared part of their names.
        name: the key, or where the sample is if another one has that key.
        files: by suffix: the header and, of an annotation, the bytes.
        error: what is wrong with it.
    """

    key: str
    name: str
    error: str | None = None
    files: dict[str, tuple[tarfile.TarInfo, bytes]] = field(default_factory=dict)

    def add(self, entry: _Entry) -> None:
        """Take a member in."""
        wrong = entry.error
        if entry.member is not None:
            if entry.suffix in self.files:
                wrong = f"two files .{entry.suffix}"
            elif not entry.member.isreg() or entry.member.issparse():
                wrong = f".{entry.suffix} is a link or a sparse file"
            self.files[entry.suffix] = entry.member, entry.data
        self.error = self.error or wrong

    @property
    def is_whole(self) -> bool:
        """Does it have both an image and an annotation?"""
        return self.image() is not None and not self.files.keys().isdisjoint(NOTES)

    def image(self) -> tarfile.TarInfo | None:
        """Its image, if it has one.

        Raises:
            ValueError: it has several.
        """
        suffixes = [suffix for suffix in self.files if f".{suffix}" in IMAGE_SUFFIXES]
        if len(suffixes) > 1:
            raise ValueError(f"more than one image: .{', .'.join(suffixes)}")
        return self.files[suffixes[0]][0] if suffixes else None


def _samples(url: str, shard: str) -> Iterator[_Sample]:
    """The samples of a shard; what is wrong with the shard itself is one more."""
    sample: _Sample | None = None
    seen: set[str] = set()
    for entry in _entries(url, shard):
        if sample is None or entry.key != sample.key:
            if sample is not None:
                if entry.key == shard and not sample.is_whole:
                    sample.error = sample.error or "the shard breaks off here"
                yield sample
            if entry.key in seen:
                where = f"{shard}#{entry.member.offset if entry.member else 0}"
                apart = "comes again: the files of a sample must stand next to each other"
                sample = _Sample(entry.key, where, apart)
            else:
                sample = _Sample(entry.key, entry.key)
            seen.add(entry.key)
        sample.add(entry)
    if sample is not None:
        yield sample


def _entries(url: str, shard: str) -> Iterator[_Entry]:
    """The members of a shard that belong to samples; the last one may say where it breaks off."""
    some = False
    try:
        for member, data in _members(url):
            try:
                found = NAME.fullmatch(inside(member.name).removeprefix("./"))
            except ValueError as error:
                yield _Entry(f"{shard}#{member.offset}", error=str(error))
                continue
            if found is not None and not member.isdir():
                some = True
                yield _Entry(found[1], found[2].lower(), member, data)
        if not some:
            raise ValueError("holds no sample")
    except ValueError as error:
        yield _Entry(shard, error=str(error))


def _members(url: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The headers of a tar file, each once its bytes are known to be there; notes with theirs.

    Python's reader stops at a damaged header as it does at the end: here the end must be one.

    Raises:
        ValueError: the file is no tar file, or breaks off.
        StorageError: the storage does not answer, or refuses.
    """
    file = io.BufferedReader(_Ranges(url), STEP)
    at = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all
                if member.size < 0:
                    raise ValueError(f"{shown(member.name)} has an impossible size")
                file.seek(member.offset_data)
                wanted = member.name.lower().endswith(NOTES) and member.size <= LONGEST_NOTE
                data = file.read(member.size) if wanted else b""
                if member.size > 0:
                    file.seek(member.offset_data + member.size - 1)
                    if not file.read(1):
                        raise ValueError(f"ends within {shown(member.name)}")
                yield member, data
                at = tar.offset
            file.seek(tar.offset)
            end = file.read(STEP)
            if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
                raise ValueError("no header and no end of an archive")
    except StorageError:
        raise
    except Exception as error:  # damaged headers raise many kinds
        kind = f"breaks off at byte {at}" if at else "not a tar file"
        raise ValueError(f"{kind}: {error}") from error


class _Ranges(io.RawIOBase):
    """A file, local or remote, whose reads are requests of ranges, tried again when they fail."""

    def __init__(self, url: str) -> None:
        self.url, self.at = url, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, which may be after the end; the end itself is not known."""
        self.at = offset + (self.at if whence == io.SEEK_CUR else 0)
        if self.at < 0 or whence == io.SEEK_END:
            raise ValueError(f"cannot seek to {offset}")
        return self.at

    def tell(self) -> int:
        """The place."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read at most ``STEP`` bytes."""
        data = read_range(self.url, self.at, self.at + min(len(buffer), STEP))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
