"""Single files against tar shards: how many images per second can be fetched."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from statistics import median

from sensloc.config import WebDataset
from sensloc.datasets import Annotation, reader_for
from sensloc.datasets.files import chunks
from sensloc.images.fetch import ImageError, fetch
from sensloc.stages.pack import tars
from sensloc.store.run import RunDir, RunError

IMAGES = 2000
"""In the order of the data set."""

ROUNDS = 5
"""Each way once in each; the median counts."""


def storage_rates(run: RunDir) -> str:
    """Write images as single files and as shards, and fetch them as the job does, in one process.

    Raises:
        RunError: an image cannot be fetched.
    """
    with run.stage("storage_rates", "single", "shards") as facts:
        rows = list(islice(_usable(run), IMAGES))
        images = _fetched(run, [row.uri for row in rows])
        for i, image in enumerate(images):
            run.write(f"single/{i}.jpg", image)
        samples = zip(map(asdict, rows), images, strict=True)
        for i, (tar, _) in enumerate(tars(samples)):
            run.write(f"shards/{i:05d}.tar", tar)
        shards = reader_for(WebDataset(layout="webdataset", root=run.at("shards")))
        ways = {
            "single files": [run.at(f"single/{i}.jpg") for i in range(len(images))],
            "tar shards": [row.uri for unit in shards.units() for row in shards.read(unit)],
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, uris in ways.items():
                began = time.perf_counter()
                _fetched(run, uris)
                seconds[way].append(time.perf_counter() - began)
        facts["images"] = len(images)
        facts["images_per_s"] = {w: round(len(images) / median(s)) for w, s in seconds.items()}
    return "\n".join(
        f"{way:12} {rate:8} images/s of {facts['images']}"
        for way, rate in facts["images_per_s"].items()
    )


def _usable(run: RunDir) -> Iterator[Annotation]:
    reader = reader_for(run.config.dataset)
    every = chain.from_iterable(map(reader.read, reader.units()))
    return (row for row in every if not row.left_out and not row.error)


def _fetched(run: RunDir, uris: Sequence[str]) -> list[bytes]:
    """The bytes of images, in the portions that the job reads."""
    resources = run.config.resources
    found: list[bytes] = []
    for some in chunks(uris, resources.rows_per_block):
        for uri, data in zip(some, fetch(some, resources.connections), strict=True):
            if isinstance(data, ImageError):
                raise RunError(f"{uri}: {data}")
            found.append(data)
    return found
