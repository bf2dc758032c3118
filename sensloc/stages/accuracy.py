"""How far a run's arithmetic is from float32, on a few of its images, before anything is made."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from sensloc.engine import units
from sensloc.engine.pool import by_actor
from sensloc.heatmaps import MAIN
from sensloc.heatmaps.maker import Seen
from sensloc.heatmaps.passes import PREDICTED
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.stages.network import map_maker
from sensloc.store.files import load_unit
from sensloc.store.images import images_of
from sensloc.store.run import RunDir, RunError

IMAGES = 16
"""As many are compared, the first that can be read."""


def checked(run: RunDir) -> dict[str, Any]:
    """Return what ``run.json`` says of the run's arithmetic; nothing of float32.

    Raises:
        RunError: Its maps are further from float32's than ``sensitivity.max_deviation``.
    """
    config = run.config.sensitivity
    if config.precision == "float32":
        return {}
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
    pixels = _some(run)
    device = "cuda" if run.config.resources.gpus_per_actor else "cpu"
    make = map_maker(run, (MAIN,), device)
    networks = (replace(network, precision="float32") for network in make.networks)
    exact = replace(make, networks=tuple(networks))
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


def _maps(seen: Seen) -> npt.NDArray[np.float64]:
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
