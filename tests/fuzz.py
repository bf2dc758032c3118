"""Damaged files for every entrance of the job, read in a process that may die of them.

``python tests/fuzz.py SEED SECONDS LOG``: see tests/test_fuzz.py.
"""

import faulthandler
import io
import itertools
import json
import random
import re
import resource
import signal
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import dirty
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import test_datasets
import torch
from dirty import chunk, encode, noise
from test_webdataset import note, sample, tar

from sensloc.boxes import BoxError, unit_boxes
from sensloc.datasets.table import COLUMNS
from sensloc.datasets.voc_xml import parse
from sensloc.errors import DatasetError
from sensloc.images.decode import decode
from sensloc.images.fetch import RANGE, ImageError
from sensloc.images.inspection import inspect

LEAST = 100  # inputs of each entrance, however slow the machine
CPU_S = 20  # of one input, at most
MEMORY = 2**29  # bytes on top of what the libraries take, at most

# ------------------------------------------------------------------------------- the entrances


@dataclass(frozen=True)
class Entrance:
    """A way into the job.

    Attributes:
        files: sound files.
        read: reads one, with a folder to write in, and tells whether it was accepted.
        refusal: the error of one that is refused.
    """

    files: list[bytes]
    read: Callable[[bytes, Path], bool]
    refusal: type[Exception] | tuple[()] = ()

    def accepts(self, data: bytes, folder: Path) -> bool:
        """Tell whether the data is accepted; anything but that or the refusal is a defect."""
        try:
            return self.read(data, folder)
        except self.refusal as error:
            message = str(error)
        assert message.isprintable()
        assert 0 < len(message) <= 2000
        return False


def read_xml(data: bytes, folder: Path) -> bool:
    return all(name and np.isfinite(corners).all() for name, corners in parse(data)[0])


def read_header(data: bytes, folder: Path) -> bool:
    seen = inspect(data, dirty.GREAT)
    return seen.width * seen.height <= dirty.GREAT


def read_image(data: bytes, folder: Path) -> bool:
    pixels = decode(data, 16, dirty.GREAT).pixels
    return pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8


def read_note(data: bytes, folder: Path) -> bool:
    return reading("webdataset", "a.tar")(tar([("a.jpg", b"x"), ("a.json", data)]), folder)


def reading(layout: str, name: str, **options: str) -> Callable[[bytes, Path], bool]:
    """Return the reader of a data set that is this file; its rows hold what tables can hold."""

    def read(data: bytes, folder: Path) -> bool:
        (folder / name).write_bytes(data)
        reader = test_datasets.reader(layout, folder, **options)
        rows = [row for unit in reader.units() for row in reader.read(unit)]
        assert len({row.image_id for row in rows}) == len(rows)
        for row in rows:
            json.dumps(asdict(row), ensure_ascii=False).encode()
            assert row.error is None or (row.error.isprintable() and len(row.error) <= 1000)
            if row.error is None and (span := RANGE.fullmatch(row.uri)):
                assert int(span[2]) + int(span[3]) <= len(data)
            with suppress(BoxError):
                unit_boxes(row.corners, *(row.size or (64, 48)), row.convention)
        return any(row.error is None for row in rows)

    return read


PICTURE, SECOND = noise(0, 24, 16), noise(1, 24, 16)
TWO = {"save_all": True, "append_images": [SECOND]}
JPEGS = [
    *(encode(PICTURE.convert(mode), progressive=way) for mode in ("RGB", "L", "CMYK")
      for way in (False, True)),
    encode(PICTURE, "MPO", **TWO),
    encode(PICTURE, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0", comment=b"x", restart_marker_blocks=2),
]  # fmt: skip
IMAGES = [
    *JPEGS,
    *(encode(PICTURE.convert(mode), "PNG") for mode in ("RGB", "RGBA", "P", "1", "LA", "I;16")),
    *(encode(PICTURE, "TIFF", compression=way) for way in (None, "tiff_lzw", "jpeg", "zstd")),
    *(encode(PICTURE, kind, **TWO) for kind in ("GIF", "PNG", "WEBP")),
    *(encode(PICTURE, kind) for kind in ("BMP", "AVIF", "DDS", "EPS", "ICO", "IM", "JPEG2000",
                                         "PCX", "PPM", "QOI", "SGI", "TGA")),
]  # fmt: skip
XMLS = [case.xml for case in dirty.ANNOTATIONS if case.xml and len(case.xml) < 5000]
SHARDS = [
    tar([*sample(0, 40), (f"{'x' * 99}/y.png", b""), (f"{'x' * 99}/y.xml", dirty.GOOD_XML)], kind)
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)
] + [tar([("é" * 99 + ".jpg", b"x"), ("é" * 99 + ".json", note())])]
NOTES = [note(), note(convention="xywh", width=9, height=9, image_id="é", source="x")]
CSVS = [test_datasets.table()["boxes.csv"].encode(), b'image_id,uri,label,x0,y0,x1,y1\n"","",""']
PARQUET = io.BytesIO()
pq.write_table(pa.table({key: ["1"] for key in COLUMNS}), PARQUET)

