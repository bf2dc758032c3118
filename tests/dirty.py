"""What real data sets hold and nobody wants: a hostile file of every kind, made on the spot."""

import gzip
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

WNID, OTHER = "n01440764", "n01443537"
WIDTH, HEIGHT = 64, 48

# ------------------------------------------------------------------------------- images


def noise(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """An image that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ycck(image: Image.Image, black: int) -> bytes:
    """A JPEG as Photoshop writes it for print: YCCK, inverted, Adobe's transform 2.

    The inks of ``image`` (255 - RGB) go through YCbCr; ``black`` is the ink that is laid over
    them. Pillow writes CMYK with transform 0 and inverts: so it is given what inverts to YCCK.
    """
    y, cb, cr = image.point(lambda value: 255 - value).convert("YCbCr").split()
    k = Image.new("L", image.size, 255 - black)
    stored = Image.merge("CMYK", [band.point(lambda value: 255 - value) for band in (y, cb, cr, k)])
    data = bytearray(encode(stored, subsampling=0, quality=95))
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    data[at] = 2
    return bytes(data)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def black_png(width: int, height: int) -> bytes:
    """A sound PNG of one bit a pixel: a bomb needs no more than a few KB."""
    row, packer = bytes(1 + (width + 7) // 8), zlib.compressobj(9)
    packed = b"".join(packer.compress(row * min(1000, height - i)) for i in range(0, height, 1000))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    body = chunk(b"IDAT", packed + packer.flush())
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times more."""
    data = encode(noise(1).convert("L"), progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def claims(width: int, height: int, precision: int = 8) -> bytes:
    """A JPEG whose header says so."""
    data = bytearray(encode(noise(2)))
    at = data.index(b"\xff\xc0") + 4
    data[at : at + 5] = struct.pack(">BHH", precision, height, width)
    return bytes(data)


def rotated() -> bytes:
    """Taken upright: the boxes are in the frame in which the pixels are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise(3), exif=exif)


JPEG = encode(noise(0))
DEEP = Image.fromarray(np.tile(np.linspace(0, 65535, WIDTH), (HEIGHT, 1)).astype(np.uint16))
FRAMES = [noise(4).quantize(64), noise(5).quantize(64)]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
SIDES = b"Image type: RGB image\r\nImage size (x*y): 64*48*1\r\n".ljust(511, b"\0") + b"\x1a"
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n%%EndComments\n(x) run\n%%EOF\n"
GREAT = 1_000_000
"""``dataset.max_pixels`` of these tests."""

# ------------------------------------------------------------------------------- annotations

BOX = (8, 8, 40, 40)


def box(*corners: object, name: object = WNID) -> str:
    """An <object>."""
    keys = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


def size(width: object, height: object) -> str:
    return f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"


def annotation(*parts: str, head: str = "", encoding: str = "utf-8") -> bytes:
    return f"{head}<annotation>{''.join(parts)}</annotation>".encode(encoding)


GOOD_XML = annotation(size(WIDTH, HEIGHT), box(*BOX))
ANY_SIZE = annotation(box(0, 0, 1, 1))
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))


def entity(declaration: str, use: str = "&x;") -> bytes:
    """An annotation with a DTD; its class is what ``use`` says."""
    return annotation(box(*BOX, name=use), head=f"<!DOCTYPE annotation [{declaration}]>")


# ------------------------------------------------------------------------------- the cases

Place = Callable[[Path, Path], None]
"""Writes the image and the XML, as it likes, at the two paths."""


@dataclass(frozen=True)
class Case:
    """One hostile image with its annotation, in ImageNet's layout.

    Attributes:
        name: of the case.
        reason: part of the row's error; None: the image is fine, and has a map.
        image: its bytes; None: there is none.
        xml: its bytes; None: there is none.
        end: of the image's name, before the suffix.
        place: writes both files instead.
    """

    name: str
    reason: str | None
    image: bytes | None = JPEG
    xml: bytes | None = GOOD_XML
    end: str | bytes = ""
    place: Place | None = None

    @property
    def stem(self) -> str:
        """File name without suffix; a hash in front mixes the cases with the good images."""
        end = self.end if isinstance(self.end, str) else os.fsdecode(self.end)
        return f"{WNID}_{hashlib.md5(self.name.encode()).hexdigest()[:6]}{end}"

    @property
    def image_id(self) -> str:
        """As the table has it: Python's escapes for bytes that are not UTF-8."""
        return self.stem.encode(errors="backslashreplace").decode()

    def write(self, images: Path, xmls: Path) -> None:
        image, xml = images / f"{self.stem}.JPEG", xmls / f"{self.stem}.xml"
        if self.place:
            self.place(image, xml)
            return
        if self.image is not None:
            image.write_bytes(self.image)
        if self.xml is not None:
            xml.write_bytes(self.xml)


def linked(target: str) -> Place:
    """The image is a link."""

    def place(image: Path, xml: Path) -> None:
        image.symlink_to(target.format(own=image.name))
        xml.write_bytes(GOOD_XML)

    return place


def folder_as_image(image: Path, xml: Path) -> None:
    image.mkdir()
    (image / "inner.JPEG").write_bytes(JPEG)
    xml.write_bytes(GOOD_XML)


def pipe_as_image(image: Path, xml: Path) -> None:
    os.mkfifo(image)
    xml.write_bytes(GOOD_XML)


def pipe_as_xml(image: Path, xml: Path) -> None:
    image.write_bytes(JPEG)
    os.mkfifo(xml)


def folder_as_xml(image: Path, xml: Path) -> None:
    image.write_bytes(JPEG)
    xml.mkdir()


def loop_as_xml(image: Path, xml: Path) -> None:
    image.write_bytes(JPEG)
    xml.symlink_to(xml.name)


def upper_suffixes(image: Path, xml: Path) -> None:
    image.with_suffix(".JpG").write_bytes(JPEG)
    xml.with_suffix(".XML").write_bytes(GOOD_XML)


IMAGES = [
    Case("CMYK", None, encode(noise(6).convert("CMYK"))),
    Case("YCCK", None, ycck(noise(7), black=51)),
    Case("RGB JPEG, no YCbCr", None, encode(noise(8), keep_rgb=True)),
    Case("grayscale", None, encode(noise(9).convert("L"))),
    Case("progressive", None, encode(noise(10), progressive=True)),
    Case("EXIF rotation", None, rotated(), annotation(size(WIDTH, HEIGHT), box(50, 8, 64, 40))),
    Case("1 x 1", None, encode(noise(11, 1, 1)), ANY_SIZE),
    Case("1 x 2000", None, encode(noise(12, 1, 2000)), ANY_SIZE),
    Case("16-bit PNG named JPEG", None, encode(DEEP, "PNG")),
    Case("palette PNG named JPEG", None, encode(noise(13).quantize(16), "PNG")),
    Case("PNG with alpha", None, encode(noise(14).convert("RGBA"), "PNG")),
    Case("GIF", None, encode(FRAMES[0], "GIF")),
    Case("animated GIF", None, encode(FRAMES[1], "GIF", save_all=True, append_images=FRAMES)),
    Case("two pictures in one JPEG", None,
         encode(noise(15), "MPO", save_all=True, append_images=[noise(16)])),
    Case("WebP", None, encode(noise(17), "WEBP")),
    Case("junk behind the image", None, encode(noise(18)) + b"\xff\xda" * 1000 + bytes(100_000)),
    Case("a thousand scans in a comment", None, encode(noise(19), comment=b"\xff\xda" * 1000)),
    Case("JPEG that ends in order, too early", None, claims(WIDTH, 200), ANY_SIZE),  # grey rows
    Case("no bytes", "the file is empty", b""),
    Case("truncated", "cannot decode JPEG", JPEG[: len(JPEG) // 2]),
    Case("last bytes missing", "cannot decode JPEG", JPEG[:-10]),
    Case("zero tail", "cannot decode JPEG", JPEG[:1500] + bytes(len(JPEG) - 1500)),
    Case("zeros", "not an image", bytes(5000)),
    Case("HTML error page", "not an image", b"<!DOCTYPE html><html><body>404</body></html>"),
    Case("Git LFS pointer", "not an image", LFS),
    Case("compressed JPEG", "not an image", gzip.compress(JPEG)),
    Case("SVG", "not an image", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    Case("PNG of a wrong checksum", "cannot decode PNG",
         encode(noise(20), "PNG")[:-20] + b"\0" * 20),
    Case("PostScript", "not an image: none of JPEG, PNG", EPS),
    Case("JPEG 2000", "not an image: none of JPEG", encode(noise(21), "JPEG2000")),
    Case("IM of three sides", "not an image: none of JPEG", SIDES),
    Case("20,000 x 20,000", "400000000 pixels", black_png(20_000, 20_000)),
    Case("1,001 x 1,000", "1001 x 1000 is over 1,000,000 pixels", black_png(1001, 1000)),
    Case("JPEG that claims 65,500 x 65,500", "pixels", claims(65_500, 65_500)),
    Case("JPEG of 12 bits", "not an image", claims(WIDTH, HEIGHT, 12)),
    Case("3 x 70,000", "has a side of over 65,535 pixels", black_png(3, 70_000), ANY_SIZE),
    Case("progressive bomb", "a JPEG of over 100 scans", many_scans(200)),
]  # fmt: skip

FILES = [
    Case("no image", "no image ILSVRC/Data", image=None),
    Case("a folder named JPEG", "no image ILSVRC/Data", place=folder_as_image),
    Case("a pipe named JPEG", "no image ILSVRC/Data", place=pipe_as_image),
    Case("a link to a device", "no image ILSVRC/Data", place=linked("/dev/zero")),
    Case("a link to nowhere", "cannot read", place=linked("nowhere.JPEG")),
    Case("a link to itself", "cannot read", place=linked("{own}")),
    Case("an XML file that links to itself", "cannot be read", place=loop_as_xml),
    Case("name with spaces", None, encode(noise(30)), end=" a  b "),
    Case("name with #", None, encode(noise(31)), end="#0+10"),
    Case("name with %", None, encode(noise(32)), end="%20%2F..%00"),
    Case("name with a glob", None, encode(noise(33)), end="[1]*?{a,b}"),
    Case("name with quotes", None, encode(noise(34)), end="'\";$(touch x)`"),
    Case("name in Unicode", None, encode(noise(35)), end="_Bär_ä_猫_😀"),
    Case("name with a line end", None, encode(noise(36)), end="_a\nb"),
    Case("name of 240 bytes", None, encode(noise(37)), end="x" * 217),
    Case("suffixes in other case", None, place=upper_suffixes),
    Case("name in Latin-1", r"_B\udce4r' is not UTF-8", encode(noise(38)), end=b"_B\xe4r"),
    Case("name of no encoding", r"\udcff\udcfe' is not UTF-8", encode(noise(39)),
         end=b"\xff\xfe"),
]  # fmt: skip

ANNOTATIONS = [
    Case("no size", None, encode(noise(50)), annotation(box(*BOX))),
    Case("size 0", None, encode(noise(51)), annotation(size(0, 0), box(*BOX))),
    Case("size in words", None, encode(noise(52)), annotation(size("wide", ""), box(*BOX))),
    Case("UTF-16", None, encode(noise(53)),
         annotation(box(*BOX), head='<?xml version="1.0" encoding="UTF-16"?>', encoding="utf-16")),
    Case("UTF-8 with a BOM", None, encode(noise(54)),
         annotation(box(*BOX), encoding="utf-8-sig")),
    Case("declared Latin-1", None, encode(noise(55)),
         annotation("<source>Bär</source>", box(*BOX), encoding="latin-1",
                    head='<?xml version="1.0" encoding="ISO-8859-1"?>')),
    Case("5,000 objects", None, encode(noise(56)), annotation(*[box(*BOX)] * 5000)),
    Case("10,000 levels", None, encode(noise(57)),
         annotation("<a>" * 10_000, "</a>" * 10_000, box(*BOX))),
    Case("climbing <filename>", None, encode(noise(58)),
         annotation("<folder>../../..</folder><filename>../../etc/passwd</filename>",
                    "<path>/etc/passwd</path>", box(*BOX))),
    Case("a DTD elsewhere, not fetched", None, encode(noise(59)),
         annotation(box(*BOX), head='<!DOCTYPE annotation SYSTEM "file:///etc/passwd">')),
    Case("comments and CDATA", None, encode(noise(60)),
         annotation("<!-- <object/> -->", box(*BOX, name=f"<![CDATA[{WNID}]]>"))),
    Case("one pixel out", None, encode(noise(61)), annotation(box(-1, -1, 65, 49))),
    Case("billion laughs", "EntitiesForbidden", xml=entity(f'<!ENTITY l0 "ha">{LAUGHS}', "&l9;")),
    Case("external entity", "EntitiesForbidden",
         xml=entity('<!ENTITY x SYSTEM "file:///etc/passwd">')),
    Case("parameter entity", "EntitiesForbidden",
         xml=entity('<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;')),
    Case("harmless entity", "EntitiesForbidden", xml=entity(f'<!ENTITY x "{WNID}">')),
    Case("unknown entity", "not a readable XML file", xml=annotation(box(*BOX, name="&x;"))),
    Case("wrong root", "the root element is <html>", xml=b"<html/>"),
    Case("root in a namespace", "the root element is <{http://x}annotation>",
         xml=GOOD_XML.replace(b"<annotation>", b'<annotation xmlns="http://x">')),
    Case("empty XML", "not a readable XML file", xml=b""),
    Case("truncated XML", "not a readable XML file", xml=GOOD_XML[:-30]),
    Case("two roots", "not a readable XML file", xml=GOOD_XML * 2),
    Case("JSON", "not a readable XML file", xml=b'{"annotation": []}'),
    Case("compressed XML", "not a readable XML file", xml=gzip.compress(GOOD_XML)),
    Case("NUL in XML", "not a readable XML file", xml=GOOD_XML.replace(b"<name>", b"<name>\0")),
    Case("undeclared Latin-1", "not a readable XML file",
         xml=annotation("<source>Bär</source>", box(*BOX), encoding="latin-1")),
    Case("unknown encoding", "not a readable XML file",
         xml=annotation(box(*BOX), head='<?xml version="1.0" encoding="klingon"?>')),
    Case("no objects", f"no object of the class {WNID}", xml=annotation(size(WIDTH, HEIGHT))),
    Case("another class than its folder's", f"no object of the class {WNID}",
         xml=annotation(box(*BOX, name=OTHER))),
    Case("no bndbox", "without a <bndbox>",
         xml=annotation(f"<object><name>{WNID}</name></object>")),
    Case("no name", "without a <name>", xml=annotation(box(*BOX, name=" "))),
    Case("no corner", "<ymax>", xml=GOOD_XML.replace(b"ymax", b"YMAX")),
    Case("words for numbers", "'eight' is not a number", xml=annotation(box("eight", 8, 40, 40))),
    Case("Python's numbers", "'1_0' is not a number", xml=annotation(box("1_0", 8, 40, 40))),
    Case("ten million digits", "' is not finite", xml=annotation(box(8, 8, "9" * 10**7, 40))),
    Case("NaN", "'NaN' is not finite", xml=annotation(box("NaN", 8, 40, 40))),
    Case("infinity", "'-Infinity' is not finite", xml=annotation(box("-Infinity", 8, 40, 40))),
    Case("1e400", "'1e400' is not finite", xml=annotation(box(8, 8, "1e400", 40))),
    Case("1e300", "is outside the 64 x 48 image", xml=annotation(box(8, 8, "1e300", 40))),
    Case("swapped corners", "has no area", xml=annotation(box(40, 40, 8, 8))),
    Case("no area", "has no area", xml=annotation(box(8, 8, 8, 40))),
    Case("outside", "is outside the 64 x 48 image", xml=annotation(box(8, 8, 400, 40))),
    Case("beside the image", "has no area inside", xml=annotation(box(-1, 0, 0, 48))),
    Case("second box outside", "is outside", xml=annotation(box(*BOX), box(-50, 8, 40, 40))),
    Case("the size of another image", "is 64 x 48, its annotation says 640 x 480",
         xml=annotation(size(640, 480), box(*BOX))),
    Case("size turned", "is 64 x 48, its annotation says 48 x 64",
         xml=annotation(size(HEIGHT, WIDTH), box(*BOX))),
    Case("size of twenty digits", "its size is (99999999999999999999, 48) pixels",
         xml=annotation(size("9" * 20, HEIGHT), box(*BOX))),
]  # fmt: skip

LEFT_OUT = [
    Case("no XML", None, encode(noise(80)), xml=None),
    Case("no XML, and a name in Latin-1", None, encode(noise(81)), xml=None, end=b"\xe4"),
    Case("a folder named xml", None, place=folder_as_xml),
    Case("a pipe named xml", None, place=pipe_as_xml),
]
"""Without annotation: counted in audit.json under "no box"."""

CASES = [*IMAGES, *FILES, *ANNOTATIONS]
GOOD = 24


def good_images(root: Path) -> None:
    """24 sound images in two classes of ImageNet's layout."""
    (root / "LOC_synset_mapping.txt").write_text(f"{WNID} tench\n{OTHER} goldfish\n")
    for i in range(GOOD):
        wnid = (WNID, WNID, OTHER)[i % 3]
        mixed = hashlib.md5(f"good {i}".encode()).hexdigest()[:6]
        images, xmls = folders(root, wnid)
        (images / f"{wnid}_{mixed}.JPEG").write_bytes(encode(noise(1000 + i)))
        content = annotation(size(WIDTH, HEIGHT), box(i, 8, i + 30, 40, name=wnid))
        (xmls / f"{wnid}_{mixed}.xml").write_bytes(content)


def folders(root: Path, wnid: str) -> tuple[Path, Path]:
    """Where a class's images and XML files go."""
    found = [root / "ILSVRC" / top / "CLS-LOC/train" / wnid for top in ("Data", "Annotations")]
    for folder in found:
        folder.mkdir(parents=True, exist_ok=True)
    return found[0], found[1]
