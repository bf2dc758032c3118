"""Laws of images: every oddity of a file is pixels, or an ImageError that is always the same."""

import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import dirty
import numpy as np
import pytest
from dirty import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensloc.images.decode import decode, squash
from sensloc.images.fetch import ImageError
from sensloc.images.inspection import MAX_PIXELS, inspect

WIDTH, HEIGHT = 160, 120


def picture(mode: str = "RGB", noise: float = 0) -> Image.Image:
    """Smooth ramps of colour, with noise on them where it is asked for."""
    x, y = np.meshgrid(np.linspace(0, 255, WIDTH), np.linspace(0, 255, HEIGHT))
    pixels = np.stack([x, y, (x + y) / 2], axis=-1)
    pixels += noise * np.random.default_rng(0).standard_normal(pixels.shape)
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8)).convert(mode)


def pillow(image: Image.Image | bytes, size: int) -> np.ndarray:
    """Pillow's own way from an image to [S, S, 3]."""
    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image
    return np.asarray(opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def difference(a: np.ndarray, b: np.ndarray) -> int:
    """The largest difference in grey levels."""
    return int(np.abs(a.astype(int) - b).max())


# ------------------------------------------------------------------------------- what is sound

NOISY = picture(noise=8)
JPEGS = {
    "RGB": encode(NOISY, quality=92),
    "progressive": encode(NOISY, progressive=True),
    "4:4:4": encode(NOISY, subsampling=0),
    "no YCbCr": encode(NOISY, keep_rgb=True),
    "restart markers": encode(NOISY, restart_marker_blocks=2),
    "grayscale": encode(NOISY.convert("L")),
    "progressive grayscale": encode(NOISY.convert("L"), progressive=True),
    "CMYK": encode(NOISY.convert("CMYK")),
    "progressive CMYK": encode(NOISY.convert("CMYK"), progressive=True),
    "MPO": encode(NOISY, "MPO", save_all=True, append_images=[picture("L")]),
}
OTHERS = {
    "PNG": encode(picture(), "PNG"),
    "RGBA PNG": encode(picture("RGBA"), "PNG"),
    "palette PNG": encode(picture().quantize(64), "PNG"),
    "1-bit PNG": encode(picture("1"), "PNG"),
    "GIF": encode(picture().quantize(64), "GIF"),
    "WebP": encode(picture(), "WEBP", lossless=True),
    "BMP": encode(picture(), "BMP"),
    "TIFF": encode(picture(), "TIFF"),
}
FILES = {**JPEGS, **OTHERS}


@pytest.mark.parametrize("size", [1, 37, 64, 224])
@pytest.mark.parametrize("name", FILES)
def test_a_file_decodes_as_pillow_does_and_tells_its_size(name: str, size: int):
    decoded, header = decode(FILES[name], size), inspect(FILES[name])
    assert (decoded.pixels.dtype, decoded.pixels.shape) == (np.uint8, (size, size, 3))
    assert difference(decoded.pixels, pillow(FILES[name], size)) <= 2
    assert (decoded.width, decoded.height) == (header.width, header.height) == (WIDTH, HEIGHT)


def test_sixteen_bits_keep_their_grey_levels():
    deep = np.tile(np.linspace(0, 65535, WIDTH), (HEIGHT, 1)).astype(np.uint16)
    shallow = Image.fromarray((deep // 257).astype(np.uint8))
    decoded = decode(encode(Image.fromarray(deep), "PNG"), 64)
    assert difference(decoded.pixels, pillow(shallow, 64)) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG"])
def test_an_image_stays_in_the_frame_in_which_it_is_stored(kind: str, order: str, orientation: int):
    """ImageNet's boxes are in that frame, whatever EXIF says about turning it."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    form = "PNG" if kind == "PNG" else "JPEG"
    options = {"progressive": True} if kind == "progressive" else {}
    file, plain = (encode(NOISY, form, exif=e, **options) for e in (exif, Image.Exif()))
    assert Image.open(io.BytesIO(file)).getexif()[0x0112] == orientation
    turned, stored = decode(file, 64), decode(plain, 64)
    assert np.array_equal(turned.pixels, stored.pixels)
    assert (turned.width, turned.height) == (WIDTH, HEIGHT)


def test_the_content_hash_is_equal_for_equal_bytes_only():
    hashes = [inspect(data).content for data in FILES.values()]
    assert hashes == [inspect(bytes(bytearray(data))).content for data in FILES.values()]
    assert len(set(hashes)) == len(FILES)
    assert inspect(OTHERS["PNG"] + b"\0").content != inspect(OTHERS["PNG"]).content


SIDES = st.integers(1, 40)


@given(SIDES, SIDES, SIDES, st.integers(0, 255), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50, derandomize=True)
def test_squashing_is_pillows_and_keeps_squares_and_plain_colours(
    width: int, height: int, size: int, grey: int, seed: int
):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    assert difference(squash(pixels, size), pillow(Image.fromarray(pixels), size)) <= 1
    assert (squash(np.full_like(pixels, grey), size) == grey).all()
    square = pixels[: min(width, height), : min(width, height)]
    assert np.array_equal(squash(square, len(square)), square)


def test_squashing_takes_any_array_and_leaves_it_as_it_is():
    whole = np.asarray(NOISY)
    copy = whole.copy()
    frozen, flipped = whole[:], whole[::-1, ::-2]
    frozen.flags.writeable = False
    assert np.array_equal(squash(frozen, 32), squash(copy, 32))
    assert np.array_equal(squash(flipped, 32), squash(flipped.copy(), 32))
    assert np.array_equal(whole, copy)


# ------------------------------------------------------------------------------- what is broken

JPEG, PNG = encode(picture(noise=30)), encode(picture(noise=30), "PNG")


def zero_tail(data: bytes) -> bytes:
    """A download that stopped, in a file of the right size."""
    return data[: len(data) // 2] + bytes(len(data) - len(data) // 2)


def odd_dds() -> bytes:
    """A texture whose pixel format nobody knows."""
    data = bytearray(encode(picture(), "DDS"))
    data[80:84] = bytes(4)
    return bytes(data)


BROKEN = {
    **{case.name: case.image for case in dirty.IMAGES if case.reason and case.image is not None},
    "truncated in the header": JPEG[:100],
    "truncated PNG": PNG[: len(PNG) // 2],
    "PNG with a zero tail": zero_tail(PNG),
    "truncated GIF": OTHERS["GIF"][: len(OTHERS["GIF"]) // 2],
    "DDS of unknown pixels": odd_dds(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_an_error_that_says_the_same_in_every_run(name: str):
    def message() -> str:
        with pytest.raises(ImageError) as caught:
            decode(BROKEN[name], 64, dirty.GREAT)
        return str(caught.value)

    first = message()
    others = [bytearray(1 << 20)]  # so that the next buffer lies elsewhere
    assert message() == first
    assert " at 0x" not in first
    assert "\n" not in first
    assert len(others) == 1
    if first.startswith("not an image"):
        with pytest.raises(ImageError, match="not an image"):
            inspect(BROKEN[name])


def claim(width: int, height: int) -> bytes:
    """A PNG of 67 bytes whose header claims any size."""
    header = dirty.chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = dirty.chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + header + body + dirty.chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [MAX_PIXELS, 399])
@pytest.mark.parametrize("look", [inspect, lambda data, limit: decode(data, 64, limit)])
def test_too_many_pixels_are_refused_before_decoding(look: Callable[..., object], limit: int):
    for width, height in ((limit + 1, 1), (limit // 10 + 1, 10)):
        with pytest.raises(ImageError, match=f"{width} x {height} is over {limit:,} pixels"):
            look(claim(width, height), limit)
    assert inspect(claim(limit, 1), limit).width == limit


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
