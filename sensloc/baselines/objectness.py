"""The objectness measure of Alexe, Deselaers and Ferrari (PAMI 2012): the top window of an image.

Windows are drawn in proportion to their multi-scale saliency, scored by three cues, and the cues
are combined by naive Bayes. No class is known and no network is used. numpy, and scikit-image for
the superpixels and CIELAB.

- **MS**, multi-scale saliency: spectral-residual maps at ``SCALES``, per colour channel.
- **CC**, colour contrast: chi-squared distance of the window's CIELAB histogram to its surround's.
- **SS**, superpixels straddling: how little superpixels cross the window's edge.

The parameters (``Thetas``) and the likelihoods (``LikelihoodTables``) are learned from images
with boxes, in two passes. Each pass is a sum of integer histograms over images, so its result
does not depend on the order of the images, nor on the number of workers. On one machine::

    model = fit([(pixels, truth, image_seed(image_id)), ...])
    boxes, scores = proposals(pixels, model, 1000, image_seed(image_id))

Pixels are of any size; results and speed here are of images squashed to 128 x 128.

Where this departs from the paper:

- Every cue is a number in [0, 1], so that one binning serves images of any size: MS is divided by
  its map's total and square-rooted, CC is half the usual sum.
- The MS of a window is its largest over scales and channels, and so a function of the window
  alone; windows at scales 48 and 64 have their corners on every second pixel.
- All thetas maximise the log posterior of random windows, theta_MS too (the paper: the IoU of the
  best windows). Photographs of one large object push theta_MS to the lowest candidate.
- A histogram's empty bins get a whole window, not an epsilon.
- No edge density, as in the authors' own default.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, reduce
from typing import Any, Self

import fsspec
import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage.color import rgb2lab
from skimage.segmentation import felzenszwalb

from sensloc.boxes import Boxes, iou

Pixels = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""
Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

SCALES = (16, 24, 32, 48, 64)
"""Sides of the square saliency maps, in pixels."""
MAX_GRID = 32
"""A map's windows have their corners on a grid of at most this many cells a side."""
SMOOTHING = 3
"""Radius of the disc that smooths a saliency map, in pixels of the map."""
LAB_CELLS = (4, 8, 8)
"""Histogram cells of L in [0, 100] and of a and b in [-120, 120]."""

POSITIVE_IOU = 0.5
"""A window of at least this IoU with a box is an example of an object."""
BINS = 100
"""Equal bins of a cue's range, [0, 1]."""
PSEUDO_COUNT = 1.0
"""Added to every bin, so that no window is impossible."""
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


# --------------------------------------------------------------------------- integral images


