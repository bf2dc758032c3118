"""How long each method takes for an image: parts measured in turn, in one process on one core."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc import heatmaps
from sensloc.baselines import objectness
from sensloc.comparison.colocalize import BySift
from sensloc.comparison.maps import MAPS, Mapper
from sensloc.engine import cluster
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.methods import Fitted, Method, catalogue
from sensloc.prediction.looks import Looker
from sensloc.rows import complete
from sensloc.store.files import load
from sensloc.store.images import images_of
from sensloc.store.passes import batch_size_of
from sensloc.store.run import RunDir
from sensloc.turns import medians


def milliseconds(run: RunDir, entries: Mapping[str, Fitted]) -> dict[str, float]:
    """Return the milliseconds per image of each method, from the file to the box; of none if 0
    rounds are asked for, and of none whose maps others made.

    The parts take turns for ``speed_rounds`` rounds over the same test images, in one process
    with one thread (or one GPU); a method's time is the sum of its parts' medians.

    Args:
        run: The run directory, with its maps.
        entries: The methods; the seconds that co-localization takes to choose are in its facts.
    """
    if not run.config.compare.speed_rounds:
        return {}
    timed = {name: of for name, of in entries.items() if not catalogue.is_given(name)}
    methods = {name: fitted.method for name, fitted in timed.items()}
    parts, predicting = cluster.in_task(
        _measure, run, methods, gpus=run.config.resources.gpus_per_actor
    )
    times = {}
    for name, fitted in timed.items():
        needed = catalogue.entry(name).work
        choosing = 1000 * fitted.facts.get("seconds_per_image", 0.0)
        times[name] = sum(parts[part] for part in needed) + predicting[name] + choosing
    return times


def _measure(run: RunDir, methods: dict[str, Method]) -> tuple[dict[str, float], dict[str, float]]:
    """Return milliseconds per image of each part, and of each method's last step."""
    compare = run.config.compare
    columns = catalogue.columns(methods)
    rows = _fitting_rows(run, compare.speed_images)
    parts = _network_parts(run, rows, columns)
    if catalogue.wants_proposals(run.config.compared):
        parts |= _proposal_parts(run, rows)
    for name in catalogue.colocalizations(run.config.compared):  # which one is no matter
        rows = rows.append_column(name, pa.array([0] * len(rows), pa.int32()))
    last = {name: (lambda method=method: method.predict(rows)) for name, method in methods.items()}
    calls = parts | {f"predict {name}": call for name, call in last.items()}
    times = medians(calls, len(rows), compare.speed_rounds)
    return (
        {name: times[name] for name in parts},
        {name: times[f"predict {name}"] for name in methods},
    )


def _network_parts(run: RunDir, rows: pa.Table, columns: set[str]) -> dict[str, Callable[[], Any]]:
    """Return how images are decoded, and how each column of maps is made."""
    device = run.config.resources.device
    first, second = heatmaps.column(heatmaps.FOREGROUND), heatmaps.column(heatmaps.SECOND)
    twice = {first} if second in columns else set()
    mapper = Mapper(device, run, frozenset((columns | twice | {"map"}) - {second}))
    size, batch = run.config.classifier.input_size, batch_size_of(run)
    pixels = np.stack(_pixels(run, rows, size))

    def making(column: str) -> Callable[[], Any]:
        alone = mapper.only(column)
        starts = range(0, len(rows), batch)
        return lambda: [alone.read(rows.slice(i, batch), pixels[i : i + batch]) for i in starts]

    made = columns - {"map_random", "map_permuted", "map_mask", second}
    parts: dict[str, Callable[[], Any]] = {"decode": lambda: _pixels(run, rows, size)}
    if twice:
        parts[second] = _two_looks(run, rows, pixels, mapper)
    return parts | {name: making(name) for name in made}


def _two_looks(
    run: RunDir, rows: pa.Table, pixels: Pixels, mapper: Mapper
) -> Callable[[], list[Any]]:
    """Return how the map of a second look is made, the first look and the crop among it."""
    batch, column = batch_size_of(run), heatmaps.column(heatmaps.FOREGROUND)
    look = Looker(mapper.only(column).make, twice=True)
    labels = np.asarray(rows["predicted_index"])
    files = [
        image.data
        for image in images_of(rows, pixels.shape[1], run.config, keep=True)
        if not isinstance(image, ImageError)
    ]
    starts = range(0, len(rows), batch)
    parts = [slice(start, start + batch) for start in starts]
    return lambda: [look(pixels[part], labels[part], files[part]) for part in parts]


def _proposal_parts(run: RunDir, rows: pa.Table) -> dict[str, Callable[[], Any]]:
    """Return how proposals are made, and how they are described by words."""
    compare = run.config.compare
    model = objectness.Objectness.load(run.at("compare/objectness.json"))
    small = _pixels(run, rows, compare.objectness_size)
    parts: dict[str, Callable[[], Any]] = {
        "decode_small": lambda: _pixels(run, rows, compare.objectness_size),
        "proposals": lambda: [
            objectness.proposals(image, model, compare.proposals, seed)
            for seed, image in enumerate(small)
        ],
    }
    if "box_words" in catalogue.colocalizations(run.config.compared).values():
        sift = BySift("cpu", run)
        parts["box_words"] = lambda: sift(
            rows, np.stack(_pixels(run, rows, compare.objectness_size))
        )
    return parts


def _fitting_rows(run: RunDir, count: int) -> pa.Table:
    """Return the first test rows that have every column, from no more files than that takes."""
    tables: list[pa.Table] = []
    for file in run.files(MAPS):
        rows = load(run, [file], None, "test")
        needed = set(rows.column_names) - {"class_name", "error", "class_index"}
        needed -= {heatmaps.given(name) for name in run.config.compare.maps}
        if not catalogue.wants_proposals(run.config.compared):
            needed -= {"proposals", "objectness", "found"}
        tables.append(complete(rows, sorted(needed)))
        if sum(map(len, tables)) >= count:
            break
    return pa.concat_tables(tables).combine_chunks().slice(0, count)


def _pixels(run: RunDir, rows: pa.Table, size: int) -> list[Pixels]:
    """Return the pixels of every row's image, fetched one after the other.

    Raises:
        ImageError: An image is not what it was.
    """
    pixels = []
    for image in images_of(rows, size, run.config, connections=1):
        if isinstance(image, ImageError):
            raise image
        pixels.append(image.pixels)
    return pixels
