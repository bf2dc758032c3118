"""The measure as a whole: its parameters, its three cues, how it is learned, what it proposes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

import fsspec
import numpy as np

from sensloc.baselines.objectness.contrast import colour_contrast
from sensloc.baselines.objectness.likelihoods import LikelihoodTables
from sensloc.baselines.objectness.saliency import (
    SCALES,
    draw_windows,
    multiscale_saliency,
    window_saliency,
)
from sensloc.baselines.objectness.straddling import superpixel_straddling, superpixels
from sensloc.baselines.objectness.windows import Floats, Pixels, nms, on_object, random_windows
from sensloc.boxes import Boxes

RANDOM_WINDOWS = 2000
"""Windows per image behind the choice of the thetas."""
SAMPLED_WINDOWS = 3000
"""Windows per image that are scored, to learn the likelihoods and to propose."""
NMS_IOU = 0.5

MS_CANDIDATES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
CC_CANDIDATES = (25.0, 50.0, 75.0, 100.0, 150.0, 200.0)
SS_CANDIDATES = (100.0, 200.0, 300.0, 450.0, 700.0, 1000.0, 1500.0)


@dataclass(frozen=True)
class Thetas:
    """The cues' parameters.

    Attributes:
        ms: [5] per scale, the saliency in [0, 1] from which a pixel counts.
        cc: how much larger than its window the surround is, in percent of a side.
        ss: Felzenszwalb's k: larger is fewer superpixels.
    """

    ms: tuple[float, ...] = (0.25,) * len(SCALES)
    cc: float = 100.0
    ss: float = 450.0


def score(pixels: Pixels, maps: Sequence[Floats], windows: Boxes, thetas: Thetas) -> Floats:
    """Return the three cues of each window.

    Args:
        pixels: [H, W, 3].
        maps: of the pixels, see ``multiscale_saliency``.
        windows: [w, 4] unit xyxy.
        thetas: the cues' parameters.

    Returns:
        float [w, 3]: MS, CC, SS, each in [0, 1].
    """
    pairs = zip(maps, thetas.ms, strict=True)
    ms = np.max([window_saliency(saliency, theta, windows) for saliency, theta in pairs], axis=0)
    cc = colour_contrast(pixels, windows, [thetas.cc])[:, 0]
    ss = superpixel_straddling(superpixels(pixels, thetas.ss), windows)
    return np.stack([ms, cc, ss], axis=1)


# --------------------------------------------------------------------------- learning


def theta_counts(pixels: Pixels, truth: Boxes, seed: int) -> LikelihoodTables:
    """Count one image in the first pass: every candidate theta is a cue, over random windows.

    Args:
        pixels: [H, W, 3].
        truth: [m, 4] unit xyxy.
        seed: see ``image_seed``.

    Returns:
        Tables of 5 x MS_CANDIDATES, then CC_CANDIDATES, then SS_CANDIDATES.
    """
    windows = random_windows(seed, RANDOM_WINDOWS)
    maps = multiscale_saliency(pixels)
    ms = [window_saliency(saliency, theta, windows) for saliency in maps for theta in MS_CANDIDATES]
    cc = colour_contrast(pixels, windows, CC_CANDIDATES)
    ss = [superpixel_straddling(superpixels(pixels, theta), windows) for theta in SS_CANDIDATES]
    cues = np.concatenate([np.stack(ms, axis=1), cc, np.stack(ss, axis=1)], axis=1)
    return LikelihoodTables.from_batch(cues, on_object(windows, truth))


def choose_thetas(tables: LikelihoodTables) -> Thetas:
    """Return the best candidates by the merged ``theta_counts``, the first of equals."""
    ms_size = len(SCALES) * len(MS_CANDIDATES)
    evidence = tables.evidence()
    ms, cc, ss = np.split(evidence, [ms_size, ms_size + len(CC_CANDIDATES)])
    best_ms = ms.reshape(len(SCALES), -1).argmax(1)
    return Thetas(
        ms=tuple(MS_CANDIDATES[index] for index in best_ms),
        cc=CC_CANDIDATES[int(cc.argmax())],
        ss=SS_CANDIDATES[int(ss.argmax())],
    )


def cue_counts(pixels: Pixels, truth: Boxes, seed: int, thetas: Thetas) -> LikelihoodTables:
    """Count one image in the second pass: the three cues, over the windows that it would propose.

    Args:
        pixels: [H, W, 3].
        truth: [m, 4] unit xyxy.
        seed: see ``image_seed``.
        thetas: from the first pass.
    """
    maps = multiscale_saliency(pixels)
    windows = draw_windows(maps, thetas.ms, seed, SAMPLED_WINDOWS)
    cues = score(pixels, maps, windows, thetas)
    return LikelihoodTables.from_batch(cues, on_object(windows, truth))


# --------------------------------------------------------------------------- proposing


@dataclass(frozen=True)
class Objectness:
    """The learned measure: all that ``proposals`` needs.

    Attributes:
        thetas: the cues' parameters.
        tables: of the three cues.
    """

    thetas: Thetas
    tables: LikelihoodTables

    def dumps(self) -> str:
        """Return JSON: the thetas, and the tables as lists."""
        return json.dumps(asdict(self.thetas) | {"counts": self.tables.counts.tolist()})

    @classmethod
    def load(cls, url: str) -> Self:
        """Read a file that holds what ``dumps`` gave."""
        with fsspec.open(url, "r") as file:
            facts = json.load(file)
        tables = LikelihoodTables(np.array(facts.pop("counts"), np.int64))
        return cls(Thetas(tuple(facts["ms"]), facts["cc"], facts["ss"]), tables)


def proposals(pixels: Pixels, model: Objectness, count: int, seed: int) -> tuple[Boxes, Floats]:
    """Return the windows most likely to hold an object. The first is the method's box.

    Args:
        pixels: [H, W, 3].
        model: learned.
        count: at most so many are returned; non-maximum suppression may leave fewer.
        seed: see ``image_seed``.

    Returns:
        Boxes [k, 4] unit xyxy and their p(object | cues) [k], best first.
    """
    maps = multiscale_saliency(pixels)
    sampled = draw_windows(maps, model.thetas.ms, seed, SAMPLED_WINDOWS)
    scores = model.tables.posterior(score(pixels, maps, sampled, model.thetas))
    kept = nms(sampled, scores, NMS_IOU, count)
    return sampled[kept], scores[kept]
