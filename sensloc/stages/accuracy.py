"""The passes of a run's network: how far their arithmetic is from float32, and which is fastest.

Both are looked at on a few of the run's images, where its network will be, before any map is made.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from sensloc.engine import units
from sensloc.engine.pool import by_actor
from sensloc.errors import ClassifierError
from sensloc.heatmaps import MAIN, PREDICTED
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.stages.network import map_maker
from sensloc.store.files import load_unit
from sensloc.store.images import images_of
from sensloc.store.passes import CHOSEN
from sensloc.store.run import RunDir, RunError
from sensloc.turns import medians

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.heatmaps.maker import MapMaker, Seen
    from sensloc.networks.precision import Precision

K = TypeVar("K", bound=str)

IMAGES = 16
"""As many are compared, the first that can be read."""

ROUNDS = 3
"""Turns of each arithmetic, of which the median counts."""

HOPELESS = 2.0
"""An arithmetic that takes so many times as long as the fastest in one turn is not timed."""

FIRST = 16
"""Images of the smallest batch; torch gives a smaller one slower kernels on a CPU."""

GAIN = 1.05
"""A batch twice as large is taken where an image takes so many times as long in the smaller."""


def checked(run: RunDir) -> dict[str, Any]:
    """Return what ``run.json`` says of how the run's passes were chosen, and of their arithmetic.

    The fastest are chosen here, the first time that they are asked for.

    Raises:
        RunError: Its maps are further from float32's than ``sensitivity.max_deviation``.
    """
    config = run.config.sensitivity
    facts: dict[str, Any] = {}
    if "fastest" in (config.precision, config.batch_size):
        if not run.exists(CHOSEN):
            run.write(CHOSEN, json.dumps(by_actor(run, measure), indent=2))
        facts["passes"] = json.loads(run.read(CHOSEN))
    if config.precision in ("float32", "fastest"):
        return facts
    apart = by_actor(run, deviations)
    mean = float(np.mean(apart)) if apart else 0.0
    if not mean <= config.max_deviation:
        raise RunError(
            f"sensitivity.precision = {config.precision!r}: on {len(apart)} images the maps are "
            f"{mean:.3g} from those in float32 (relative L2), over sensitivity.max_deviation = "
            f"{config.max_deviation:g}"
        )
    worst = max(apart, default=0.0)
    return facts | {
        "deviation": {"images": len(apart), "mean": round(mean, 6), "worst": round(worst, 6)}
    }


def deviations(run: RunDir) -> list[float]:
    """Return how far the pooled sensitivity maps of some images are from those in float32.

    Each is |map - map in float32| over |map in float32|, of the same class; inf where one is not
    finite.
    """
    make = map_maker(run, (MAIN,), run.config.resources.device)
    return _apart(make, _in(make, "float32"), _some(run))


def measure(run: RunDir) -> dict[str, Any]:
    """Return ``precision`` and ``batch_size`` of the run's passes, and what was ``measured``.

    What the config does not leave open is the config's.

    Raises:
        RunError: No image can be read.
    """
    config, pixels = run.config.sensitivity, _some(run)
    measured: dict[str, Any] = {}
    if not len(pixels):
        raise RunError(f"{run.at('manifest')}: no image can be read, to measure the fastest passes")
    device, nominal = run.config.resources.device, config.nominal_batch
    exact = map_maker(run, (MAIN,), device, precision="float32", batch_size=nominal)
    precision, size = config.precision, config.batch_size
    if precision == "fastest":
        measured["precision"] = arithmetics(exact, pixels, config.max_deviation)
        precision = fastest(measured["precision"], config.max_deviation)
    if size == "fastest":
        largest = units.names(run, "manifest")[0]  # a batch that it does not fill is padded
        most = len(load_unit(run, "manifest", largest, ["image_id"]))
        size, measured["batch_size"] = batches(_in(exact, precision), pixels, most)
    return {"precision": precision, "batch_size": size, "measured": measured}


Measured = Mapping["Precision", Mapping[str, float | None]]
"""By arithmetic the mean ``deviation``, see ``deviations``, and ``ms`` per image; None: it is too
far from float32, or hopeless.
"""


def arithmetics(exact: "MapMaker", pixels: Pixels, max_deviation: float) -> Measured:
    """Return how far the device's arithmetics are from float32, and what they take for an image.

    Args:
        exact: Makes maps in float32.
        pixels: One image or more, uint8 [n, S, S, 3].
        max_deviation: What is further away is not timed.
    """
    from sensloc.networks.precision import there

    makers = {name: _in(exact, name) for name in there(exact.device)}
    apart = {name: np.mean(_apart(make, exact, pixels)) for name, make in makers.items()}
    near = {n: make for n, make in makers.items() if apart[n] <= max_deviation}
    once = _times(near, pixels, 1)
    hopeful = {n: make for n, make in near.items() if once[n] <= HOPELESS * min(once.values())}
    times = _times(hopeful, pixels, ROUNDS)
    return {n: {"deviation": float(apart[n]), "ms": times.get(n)} for n in makers}


def batches(make: "MapMaker", pixels: Pixels, most: int) -> tuple[int, dict[str, float | None]]:
    """Return how many images a batch has best, and milliseconds per image by such numbers.

    A batch is twice as large as the one before as long as that pays; None: the device's memory does
    not hold it.

    Args:
        make: Makes maps.
        pixels: One image or more, uint8 [n, S, S, 3].
        most: Images of a batch.
    """
    size = min(FIRST, most)
    found: dict[str, float | None] = {}
    while 2 * size <= most:
        makers = {str(n): replace(make, batch_size=n) for n in (size, 2 * size)}
        try:
            times = _times(makers, pixels, ROUNDS)
        except ClassifierError:
            return size, found | {str(2 * size): None}
        found |= times
        if times[str(size)] < GAIN * times[str(2 * size)]:
            break
        size *= 2
    return size, found


def _times(makers: "Mapping[K, MapMaker]", pixels: Pixels, rounds: int) -> dict[K, float]:
    """Return the milliseconds per image of makers that take turns.

    A turn is a whole batch, on a GPU two, which a run begins at a time: it must hold both.
    """

    def turn(make: "MapMaker") -> None:
        whole = pixels[np.arange(make.batch_size) % len(pixels)]
        labels = np.full(len(whole), PREDICTED)
        for begun in [make.start(whole, labels) for _ in range(_at_once(make))]:
            begun.seen()

    times = medians({name: partial(turn, make) for name, make in makers.items()}, 1, rounds)
    return {name: times[name] / (_at_once(make) * make.batch_size) for name, make in makers.items()}


def _at_once(make: "MapMaker") -> int:
    return 1 if make.device == "cpu" else 2


def fastest(measured: Measured, max_deviation: float) -> "Precision":
    """Return the arithmetic that takes the least time, of those that are near enough to float32."""
    times = {
        name: figures["ms"]
        for name, figures in measured.items()
        if figures["ms"] is not None and (figures["deviation"] or 0.0) <= max_deviation
    }
    return min(times, key=lambda name: times[name])


def _in(make: "MapMaker", precision: "Precision") -> "MapMaker":
    """Return the same maker in another arithmetic."""
    networks = (replace(network, precision=precision) for network in make.networks)
    return replace(make, networks=tuple(networks))


def _apart(make: "MapMaker", exact: "MapMaker", pixels: Pixels) -> list[float]:
    """Return how far a maker's maps of images are from another's, of the class that this says."""
    apart: list[float] = []
    for start in range(0, len(pixels), make.batch_size):
        batch = pixels[start : start + make.batch_size]
        wanted = exact(batch, np.full(len(batch), PREDICTED))
        found = make(batch, wanted.predicted)
        apart += relative(_maps(found), _maps(wanted))
    return apart


def relative(maps: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> list[float]:
    """Return the relative L2 distance of maps [n, cells] from others: n, of which none is nan."""
    distances, lengths = (np.linalg.norm(of, axis=1) for of in (maps - wanted, wanted))
    shares = np.where(distances == 0, 0, distances / np.where(lengths > 0, lengths, np.nan))
    return [float(share) for share in np.nan_to_num(shares, nan=np.inf)]


def _maps(seen: "Seen") -> npt.NDArray[np.float64]:
    maps = seen.maps[MAIN]
    return np.asarray(maps.values.astype(np.float64) * maps.scale[:, None])


def _some(run: RunDir) -> Pixels:
    """Return the pixels of some of the run's images: uint8 [n, S, S, 3]."""
    size = run.config.classifier.input_size
    found: list[Pixels] = []
    for unit in units.names(run, "manifest"):
        rows = load_unit(run, "manifest", unit)
        rows = rows.filter(pc.is_null(rows["error"])).slice(0, IMAGES - len(found))
        images = images_of(rows, size, run.config)
        found += [image.pixels for image in images if not isinstance(image, ImageError)]
        if len(found) == IMAGES:
            break
    return np.stack(found) if found else np.zeros((0, size, size, 3), np.uint8)
