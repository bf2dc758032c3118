"""The arithmetic of a run's maps: how far it is from float32, and which is the fastest.

Both are looked at on a few of the run's images, where its network will be, before any map is made.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from sensloc.engine import units
from sensloc.engine.pool import by_actor
from sensloc.heatmaps import MAIN, PREDICTED
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.stages.network import map_maker
from sensloc.stages.precision import CHOSEN
from sensloc.store.files import load_unit
from sensloc.store.images import images_of
from sensloc.store.run import RunDir, RunError
from sensloc.turns import medians

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.heatmaps.maker import MapMaker, Seen
    from sensloc.networks.precision import Precision

IMAGES = 16
"""As many are compared, the first that can be read."""

ROUNDS = 3
"""Turns of each arithmetic, of which the median counts."""

HOPELESS = 2.0
"""An arithmetic that takes so many times as long as the fastest in one turn is not timed."""


def checked(run: RunDir) -> dict[str, Any]:
    """Return what ``run.json`` says of the run's arithmetic; nothing of float32.

    The fastest is chosen here, the first time that it is asked for.

    Raises:
        RunError: Its maps are further from float32's than ``sensitivity.max_deviation``.
    """
    config = run.config.sensitivity
    if config.precision == "float32":
        return {}
    if config.precision == "fastest":
        if not run.exists(CHOSEN):
            measured = by_actor(run, measure)
            chosen = fastest(measured, config.max_deviation)
            run.write(CHOSEN, json.dumps({"chosen": chosen, "measured": measured}, indent=2))
        return {"precision": json.loads(run.read(CHOSEN))}
    apart = by_actor(run, deviations)
    mean = float(np.mean(apart)) if apart else 0.0
    if not mean <= config.max_deviation:
        raise RunError(
            f"sensitivity.precision = {config.precision!r}: on {len(apart)} images the maps are "
            f"{mean:.3g} from those in float32 (relative L2), over sensitivity.max_deviation = "
            f"{config.max_deviation:g}"
        )
    worst = max(apart, default=0.0)
    return {"deviation": {"images": len(apart), "mean": round(mean, 6), "worst": round(worst, 6)}}


def deviations(run: RunDir) -> list[float]:
    """Return how far the pooled sensitivity maps of some images are from those in float32.

    Each is |map - map in float32| over |map in float32|, of the same class; inf where one is not
    finite.
    """
    make = map_maker(run, (MAIN,), _device(run))
    return _apart(make, _in(make, "float32"), _some(run))


Measured = Mapping[str, Mapping[str, float | None]]
"""By arithmetic the mean ``deviation``, see ``deviations``, and ``ms`` per image; None: it is too
far from float32, or hopeless.
"""


def measure(run: RunDir) -> Measured:
    """Return how far the device's arithmetics are from float32, and what they take for an image.

    An image's time is that of a whole batch, over its images.

    Raises:
        RunError: No image can be read.
    """
    from sensloc.networks.precision import there

    device = _device(run)
    exact, pixels = map_maker(run, (MAIN,), device, precision="float32"), _some(run)
    if not len(pixels):
        raise RunError(f"{run.at('manifest')}: no image can be read, for sensitivity.precision")
    makers: dict[str, MapMaker] = {name: _in(exact, name) for name in there(device)}
    apart = {name: np.mean(_apart(make, exact, pixels) or [0.0]) for name, make in makers.items()}
    whole = pixels[np.arange(exact.batch_size) % len(pixels)][: exact.batch_size]
    labels = np.full(len(whole), PREDICTED)
    most = run.config.sensitivity.max_deviation
    near = {n: partial(make, whole, labels) for n, make in makers.items() if apart[n] <= most}
    once = medians(near, exact.batch_size, 1)
    hopeful = {n: call for n, call in near.items() if once[n] <= HOPELESS * min(once.values())}
    times = medians(hopeful, exact.batch_size, ROUNDS)
    return {n: {"deviation": float(apart[n]), "ms": times.get(n)} for n in makers}


def fastest(measured: Measured, max_deviation: float) -> str:
    """Return the arithmetic that takes the least time, of those that are near enough to float32."""
    times = {
        name: figures["ms"]
        for name, figures in measured.items()
        if figures["ms"] is not None and (figures["deviation"] or 0.0) <= max_deviation
    }
    return min(times, key=lambda name: times[name])


def _device(run: RunDir) -> str:
    return "cuda" if run.config.resources.gpus_per_actor else "cpu"


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
