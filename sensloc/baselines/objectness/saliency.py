"""MS, the multi-scale saliency of windows: how much of a map's unexpected structure they hold.

The maps are the spectral residual of Hou and Zhang (CVPR 2007) at several scales.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from sensloc.baselines.objectness.windows import (
    Floats,
    Integers,
    Pixels,
    draw_cells,
    integral_image,
    pixel_area,
    pixel_corners,
    window_sums,
)
from sensloc.boxes import Boxes

SCALES = (16, 24, 32, 48, 64)
"""Sides of the square saliency maps, in pixels."""
MAX_GRID = 32
"""A map's windows have their corners on a grid of at most this many cells a side."""
SMOOTHING = 3
"""Radius of the disc that smooths a saliency map, in pixels of the map."""


# --------------------------------------------------------------------------- maps


def multiscale_saliency(pixels: Pixels) -> list[Floats]:
    """Return the spectral-residual saliency: one map per scale s, float [s, s, 3] in [0, 1]."""
    image = Image.fromarray(pixels)
    sizes = [(side, side) for side in SCALES]
    small = [image.resize(size, Image.Resampling.BILINEAR) for size in sizes]
    return [spectral_residual(np.asarray(channels, np.float64)) for channels in small]


def spectral_residual(channels: Floats) -> Floats:
    """Return the unexpected part of each channel's log spectrum, back in the image's frame.

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
    """Return ones where a pixel's centre is within the radius: [2 r + 1, 2 r + 1]."""
    offsets = np.arange(-radius, radius + 1)
    return np.asarray(np.hypot(offsets[:, None], offsets) <= radius, np.float64)


def _filter(image: Floats, kernel: Floats) -> Floats:
    """Return the weighted mean around each pixel, edges repeated: [s, s, c] -> [s, s, c]."""
    pad = len(kernel) // 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    around = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, (0, 1))
    return np.asarray(np.tensordot(around, kernel / kernel.sum(), axes=2))


# --------------------------------------------------------------------------- windows


def thresholded(saliency: Floats, theta: float) -> Floats:
    """Return the integral image behind MS.

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
    """Return MS: the window's share of the map's saliency times its density of salient pixels.

    Args:
        sums: [..., 2 c], differences of ``thresholded``.
        areas: [...] in pixels of the map.

    Returns:
        [..., c] in [0, 1].
    """
    share, salient = np.split(sums, 2, axis=-1)
    return np.asarray(share * salient / areas[..., None])


def window_saliency(saliency: Floats, theta: float, windows: Boxes) -> Floats:
    """Return the square root of MS of given windows at one scale, the largest over channels.

    Args:
        saliency: [s, s, c] in [0, 1].
        theta: smaller values count as 0.
        windows: [w, 4] unit xyxy.

    Returns:
        float [w] in [0, 1].
    """
    corners = pixel_corners(windows, *saliency.shape[:2])
    sums = window_sums(thresholded(saliency, theta), corners)
    density = saliency_density(sums, pixel_area(corners))
    return np.asarray(np.sqrt(np.clip(density.max(1), 0, 1)))


# --------------------------------------------------------------------------- drawing


def draw_windows(maps: Sequence[Floats], thetas: Sequence[float], seed: int, count: int) -> Boxes:
    """Draw windows in proportion to their MS, equally many from each scale and channel.

    Args:
        maps: see ``multiscale_saliency``.
        thetas: one per map.
        seed: see ``image_seed``.
        count: of windows.

    Returns:
        [count, 4] unit xyxy, with replacement.
    """
    rng = np.random.default_rng(seed)
    shares = np.diff(np.linspace(0, count, 3 * len(maps) + 1).astype(int)).reshape(-1, 3)
    drawn = []
    for saliency, theta, share in zip(maps, thetas, shares, strict=True):
        low, high = _intervals(len(saliency))
        weights = grid_saliency(saliency, theta)
        for channel, size in enumerate(share):
            row, column = draw_cells(weights[..., channel], rng.random(size))
            corners = np.stack([low[column], low[row], high[column], high[row]], axis=1)
            drawn.append(corners / len(saliency))
    return np.concatenate(drawn)


def grid_saliency(saliency: Floats, theta: float) -> Floats:
    """Return the MS of all windows of a map's grid: [s, s, c] -> [p, p, c], by rows and columns."""
    low, high = _intervals(len(saliency))
    integral = thresholded(saliency, theta).astype(np.float32)
    rows = integral[high] - integral[low]
    return saliency_density(rows[:, high] - rows[:, low], np.outer(high - low, high - low))


@cache
def _intervals(side: int) -> tuple[Integers, Integers]:
    """Return all intervals between the grid lines of a map of this side: [p] firsts, [p] lasts."""
    first, last = np.triu_indices(side // -(-side // MAX_GRID) + 1, k=1)
    return first * -(-side // MAX_GRID), last * -(-side // MAX_GRID)
