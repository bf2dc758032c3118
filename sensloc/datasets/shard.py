"""The samples of a tar shard: damage costs no neighbour, and is never taken for the end."""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sensloc.datasets.files import IMAGE_SUFFIXES, inside
from sensloc.errors import StorageError, shown
from sensloc.images.fetch import read_range

NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
"""Key and suffix. Other names, such as hidden files, are no part of a sample."""

NOTES = ("json", "xml")
"""Suffixes of annotations."""

STEP = 2**22
"""Bytes that are read at once: headers lie close together, requests take their time."""

LONGEST_NOTE = 2**24
"""Bytes of the longest annotation that is read."""


@dataclass(frozen=True)
class _Entry:
    """A member of a shard that belongs to a sample; or, with ``error``, what is wrong with it.

    Attributes:
        key: the sample's.
        suffix: the end of the name, in lower case.
        member: the header.
        data: the bytes of an annotation; empty for others, and for one that is too long.
        error: what is wrong with the member or, where there is none, with the shard.
    """

    key: str
    suffix: str = ""
    member: tarfile.TarInfo | None = None
    data: bytes = b""
    error: str | None = None


@dataclass
class Sample:
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
        """Whether it has both an image and an annotation."""
        return self.image() is not None and not self.files.keys().isdisjoint(NOTES)

    def image(self) -> tarfile.TarInfo | None:
        """Return the header of its image, if it has one.

        Raises:
            ValueError: it has several.
        """
        suffixes = [suffix for suffix in self.files if f".{suffix}" in IMAGE_SUFFIXES]
        if len(suffixes) > 1:
            raise ValueError(f"more than one image: .{', .'.join(suffixes)}")
        return self.files[suffixes[0]][0] if suffixes else None


def samples(url: str, shard: str) -> Iterator[Sample]:
    """Yield the samples of a shard; what is wrong with the shard itself is one more.

    Args:
        url: where the shard is.
        shard: its name in messages.

    Raises:
        StorageError: the storage does not answer, or refuses.
    """
    sample: Sample | None = None
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
                sample = Sample(entry.key, where, apart)
            else:
                sample = Sample(entry.key, entry.key)
            seen.add(entry.key)
        sample.add(entry)
    if sample is not None:
        yield sample


def _entries(url: str, shard: str) -> Iterator[_Entry]:
    """Yield the members that belong to samples; the last one may say where the shard breaks off."""
    is_empty = True
    try:
        for member, data in _members(url):
            try:
                name = NAME.fullmatch(inside(member.name).removeprefix("./"))
            except ValueError as error:
                yield _Entry(f"{shard}#{member.offset}", error=str(error))
                continue
            if name is not None and not member.isdir():
                is_empty = False
                yield _Entry(name[1], name[2].lower(), member, data)
        if is_empty:
            raise ValueError("holds no sample")
    except ValueError as error:
        yield _Entry(shard, error=str(error))


def _members(url: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Yield the headers of a tar file, each once its bytes are there, and annotations' bytes.

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
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can be sought in."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, which may be after the end; the end itself is not known."""
        self.at = offset + (self.at if whence == io.SEEK_CUR else 0)
        if self.at < 0 or whence == io.SEEK_END:
            raise ValueError(f"cannot seek to {offset}")
        return self.at

    def tell(self) -> int:
        """Return the place that is read next."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Read at most ``STEP`` bytes into a buffer; return how many."""
        data = read_range(self.url, self.at, self.at + min(len(buffer), STEP))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