ENTRANCES = {
    "XML": Entrance(XMLS, read_xml, ValueError),
    "header": Entrance(IMAGES, read_header, ImageError),
    "JPEG": Entrance(JPEGS, read_image, ImageError),
    "image": Entrance(IMAGES, read_image, ImageError),
    "shard": Entrance(SHARDS, reading("webdataset", "a.tar")),
    "JSON note": Entrance(NOTES, read_note),
    "CSV": Entrance(CSVS, reading("table", "boxes.csv"), DatasetError),
    "Parquet": Entrance([PARQUET.getvalue()], reading("table", "x.parquet", file="x.parquet"),
                        DatasetError),
    "COCO": Entrance([test_datasets.coco()["annotations.json"].encode()],
                     reading("coco", "annotations.json"), DatasetError),
    "Label Studio": Entrance([test_datasets.label_studio()["project.json"].encode()],
                             reading("label_studio", "project.json"), DatasetError),
}  # fmt: skip

# ------------------------------------------------------------------------------- damage

WORDS = [b"-1", b"1e999", b"NaN", b"null", b"9" * 5000, b'"', b"'", b"\r\n", b"[" * 3000, b"{}",
         b",", b"<a>" * 500, b"<!--", b"&x;", b"</annotation>", b"<![CDATA[", b"../", b"::",
         b"\xed\xa0\x80", b"\\ud800", b"77777777777\0", b"00000000000\0", b"path=x\n"]  # fmt: skip


def draw(seed: int, number: int) -> tuple[str, bytes]:
    """Draw an input: the name of its entrance, and its bytes."""
    rng = random.Random(f"{seed} {number}")
    name = list(ENTRANCES)[number % len(ENTRANCES)]
    files = ENTRANCES[name].files
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at = int(len(data) * rng.random() ** rng.choice((1, 3)))  # more in headers
        size, wide, other = int(2 ** rng.uniform(0, 9)), rng.choice((1, 2, 4, 8)), rng.choice(files)
        length = rng.choice((0, 1, 2 ** (8 * wide - 1), 256**wide - 1))
        chunk_there = data[at : at + size]
        start, stop, new = rng.choice((
            (at, at + 1, bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])),
            (at, len(data), b""),
            (at, at + size, b""),
            (at, len(data), other[rng.randrange(len(other)) :]),
            (at, at, chunk_there * rng.randrange(1, 40)),
            (at, at + wide, length.to_bytes(wide, rng.choice(("big", "little")))),
            (at, at, rng.choice((b"\0", b"\xff")) * size),
            (at, at, rng.choice(WORDS)),
        ))  # fmt: skip
        data[start:stop] = new
    return name, mended(bytes(data)) if rng.random() < 0.5 else bytes(data)


def mended(data: bytes) -> bytes:
    """Mend the checksums of a PNG or tar file, so that the damage gets further in."""
    out = bytearray(data)
    if data.startswith(b"\x89PNG"):
        at = 8
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            out[at:end] = chunk(data[at + 4 : at + 8], data[at + 8 : end - 4])
            at = end
    for magic in re.finditer(b"ustar", data):
        at = magic.start() - 257
        if at >= 0:
            out[at + 148 : at + 156] = b" " * 8
            out[at + 148 : at + 156] = b"%06o\0 " % sum(out[at : at + 512])
    return bytes(out)


# ------------------------------------------------------------------------------- the process


def memory(name: str) -> int:
    """Return the bytes that this process takes, by a name of /proc."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


def main(seed: int, seconds: float, log: Path) -> None:
    """Read inputs; ``log`` is the number of the present one, at last the counts of both answers."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # says where, then the signal kills
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 8 * MEMORY,) * 2)
    decode(JPEGS[0], 16)  # imports what it needs
    most, end = memory("VmRSS") + MEMORY, time.monotonic() + seconds
    counts = {name: {"accepted": 0, "refused": 0} for name in ENTRANCES}
    with tempfile.TemporaryDirectory() as folder:
        for number in itertools.count():
            if number >= LEAST * len(ENTRANCES) and time.monotonic() > end:
                break
            log.write_text(str(number))
            name, data = draw(seed, number)
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            accepted = ENTRANCES[name].accepts(data, Path(folder))
            counts[name]["accepted" if accepted else "refused"] += 1
            assert memory("VmHWM") < most, "one input took too much memory"
    log.write_text(json.dumps(counts))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
