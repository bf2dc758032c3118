"""Milliseconds per image of a localizer, on this CPU, in one process with one thread."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Annotated

import torch
import typer

from sensloc.arguments import Images, Run
from sensloc.config import absolute
from sensloc.datasets import Unboxed
from sensloc.errors import DatasetError
from sensloc.images.decode import decode
from sensloc.images.fetch import ImageError, fetch
from sensloc.prediction.localizer import Localizer
from sensloc.report.messages import errors_as_messages
from sensloc.report.text import aligned
from sensloc.stages.predict import images_at
from sensloc.turns import medians

ROUNDS = 5


@errors_as_messages()
def latency(
    run: Run,
    images: Images,
    count: Annotated[int, typer.Option(help="Images to take, the first ones.")] = 64,
) -> None:
    """Print the milliseconds per image of a localizer, on this CPU, with one thread."""
    files = first_files(absolute(images), count)
    print(text(measure(Localizer.load(absolute(run)), files), len(files)))


def first_files(images: str, count: int) -> list[bytes]:
    """Return the bytes of the first images of a folder, pattern, tar shards or table.

    Raises:
        DatasetError: there is none, or one cannot be read.
    """
    reader = Unboxed(images_at(images))
    uris = (row.uri for unit in reader.units() for row in reader.read(unit) if row.uri)
    files = []
    for data in fetch(list(islice(uris, count))):
        if isinstance(data, ImageError):
            raise DatasetError(str(data)) from data
        files.append(data)
    if not files:
        raise DatasetError(f"{images}: no image there")
    return files


def measure(localizer: Localizer, files: Sequence[bytes], rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds per image, medians over rounds; one round before them does not count.

    Args:
        localizer: on the CPU.
        files: image files, at least one.
        rounds: how often each way is timed; the ways take turns.

    Returns:
        "one at a time", from the file's bytes to the box; "decoding" of it; "the classifier
        alone", one forward pass for each image without a box; "in batches".
    """
    torch.set_num_threads(1)
    make, size = localizer.look.first, localizer.facts.classifier.input_size
    pixels = [decode(data, size).pixels for data in files]
    batch = localizer.facts.sensitivity.nominal_batch

    def classify() -> None:
        with torch.inference_mode():
            for image in pixels:
                make.networks[0].network(make.normalise(torch.from_numpy(image[None])))

    return medians(
        {
            "one at a time": lambda: [localizer.predict([data]) for data in files],
            "in batches": lambda: [
                localizer.predict(files[i : i + batch]) for i in range(0, len(files), batch)
            ],
            "decoding": lambda: [decode(data, size) for data in files],
            "the classifier alone": classify,
        },
        len(files),
        rounds,
    )


def text(milliseconds: Mapping[str, float], n: int) -> str:
    """Return the table for a terminal: milliseconds, and the ratio to the classifier's own pass.

    Args:
        milliseconds: as ``measure`` returns them.
        n: number of images.
    """
    alone = milliseconds["the classifier alone"]
    lines = [(name, f"{ms:.1f}", f"{ms / alone:.2f}") for name, ms in milliseconds.items()]
    header = (f"{n} images, one thread", "ms/image", "of the classifier's pass")
    return aligned([header, *lines])


if __name__ == "__main__":
    typer.run(latency)
