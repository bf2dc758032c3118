"""Images per second of fetching, on any storage: single files beside tar shards."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain, islice

import typer

from sensloc.command import never, on_config
from sensloc.datasets import Annotation
from sensloc.datasets.files import chunks
from sensloc.datasets.webdataset import WebDataset
from sensloc.images.fetch import ImageError, fetch
from sensloc.stages.pack import tars
from sensloc.store.run import RunDir, RunError
from sensloc.turns import medians

IMAGES = 2000
"""How many are fetched: the first of the data set."""

ROUNDS = 5
"""How often each way is timed, after once that does not count; the ways take turns, and the median
counts."""


def storage(run: RunDir) -> str:
    """Print images/s of one process, from single files and from tar shards.

    The first images of the data set are written both ways to --output, and fetched as the job does.
    """
    with run.stage("storage", "single", "shards") as facts:
        rows = list(islice(_usable(run), IMAGES))
        images = _fetch_all(run, [row.uri for row in rows])
        for i, image in enumerate(images):
            run.write(f"single/{i}.jpg", image)
        samples = zip(map(asdict, rows), images, strict=True)
        for i, (tar, _) in enumerate(tars(samples)):
            run.write(f"shards/{i:05d}.tar", tar)
        shards = WebDataset(layout="webdataset", root=run.at("shards"))
        ways = {
            "single files": [run.at(f"single/{i}.jpg") for i in range(len(images))],
            "tar shards": [row.uri for unit in shards.units() for row in shards.read(unit)],
        }
        calls = {way: partial(_fetch_all, run, uris) for way, uris in ways.items()}
        milliseconds = medians(calls, len(images), ROUNDS)
        facts["images"] = len(images)
        facts["images_per_s"] = {way: round(1000 / ms) for way, ms in milliseconds.items()}
    return "\n".join(
        f"{way:12} {rate:8} images/s of {facts['images']}"
        for way, rate in facts["images_per_s"].items()
    )


def _usable(run: RunDir) -> Iterator[Annotation]:
    """Yield the images of the data set that have no error and are not left out."""
    reader = run.config.dataset
    rows = chain.from_iterable(map(reader.read, reader.units()))
    return (row for row in rows if not row.left_out and not row.error)


def _fetch_all(run: RunDir, uris: Sequence[str]) -> list[bytes]:
    """Return the bytes of images, fetched in the portions that the job reads.

    Raises:
        RunError: an image cannot be fetched.
    """
    resources = run.config.resources
    images: list[bytes] = []
    for portion in chunks(uris, resources.rows_per_block):
        for uri, data in zip(portion, fetch(portion, resources.connections), strict=True):
            if isinstance(data, ImageError):
                raise RunError(f"{uri}: {data}")
            images.append(data)
    return images


if __name__ == "__main__":
    typer.run(on_config(storage, never))
