"""Every oddity of an image file is pixels, or an ImageError that says the same in every run."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensloc.images.decode import decode
from sensloc.images.fetch import MAX_PIXELS, ImageError, fetch, inspect

WIDTH, HEIGHT = 160, 120


def picture(mode: str = "RGB", noise: float = 0) -> Image.Image:
    """Smooth ramps of colour, for those who want it with noise on them."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    pixels = np.stack([x, y, (x + y) / 2], axis=-1)
    pixels += noise * np.random.default_rng(0).standard_normal(pixels.shape)
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8)).convert(mode)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(image: Image.Image | bytes, size: int) -> np.ndarray:
    """What Pillow makes of it: [S, S, 3], wider than uint8."""
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    squashed = opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(squashed).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b).max())


JPEGS = {
    "RGB": encode(picture(noise=8), "JPEG", quality=92),
    "progressive": encode(picture(noise=8), "JPEG", progressive=True),
    "4:4:4": encode(picture(noise=8), "JPEG", subsampling=0),
    "grayscale": encode(picture("L", noise=8), "JPEG"),
    "CMYK": encode(picture("CMYK", noise=8), "JPEG"),
}


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("size", [1, 37, 64, 224])
def test_jpegs_decode_and_squash_as_pillow_does(name: str, size: int):
    pixels = decode(JPEGS[name], size).pixels
    assert (pixels.dtype, pixels.shape) == (np.uint8, (size, size, 3))
    assert difference(pixels, pillow(JPEGS[name], size)) <= 2


