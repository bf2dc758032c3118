"""How long each method takes for an image: parts measured in turn, in one process on one core."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch

from sensloc.baselines import objectness
from sensloc.comparison.colocalize import BySift
from sensloc.comparison.maps import MAPS, Mapper
from sensloc.engine import cluster
from sensloc.images.decode import read
from sensloc.images.fetch import ImageError
from sensloc.methods import Fitted, Method, catalogue
from sensloc.rows import complete
from sensloc.store.run import RunDir


def milliseconds(run: RunDir, entries: Mapping[str, Fitted]) -> dict[str, float]:
    """Milliseconds per image of each method, from the file to the box.

    The parts take turns for ``speed_rounds`` rounds over the same test images, in one process
    with one thread (or one GPU); a method's time is the sum of its parts' medians.

    Args:
        run: with its maps.
        entries: the methods; the seconds that co-localization takes to choose are in its facts.
    """
    resources = run.config.resources
    task: Any = ray.remote(num_cpus=1, num_gpus=resources.gpus_per_actor)(_measure)
    parts, predicting = ray.get(
        task.remote(run, {name: entry.method for name, entry in entries.items()})
    )
    made = {}
    for name, entry in entries.items():
        needed = catalogue.entry(name).work
        choosing = 1000 * entry.facts.get("seconds_per_image", 0.0)
        made[name] = sum(parts[part] for part in needed) + predicting[name] + choosing
    return made


def _measure(run: RunDir, methods: dict[str, Method]) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds per image of each part, and of each method's last step."""
    torch.set_num_threads(1)
    config, compare = run.config, run.config.compare
    rows = _some_rows(run, compare.speed_images)
    n, uris = len(rows), rows["uri"].to_pylist()
    columns = catalogue.columns(compare.methods)
    mapper = Mapper(run, (None, None), frozenset(columns | {"map"}))
    size, batch = config.classifier.input_size, config.sensitivity.batch_size
    pixels = np.stack(_read_pixels(uris, size))
    parts: dict[str, Callable[[], Any]] = {
        "decode": lambda: _read_pixels(uris, size),
    }

    def reading(name: str) -> Callable[[], Any]:
        mapper_of = mapper.only(name)
        return lambda: [
            mapper_of.read(rows.slice(i, batch), pixels[i : i + batch]) for i in range(0, n, batch)
        ]

    for name in columns - {"map_random", "map_permuted", "map_mask"}:
        parts[name] = reading(name)
    if catalogue.wants_proposals(compare.methods):
        model = objectness.Objectness.load(run.at("compare/objectness.json"))
        small = _read_pixels(uris, compare.objectness_size)
        parts["decode_small"] = lambda: _read_pixels(uris, compare.objectness_size)
        parts["proposals"] = lambda: [
            objectness.proposals(one, model, compare.proposals, seed)
            for seed, one in enumerate(small)
        ]
    if "box_words" in catalogue.colocalizations(compare.methods).values():
        sift = BySift(run, {}, {})
        parts["box_words"] = lambda: sift.describe(rows)
    whole = {name: (lambda method=method: method.predict(rows)) for name, method in methods.items()}
    both = parts | {f"predict {name}": call for name, call in whole.items()}
    for name in catalogue.colocalizations(compare.methods):  # which one is no matter
        rows = rows.append_column(name, pa.array([0] * n, pa.int32()))
    each = medians(both, n, compare.speed_rounds)
    return (
        {name: each[name] for name in parts},
        {name: each[f"predict {name}"] for name in methods},
    )


def _some_rows(run: RunDir, count: int) -> pa.Table:
    """The first test rows that have every column; no more files are read than that takes."""
    found: list[pa.Table] = []
    for file in run.files(MAPS):
        rows = cluster.load(run, [file], None, "test")
        needed = set(rows.column_names) - {"class_name", "error", "class_index"}
        if not catalogue.wants_proposals(run.config.compare.methods):
            needed -= {"proposals", "objectness", "found"}
        found.append(complete(rows, sorted(needed)))
        if sum(map(len, found)) >= count:
            break
    return pa.concat_tables(found).combine_chunks().slice(0, count)


def _read_pixels(uris: Sequence[str], size: int) -> list[Any]:
    pixels = read(uris, size, connections=1)
    for one in pixels:
        if isinstance(one, ImageError):
            raise one
    return pixels


def medians(calls: Mapping[str, Callable[[], Any]], n: int, rounds: int) -> dict[str, float]:
    """Return the median milliseconds per item of calls that take turns over n items each.

    Args:
        calls: what is timed, by name.
        n: items that each call works on.
        rounds: that count; one before them does not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: 1000 * median(values[1:]) / n for name, values in seconds.items()}
