"""From an image file's bytes to the square that a network sees, beside Pillow's way."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import numpy as np
import simplejpeg
import torch
import typer
from PIL import Image
from torchvision import transforms

from benchmarks.latency import first_files
from benchmarks.turns import as_workers_run, in_turn, save, table
from sensloc.config import absolute
from sensloc.images.decode import decode, pixels_of, squash
from sensloc.images.pixels import Pixels
from sensloc.report.messages import errors_as_messages

SIZE = 224


def embedded(sizes: Sequence[tuple[int, int]] = ((500, 375), (375, 500))) -> list[bytes]:
    """Return JPEGs of scikit-learn's two photographs, of ImageNet's commonest sizes."""
    images = []
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(files("sklearn.datasets.images").joinpath(name).open("rb")) as photograph:
            for size in sizes:
                file = io.BytesIO()
                photograph.resize(size).save(file, "JPEG", quality=90)
                images.append(file.getvalue())
    return images


def pillow(data: bytes) -> Pixels:
    """Return what Pillow makes of a file: uint8 [SIZE, SIZE, 3], antialiased."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


USUAL = transforms.Compose([transforms.Resize((SIZE, SIZE)), transforms.ToTensor()])


def usual(data: bytes) -> torch.Tensor:
    """Return what torchvision's usual transform makes of Pillow's image: float [3, SIZE, SIZE]."""
    with Image.open(io.BytesIO(data)) as image:
        return torch.as_tensor(USUAL(image.convert("RGB")))


def by_simplejpeg(data: bytes) -> Pixels:
    """Return what simplejpeg's decoder and the product's resizing make of a JPEG."""
    return squash(simplejpeg.decode_jpeg(data, "RGB"), SIZE)


def _of_all(way: Callable[[bytes], object], images: Sequence[bytes]) -> Callable[[], object]:
    return lambda: [way(data) for data in images]


@errors_as_messages()
def main(
    images: Annotated[
        str | None, typer.Argument(help="Photographs; without it, two of scikit-learn's.")
    ] = None,
    count: Annotated[int, typer.Option(help="Images to take, the first ones.")] = 64,
    rounds: int = 5,
    output: Path = Path("runs/bench/decode.json"),
) -> None:
    """Print milliseconds per image of decoding and squashing, with one thread."""
    as_workers_run()
    data = first_files(absolute(images), count) if images else embedded() * (count // 4)
    ways = {
        "Pillow, torchvision's usual transform": usual,
        "Pillow alone": pillow,
        "sensloc": lambda file: decode(file, SIZE),
        "sensloc, decoding alone": pixels_of,
        "simplejpeg, resized as by sensloc": by_simplejpeg,
    }
    timed = in_turn({name: _of_all(way, data) for name, way in ways.items()}, len(data), rounds)
    far = max(
        int(np.abs(decode(file, SIZE).pixels.astype(int) - pillow(file)).max()) for file in data
    )
    print(table(f"{len(data)} images to {SIZE} x {SIZE}, one thread", timed))
    print(f"sensloc's pixels are at most {far} grey levels from Pillow's")
    ways_timed = [asdict(time) for time in timed]
    print(save(output, images=len(data), rounds=rounds, ways=ways_timed, grey_levels=far))


if __name__ == "__main__":
    typer.run(main)