OTHERS = {
    "PNG": encode(picture(), "PNG"),
    "RGBA PNG": encode(picture("RGBA"), "PNG"),
    "palette PNG": encode(picture().quantize(64), "PNG"),
    "1-bit PNG": encode(picture("1"), "PNG"),
    "GIF": encode(picture().quantize(64), "GIF"),  # ImageNet has one named .JPEG
    "WebP": encode(picture(), "WEBP", lossless=True),
    "BMP": encode(picture(), "BMP"),
    "TIFF": encode(picture(), "TIFF"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_decode_whatever_the_file_is_called(name: str, tmp_path: Path):
    file = tmp_path / "n02105855_2933.JPEG"
    file.write_bytes(OTHERS[name])
    (data,) = fetch([str(file)])
    assert difference(decode(data, 64).pixels, pillow(OTHERS[name], 64)) <= 2


def test_sixteen_bits_keep_their_grey_levels():
    deep = np.tile(np.linspace(0, 65535, WIDTH), (HEIGHT, 1)).astype(np.uint16)
    shallow = Image.fromarray((deep // 257).astype(np.uint8))
    pixels = decode(encode(Image.fromarray(deep), "PNG"), 64).pixels
    assert difference(pixels, pillow(shallow, 64)) <= 2


def test_exif_rotation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    for kind in ("JPEG", "PNG"):
        turned, plain = (encode(picture(), kind, exif=e) for e in (exif, Image.Exif()))
        assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
        assert np.array_equal(decode(turned, 64).pixels, decode(plain, 64).pixels)
        assert (decode(turned, 64).width, decode(turned, 64).height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", [*JPEGS, *OTHERS])
def test_the_header_tells_the_size_and_so_do_the_pixels(name: str):
    file = {**JPEGS, **OTHERS}[name]
    for seen in (inspect(file), decode(file, 8)):
        assert (seen.width, seen.height) == (WIDTH, HEIGHT)


def test_the_content_hash_is_equal_for_equal_bytes_only():
    files = [*JPEGS.values(), *OTHERS.values()]
    hashes = [inspect(data).content for data in files]
    assert hashes == [inspect(bytes(bytearray(data))).content for data in files]
    assert len(set(hashes)) == len(files)
    assert inspect(OTHERS["PNG"] + b"\0").content != inspect(OTHERS["PNG"]).content


# ------------------------------------------------------------------------------- what is broken

JPEG, PNG = encode(picture(noise=30), "JPEG"), encode(picture(noise=30), "PNG")


def zero_tail(data: bytes) -> bytes:
    """A download that stopped, in a file of the right size."""
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def odd_dds() -> bytes:
    """A texture whose pixel format nobody knows."""
    data = bytearray(encode(picture(), "DDS"))
    data[80:84] = bytes(4)
    return bytes(data)


BROKEN = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "zeros": bytes(10_000),
    "truncated in the header": JPEG[:100],
    "truncated JPEG": JPEG[: len(JPEG) // 2],
    "JPEG without its last bytes": JPEG[:-10],
    "JPEG with a zero tail": zero_tail(JPEG),
    "truncated PNG": PNG[: len(PNG) // 2],
    "PNG with a zero tail": zero_tail(PNG),
    "truncated GIF": OTHERS["GIF"][: len(OTHERS["GIF"]) // 2],
    "DDS of unknown pixels": odd_dds(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_says_the_same_in_every_run(name: str):
    def message(file: bytes) -> str:
        with pytest.raises(ImageError) as caught:
            decode(file, 64)
        return str(caught.value)

    first = message(BROKEN[name])
    others = [bytearray(1 << 20)]  # so that the next buffer lies elsewhere
    assert message(BROKEN[name]) == first
    assert " at 0x" not in first
    assert "\n" not in first
    assert len(others) == 1


@pytest.mark.parametrize("name", ["empty", "HTML", "zeros", "DDS of unknown pixels"])
def test_what_has_no_header_is_an_error_before_it_is_decoded(name: str):
    with pytest.raises(ImageError):
        inspect(BROKEN[name])


def claim(width: int, height: int) -> bytes:
    """A PNG of 67 bytes whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(20_000, 20_000), (10_001, 10_000), (200_000, 501)])
def test_too_many_pixels_are_refused_before_decoding(size: tuple[int, int]):
    for look in (inspect, lambda data: decode(data, 64)):
        with pytest.raises(ImageError, match="pixels"):
            look(claim(*size))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_as_many_pixels_as_allowed_are_not_refused():
    assert inspect(claim(10_000, MAX_PIXELS // 10_000)).height == 10_000


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """The file with a few bytes changed, cut out or put in, mostly in its header."""
    place = st.one_of(st.integers(0, min(len(data), 200) - 1), st.integers(0, len(data) - 1))
    edits = st.lists(
        st.tuples(place, st.integers(0, 30), st.binary(max_size=8)), min_size=1, max_size=4
    )

    def edit(drawn: list[tuple[int, int, bytes]]) -> bytes:
        out = bytearray(data)
        for start, length, new in drawn:
            out[start : start + length] = new
        return bytes(out)

    return edits.map(edit)


FRAGILE = [
    encode(picture().resize((40, 30)), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")
]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.one_of([damaged(data) for data in FRAGILE]))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_pixels_or_an_error_and_nothing_else(data: bytes):
    with contextlib.suppress(ImageError):
        assert decode(data, 8).pixels.shape == (8, 8, 3)


# ------------------------------------------------------------------------------- fetching


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path: Path) -> Callable[[str, bytes], str]:
    root = str(tmp_path) if request.param == "local" else f"memory:/{tmp_path}"

    def put(name: str, data: bytes) -> str:
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(data)
        return f"{root}/{name}"

    return put


@pytest.mark.parametrize("connections", [1, 3, 64])
def test_fetch_keeps_the_order(store: Callable[[str, bytes], str], connections: int):
    contents = [bytes([i]) * (50_000 if i % 7 == 0 else i) for i in range(40)]
    uris = [store(f"{i}.jpg", data) for i, data in enumerate(contents)]
    assert fetch(uris, connections) == contents
    assert fetch(uris[::-1] + uris, connections) == contents[::-1] + contents
    assert fetch([], connections) == []


def test_a_missing_file_does_not_cost_its_neighbours(store: Callable[[str, bytes], str]):
    first, last = store("first.jpg", b"1"), store("last.jpg", b"2")
    missing = [first.replace("first", "missing"), "nope://x/y.jpg"]
    found = fetch([first, *missing, last])
    assert (found[0], found[3]) == (b"1", b"2")
    for uri, error in zip(missing, found[1:3], strict=True):
        assert isinstance(error, ImageError)
        assert uri in str(error)
