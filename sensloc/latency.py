"""How long a localizer takes for an image: ways that take turns, in one process with one thread."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from sensloc.images.decode import decode
from sensloc.prediction.localizer import Localizer
from sensloc.report.text import aligned

ROUNDS = 5


def measure(localizer: Localizer, files: Sequence[bytes], rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds per image, medians over rounds; one round before them does not count.

    Args:
        localizer: on the CPU.
        files: image files, at least one.
        rounds: of all ways, in turn.

    Returns:
        "one at a time", from the file's bytes to the box; "decoding" of it; "the classifier
        alone", one forward pass for each image without a box; "in batches".
    """
    torch.set_num_threads(1)
    make, size = localizer.make, localizer.facts.classifier.input_size
    pixels = [decode(data, size).pixels for data in files]
    batch = localizer.facts.sensitivity.batch_size

    def classify() -> None:
        with torch.inference_mode():
            for one in pixels:
                make.network(make.normalise(torch.from_numpy(one[None])))

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


def medians(calls: Mapping[str, Callable[[], Any]], n: int, rounds: int) -> dict[str, float]:
    """Milliseconds per item of calls that take turns over n items each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: 1000 * median(each[1:]) / n for name, each in taken.items()}


def text(found: Mapping[str, float], n: int) -> str:
    """For a terminal: milliseconds, and how many times the classifier's own pass that is."""
    alone = found["the classifier alone"]
    lines = [(name, f"{ms:.1f}", f"{ms / alone:.2f}") for name, ms in found.items()]
    header = (f"{n} images, one thread", "ms/image", "of the classifier's pass")
    return aligned([header, *lines])