def integral_image(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums over [0:y, 0:x]: [H, W, ...] -> [H + 1, W + 1, ...]."""
    padded = np.zeros((values.shape[0] + 1, values.shape[1] + 1, *values.shape[2:]), values.dtype)
    padded[1:, 1:] = values
    np.cumsum(padded, axis=0, out=padded)
    np.cumsum(padded, axis=1, out=padded)
    return padded


def window_sums(integral: npt.NDArray[Any], corners: Integers) -> npt.NDArray[Any]:
    """The sum inside each window, in four reads.

    Args:
        integral: [H + 1, W + 1, ...], see ``integral_image``.
        corners: int [w, 4], x0 y0 x1 y1 in pixel edges.

    Returns:
        [w, ...].
    """
    x0, y0, x1, y1 = corners.T
    return np.asarray(integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0])


def label_counts(labels: Integers, count: int, corners: Sequence[Integers]) -> list[Integers]:
    """How many pixels of each label lie in each window.

    Args:
        labels: int [H, W], values in [0, count).
        count: of labels, K.
        corners: sets of windows, int [w, 4].

    Returns:
        int [w, K] for each set.
    """
    one_hot = np.zeros((*labels.shape, count), np.int32)
    np.put_along_axis(one_hot, labels[..., None], 1, axis=2)
    integral = integral_image(one_hot)
    return [window_sums(integral, windows) for windows in corners]


def pixel_corners(windows: Boxes, height: int, width: int) -> Integers:
    """Unit xyxy [w, 4] -> the nearest pixel edges, int [w, 4], of windows of at least a pixel."""
    rounded = np.rint(windows * np.array([width, height, width, height])).astype(np.int64)
    low = np.clip(rounded[:, :2], 0, np.array([width, height]) - 1)
    high = np.clip(rounded[:, 2:], low + 1, np.array([width, height]))
    return np.concatenate([low, high], axis=1)


def pixel_area(corners: Integers) -> Integers:
    """Pixels in each window: int [w, 4] -> int [w]."""
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])


# --------------------------------------------------------------------------- the cues


def multiscale_saliency(pixels: Pixels) -> list[Floats]:
    """Spectral-residual saliency: one map per scale s, float [s, s, 3] in [0, 1]."""
    image = Image.fromarray(pixels)
    sizes = [(side, side) for side in SCALES]
    small = [image.resize(size, Image.Resampling.BILINEAR) for size in sizes]
    return [spectral_residual(np.asarray(channels, np.float64)) for channels in small]


def spectral_residual(channels: Floats) -> Floats:
    """What is unexpected in each channel's log spectrum, back in the image's frame.

    Args:
        channels: [s, s, c].

    Returns:
        [s, s, c], smoothed, each channel's range stretched to [0, 1]; 0 where a channel is flat.
    """
    spectrum = np.fft.fft2(channels, axes=(0, 1))
    amplitude = np.abs(spectrum)
    floor = max(float(amplitude.max()) * 1e-10, 1e-10)
    present = amplitude > floor
    log_amplitude = np.log(np.maximum(amplitude, floor))
    residual = log_amplitude - _filter(log_amplitude, np.ones((3, 3)))
    unexpected = np.divide(spectrum, amplitude, out=np.zeros_like(spectrum), where=present)
    unexpected *= np.exp(residual)
    saliency = _filter(np.abs(np.fft.ifft2(unexpected, axes=(0, 1))) ** 2, _disc(SMOOTHING))
    low, high = saliency.min((0, 1)), saliency.max((0, 1))
    span = high - low
    flat = span <= 1e-9 * high
    return np.asarray(np.where(flat, 0.0, (saliency - low) / np.where(flat, 1.0, span)))


def _disc(radius: int) -> Floats:
    """Ones where a pixel's centre is within the radius: [2 r + 1, 2 r + 1]."""
    offsets = np.arange(-radius, radius + 1)
    return np.asarray(np.hypot(offsets[:, None], offsets) <= radius, np.float64)


def _filter(image: Floats, kernel: Floats) -> Floats:
    """Weighted mean around each pixel, edges repeated: [s, s, c] and [k, k] -> [s, s, c]."""
    pad = len(kernel) // 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, (0, 1))
    return np.asarray(np.tensordot(around, kernel / kernel.sum(), axes=2))


def thresholded(saliency: Floats, theta: float) -> Floats:
    """The integral image behind MS.

    Args:
        saliency: [s, s, c] in [0, 1].
        theta: smaller values count as 0.

    Returns:
        float [s + 1, s + 1, 2 c]: of each channel's share of its map's total, then of the mask.
    """
    mask = saliency >= theta
    values = np.where(mask, saliency, 0.0)
    total = values.sum((0, 1))
    share = values / np.where(total > 0, total, 1.0)
    return integral_image(np.concatenate([share, mask], axis=2))


def saliency_density(sums: Floats, areas: Integers) -> Floats:
    """MS: the share of the map's saliency in a window times the window's density of salient pixels.

    Args:
        sums: [..., 2 c], differences of ``thresholded``.
        areas: [...] in pixels of the map.

    Returns:
        [..., c] in [0, 1].
    """
    share, salient = np.split(sums, 2, axis=-1)
    return np.asarray(share * salient / areas[..., None])


def window_saliency(saliency: Floats, theta: float, windows: Boxes) -> Floats:
    """MS of given windows at one scale, the largest over channels: unit [w, 4] -> [w] in [0, 1]."""
    corners = pixel_corners(windows, *saliency.shape[:2])
    sums = window_sums(thresholded(saliency, theta), corners)
    density = saliency_density(sums, pixel_area(corners))
    return np.asarray(np.sqrt(np.clip(density.max(1), 0, 1)))


def lab_cells(pixels: Pixels) -> tuple[Integers, int]:
    """The CIELAB histogram cell of each pixel, counting only cells in use: int [H, W], and K."""
    lab = (rgb2lab(pixels) - [0, -120, -120]) / [100, 240, 240]
    cells = np.clip((lab * LAB_CELLS).astype(np.int64), 0, np.array(LAB_CELLS) - 1)
    flat = np.ravel_multi_index(tuple(np.moveaxis(cells, 2, 0)), LAB_CELLS)
    used, index = np.unique(flat, return_inverse=True)
    return index.reshape(flat.shape), len(used)


def surround(corners: Integers, theta: float, height: int, width: int) -> Integers:
    """Each window grown by theta percent of its sides, clipped: int [w, 4] -> int [w, 4]."""
    grow = np.rint((corners[:, 2:] - corners[:, :2]) * theta / 200).astype(np.int64)
    low = np.maximum(corners[:, :2] - grow, 0)
    high = np.minimum(corners[:, 2:] + grow, np.array([width, height]))
    return np.concatenate([low, high], axis=1)


def colour_contrast(pixels: Pixels, windows: Boxes, thetas: Sequence[float]) -> Floats:
    """CC: chi-squared distance between the colours inside a window and those around it.

    Args:
        pixels: [H, W, 3].
        windows: [w, 4] unit xyxy.
        thetas: t sizes of the surround, see ``Thetas.cc``.

    Returns:
        float [w, t] in [0, 1]; 0 where a window has no surround.
    """
    height, width = pixels.shape[:2]
    corners = pixel_corners(windows, height, width)
    grown = [surround(corners, theta, height, width) for theta in thetas]
    inside, *outer = label_counts(*lab_cells(pixels), [corners, *grown])
    return np.stack([_chi_squared(inside, whole - inside) for whole in outer], axis=1)


def _chi_squared(a: Integers, b: Integers) -> Floats:
    """Half the chi-squared distance of two histograms: [w, K] each -> [w]; 0 if one is empty."""
    p, q = (counts / np.maximum(counts.sum(1, keepdims=True), 1) for counts in (a, b))
    total = p + q
    terms = np.divide((p - q) ** 2, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.where((a.any(1)) & (b.any(1)), terms.sum(1) / 2, 0.0))


def superpixels(pixels: Pixels, theta: float) -> Integers:
    """Felzenszwalb's segments, numbered from 0: int [H, W].

    Smoothing and the smallest segment follow the image's size, as in the authors' release.
    """
    factor = float(np.sqrt(pixels.shape[0] * pixels.shape[1] / 60_000))
    segments = felzenszwalb(
        pixels, scale=theta, sigma=0.5 * factor, min_size=max(1, round(200 * factor))
    )
    return np.asarray(segments, np.int64)


def superpixel_straddling(segments: Integers, windows: Boxes) -> Floats:
    """SS: 1 minus the share of the window that straddling superpixels would have to give up.

    Args:
        segments: int [H, W], numbered from 0.
        windows: [w, 4] unit xyxy.

    Returns:
        float [w] in [0, 1]; 1 where every superpixel is wholly inside or wholly outside.
    """
    corners = pixel_corners(windows, *segments.shape)
    sizes = np.bincount(segments.reshape(-1))
    (inside,) = label_counts(segments, len(sizes), [corners])
    straddling = np.minimum(inside, sizes - inside).sum(1)
    return np.asarray(1 - straddling / pixel_area(corners))


def score_windows(pixels: Pixels, windows: Boxes, thetas: Thetas) -> Floats:
    """The three raw cues of each window.

    Args:
        pixels: [H, W, 3].
        windows: [w, 4] unit xyxy.
        thetas: the cues' parameters.

    Returns:
        float [w, 3]: MS, CC, SS, each in [0, 1].
    """
    return _score(pixels, multiscale_saliency(pixels), windows, thetas)


def _score(pixels: Pixels, maps: list[Floats], windows: Boxes, thetas: Thetas) -> Floats:
    """``score_windows`` with the saliency maps at hand."""
    pairs = zip(maps, thetas.ms, strict=True)
    ms = np.max([window_saliency(saliency, theta, windows) for saliency, theta in pairs], axis=0)
    cc = colour_contrast(pixels, windows, [thetas.cc])[:, 0]
    ss = superpixel_straddling(superpixels(pixels, thetas.ss), windows)
    return np.stack([ms, cc, ss], axis=1)


# --------------------------------------------------------------------------- drawing windows


def image_seed(image_id: str) -> int:
    """The seed of an image's windows: 64 bits of a hash of its id."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "big")


def random_windows(seed: int, count: int) -> Boxes:
    """Windows whose two edges on each axis are uniform: [count, 4] unit xyxy."""
    edges = np.random.default_rng(seed).random((count, 2, 2))
    return np.concatenate([edges.min(1), edges.max(1)], axis=1)


def sample_windows(
    pixels: Pixels, seed: int, count: int = SAMPLED_WINDOWS, thetas: Thetas | None = None
) -> Boxes:
    """Draw windows in proportion to their MS, equally many from each scale and channel.

    Args:
        pixels: [H, W, 3].
        seed: see ``image_seed``.
        count: of windows.
        thetas: the cues' parameters.

    Returns:
        [count, 4] unit xyxy, with replacement.
    """
    return _sample(multiscale_saliency(pixels), seed, count, thetas or Thetas())


def _sample(maps: list[Floats], seed: int, count: int, thetas: Thetas) -> Boxes:
    """``sample_windows`` with the saliency maps at hand."""
    rng = np.random.default_rng(seed)
    shares = np.diff(np.linspace(0, count, 3 * len(maps) + 1).astype(int)).reshape(-1, 3)
    drawn = []
    for saliency, theta, share in zip(maps, thetas.ms, shares, strict=True):
        low, high = _intervals(len(saliency))
        weights = grid_saliency(saliency, theta)
        for channel, size in enumerate(share):
            row, column = _draw(weights[..., channel], rng.random(size))
            corners = np.stack([low[column], low[row], high[column], high[row]], axis=1)
            drawn.append(corners / len(saliency))
    return np.concatenate(drawn)


def grid_saliency(saliency: Floats, theta: float) -> Floats:
    """MS of all windows of a map's grid: [s, s, c] -> [p, p, c], by row interval and column's."""
    low, high = _intervals(len(saliency))
    integral = thresholded(saliency, theta).astype(np.float32)
    rows = integral[high] - integral[low]
    return saliency_density(rows[:, high] - rows[:, low], np.outer(high - low, high - low))


@cache
def _intervals(side: int) -> tuple[Integers, Integers]:
    """All intervals between the grid lines of a map of this side: [p] firsts and [p] lasts."""
    first, last = np.triu_indices(side // -(-side // MAX_GRID) + 1, k=1)
    return first * -(-side // MAX_GRID), last * -(-side // MAX_GRID)


def _draw(weights: Floats, uniform: Floats) -> tuple[Integers, Integers]:
    """Turn numbers in [0, 1) into indices in proportion to weights >= 0; evenly if all are 0.

    Args:
        weights: [p, q].
        uniform: [n].

    Returns:
        Row and column indices, [n] each.
    """
    flat = np.maximum(weights.reshape(-1).astype(np.float64), 0)
    cumulative = (flat if flat.any() else flat + 1).cumsum()
    picks = cumulative.searchsorted(uniform * cumulative[-1], side="right")
    row, column = np.unravel_index(np.minimum(picks, flat.size - 1), weights.shape)
    return row, column


# --------------------------------------------------------------------------- likelihoods


@dataclass(frozen=True)
class LikelihoodTables:
    """Histograms of cues over windows on objects and on background.

    Integer sums, so ``merge`` is associative and commutative to the bit, and ``zeros`` is its
    identity.

    Attributes:
        counts: int64 [c, 2, BINS]: of each cue, windows on background and on objects.
    """

    counts: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, cues: int) -> Self:
        """The identity of ``merge``."""
        return cls(np.zeros((cues, 2, BINS), np.int64))

    @classmethod
    def from_batch(cls, cues: Floats, labels: npt.NDArray[np.bool_]) -> Self:
        """Count windows: cues [w, c] in [0, 1], labels [w], true on an object."""
        table = np.arange(cues.shape[1]) * 2 + np.asarray(labels, np.int64)[:, None]
        cells = (table * BINS + _bins(cues)).reshape(-1)
        size = cues.shape[1] * 2 * BINS
        return cls(np.bincount(cells, minlength=size).reshape(-1, 2, BINS).astype(np.int64))

    def merge(self, other: Self) -> Self:
        """The windows of both."""
        return type(self)(self.counts + other.counts)

    def likelihoods(self) -> Floats:
        """p(cue | background) and p(cue | object): [c, 2, BINS], each row sums to 1."""
        smooth = self.counts + PSEUDO_COUNT
        return np.asarray(smooth / smooth.sum(2, keepdims=True))

    def priors(self) -> Floats:
        """p(background) and p(object), the shares of the windows: [2]; even without windows."""
        smooth = self.counts[0].sum(1) + PSEUDO_COUNT
        return np.asarray(smooth / smooth.sum())

    def posterior(self, cues: Floats) -> Floats:
        """p(object | cues) by naive Bayes: [w, c] -> [w]."""
        logs = np.log(self.likelihoods())
        log_odds = (logs[:, 1] - logs[:, 0])[np.arange(cues.shape[1]), _bins(cues)].sum(1)
        background, target = self.priors()
        return np.asarray(1 / (1 + np.exp(-log_odds) * background / target))

    def evidence(self) -> Floats:
        """How well each cue *alone* labels the windows counted: [c], larger is better.

        The log posterior of the windows' true labels, summed: what the paper maximises to choose
        a theta. Windows in one bin have one posterior, so the histogram says it all.
        """
        joint = self.likelihoods() * self.priors()[:, None]
        log_posterior = np.log(joint / joint.sum(1, keepdims=True))
        return np.asarray((self.counts * log_posterior).sum((1, 2)))


def _bins(cues: Floats) -> Integers:
    """[...] in [0, 1] -> bin index."""
    return np.clip((cues * BINS).astype(np.int64), 0, BINS - 1)


def on_object(windows: Boxes, truth: Boxes) -> npt.NDArray[np.bool_]:
    """Which windows [w, 4] cover one of the image's boxes [m, 4]: bool [w]."""
    return np.asarray((iou(windows[:, None], truth[None]) >= POSITIVE_IOU).any(1))


# --------------------------------------------------------------------------- learning


def theta_counts(pixels: Pixels, truth: Boxes, seed: int) -> LikelihoodTables:
    """First pass, one image: every candidate theta as a cue, over random windows.

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
    """The best candidates of the merged ``theta_counts``, the first of equals."""
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
    """Second pass, one image: the three cues over the windows that would be proposed.

    Args:
        pixels: [H, W, 3].
        truth: [m, 4] unit xyxy.
        seed: see ``image_seed``.
        thetas: from the first pass.
    """
    maps = multiscale_saliency(pixels)
    windows = _sample(maps, seed, SAMPLED_WINDOWS, thetas)
    cues = _score(pixels, maps, windows, thetas)
    return LikelihoodTables.from_batch(cues, on_object(windows, truth))


def merged(tables: Iterable[LikelihoodTables]) -> LikelihoodTables:
    """The sum of at least one."""
    return reduce(LikelihoodTables.merge, tables)


@dataclass(frozen=True)
class Objectness:
    """The learned measure: all that ``proposals`` needs."""

    thetas: Thetas
    tables: LikelihoodTables

    def dumps(self) -> str:
        """JSON: the thetas, and the tables as lists."""
        return json.dumps(asdict(self.thetas) | {"counts": self.tables.counts.tolist()})

    def save(self, url: str) -> None:
        """Write ``dumps`` to a file."""
        with fsspec.open(url, "w") as file:
            file.write(self.dumps())

    @classmethod
    def load(cls, url: str) -> Self:
        """Read what ``save`` wrote."""
        with fsspec.open(url, "r") as file:
            facts = json.load(file)
        tables = LikelihoodTables(np.array(facts.pop("counts"), np.int64))
        return cls(Thetas(tuple(facts["ms"]), facts["cc"], facts["ss"]), tables)


def fit(images: Sequence[tuple[Pixels, Boxes, int]]) -> Objectness:
    """Both passes on one machine: pixels, boxes [m, 4] unit xyxy and seed of each image.

    Raises:
        ValueError: no image.
    """
    if len(images) == 0:
        raise ValueError("no images: nothing to learn objectness from")
    thetas = choose_thetas(merged(theta_counts(*image) for image in images))
    return Objectness(thetas, merged(cue_counts(*image, thetas) for image in images))


# --------------------------------------------------------------------------- proposing


def proposals(
    pixels: Pixels, model: Objectness, count: int, seed: int, windows: int = SAMPLED_WINDOWS
) -> tuple[Boxes, Floats]:
    """The windows most likely to hold an object. The first is the method's box.

    Args:
        pixels: [H, W, 3].
        model: learned.
        count: at most so many are returned; non-maximum suppression may leave fewer.
        seed: see ``image_seed``.
        windows: how many are sampled and scored.

    Returns:
        Boxes [k, 4] unit xyxy and their p(object | cues) [k], best first.
    """
    maps = multiscale_saliency(pixels)
    sampled = _sample(maps, seed, windows, model.thetas)
    scores = model.tables.posterior(_score(pixels, maps, sampled, model.thetas))
    kept = nms(sampled, scores, NMS_IOU, count)
    return sampled[kept], scores[kept]


def nms(boxes: Boxes, scores: Floats, threshold: float, count: int) -> Integers:
    """Greedy non-maximum suppression.

    Args:
        boxes: [n, 4] xyxy.
        scores: [n]; among equals the first box wins.
        threshold: a box of a larger IoU with a kept one is dropped.
        count: stop when so many are kept.

    Returns:
        int [k], indices of the kept boxes, best first.
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left) and len(kept) < count:
        kept.append(int(left[0]))
        left = left[1:][iou(boxes[left[1:]], boxes[left[0]]) <= threshold]
    return np.array(kept, np.int64)


def recall(
    proposed: Sequence[Boxes], truth: Sequence[Boxes], at: Sequence[int] = (10, 100, 1000)
) -> dict[int, float]:
    """The share of all objects that one of an image's first proposals covers.

    Args:
        proposed: n arrays [k_i, 4], best first.
        truth: n arrays [m_i, 4].
        at: how many proposals to look at.

    Returns:
        For each of ``at``, a share in [0, 1].

    Raises:
        ValueError: no objects.
    """
    objects = sum(len(boxes) for boxes in truth)
    if objects == 0:
        raise ValueError("recall of no objects")
    found = np.sum([count_found(*pair, at) for pair in zip(proposed, truth, strict=True)], axis=0)
    return dict(zip(at, (found / objects).tolist(), strict=True))


def count_found(proposed: Boxes, truth: Boxes, at: Sequence[int]) -> npt.NDArray[np.int64]:
    """How many of one image's boxes its first proposals cover: [k, 4], [m, 4] -> [len(at)]."""
    covers = iou(truth[:, None], proposed[None]) >= POSITIVE_IOU
    return np.array([covers[:, :first].any(1).sum() for first in at], np.int64)
