"""Objectness against an independent implementation: OpenCV's EdgeBoxes, on real photographs.

EdgeBoxes (Zitnick and Dollar, ECCV 2014) shares no code and no cue with ours: it counts the
contours that lie wholly inside a window. Its learned edge detector needs a model file, so here
it gets Sobel edges, which makes it a sanity peer and not the published method.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest

from sensloc.baselines.objectness import (
    Objectness,
    Pixels,
    fit,
    image_seed,
    proposals,
    random_windows,
    recall,
    score_windows,
)
from sensloc.boxes import Boxes, iou, unit_boxes
from sensloc.config import ImageNet
from sensloc.datasets import reader_for
from sensloc.images.decode import decode
from sensloc.images.fetch import inspect

SIDE = 128
AT = (10, 100, 1000)


@dataclass(frozen=True)
class Photograph:
    """One image, squashed to ``SIDE``, its boxes [m, 4] unit xyxy, and its seed."""

    pixels: Pixels
    truth: Boxes
    seed: int


@dataclass(frozen=True)
class Compared:
    """The measure and, per photograph, the windows of each method, best first."""

    model: Objectness
    photographs: list[Photograph]
    ours: list[Boxes]
    peer: list[Boxes]
    random: list[Boxes]

    def recall(self, proposed: Sequence[Boxes]) -> dict[int, float]:
        """At IoU 0.5, for each of ``AT``."""
        return recall(proposed, [photograph.truth for photograph in self.photographs], AT)

    def corloc(self, proposed: Sequence[Boxes]) -> float:
        """The share of photographs whose first window covers an object."""
        pairs = zip(proposed, self.photographs, strict=True)
        hits = [(iou(boxes[:1], image.truth) >= 0.5).any() for boxes, image in pairs]
        return float(np.mean(hits))


def photographs(root: Path, part: Literal["train", "val"], count: int) -> list[Photograph]:
    """So many of a part's images, evenly spaced in the order of their ids."""
    reader = reader_for(ImageNet(layout="imagenet", root=str(root), parts=(part,)))
    rows = sorted((row for u in reader.units() for row in reader.read(u)), key=lambda r: r.image_id)
    found = []
    for row in rows[:: len(rows) // count][:count]:
        data = Path(row.uri).read_bytes()
        size = inspect(data)
        truth = unit_boxes(row.corners, size.width, size.height, row.convention)
        found.append(Photograph(decode(data, SIDE).pixels, truth, image_seed(row.image_id)))
    return found


def edge_boxes(pixels: Pixels) -> Boxes:
    """EdgeBoxes from Sobel edges, best first: [k, 4] unit xyxy, k <= 1000.

    The edges are the channel's of the largest gradient, thinned by Canny's non-maximum
    suppression; the orientation is the gradient's, in [0, pi). The parameters are OpenCV's
    defaults, but for the smallest window, which follows the image's size, and the threshold of
    non-maximum suppression, here near ours.
    """
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 2)
    gradients = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])
    strongest = (gradients**2).sum(0).argmax(-1)
    dx, dy = np.take_along_axis(gradients, strongest[None, ..., None], axis=-1)[..., 0]
    magnitude = np.hypot(dx, dy)
    ridges = cv2.Canny((8 * dx).astype(np.int16), (8 * dy).astype(np.int16), 0, 0) > 0
    edges = np.where(ridges, magnitude / max(magnitude.max(), 1e-9), 0).astype(np.float32)
    orientation = np.mod(np.arctan2(dy, dx), np.pi).astype(np.float32)
    detector = cv2.ximgproc.createEdgeBoxes(
        beta=0.55, maxBoxes=max(AT), minBoxArea=0.01 * edges.size
    )
    xywh, _ = detector.getBoundingBoxes(edges, orientation)
    corners = np.asarray(xywh, np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners / np.tile(edges.shape[::-1], 2)


@pytest.fixture(scope="module")
def compared(real_data: Callable[[str], Path]) -> Compared:
    """Learned on 40 photographs of dogs, compared on 60 of ten other classes."""
    root = real_data("imagenet-mini")
    training = photographs(root, "train", 40)
    model = fit([(image.pixels, image.truth, image.seed) for image in training])
    images = photographs(root, "val", 60)
    return Compared(
        model,
        images,
        [proposals(image.pixels, model, max(AT), image.seed)[0] for image in images],
        [edge_boxes(image.pixels) for image in images],
        [random_windows(image.seed + 1, max(AT)) for image in images],
    )


# Measured on these 60 photographs (104 objects), and in brackets on 60 others (95 objects), on
# which the peer's blur and suppression were chosen:
#
#                recall at 10    at 100          at 1,000        CorLoc of the first
#     ours       0.442 (0.474)   0.769 (0.642)   0.837 (0.747)   0.333 (0.467)
#     EdgeBoxes  0.510 (0.600)   0.798 (0.737)   0.875 (0.884)   0.300 (0.467)
#     random     0.144 (0.084)   0.529 (0.516)   0.846 (0.737)   0.000 (0.017)
#
# At 1,000 ours is no better than random: suppression leaves about 340 windows an image. EdgeBoxes
# at 256 pixels a side is better at 100 and 1,000 (0.811 and 0.916 in brackets), worse at 10 and
# first (0.568, 0.433). The margins below leave room for both sets.


def test_ours_finds_more_objects_than_random_windows_do(compared: Compared) -> None:
    ours, chance = compared.recall(compared.ours), compared.recall(compared.random)
    assert ours[10] > chance[10] + 0.2
    assert ours[100] > chance[100] + 0.1
    assert compared.corloc(compared.ours) > compared.corloc(compared.random) + 0.2


def test_ours_is_not_far_behind_the_peer(compared: Compared) -> None:
    """The peer is ahead at 10 and 100; ours is ahead, or even, in its first window."""
    ours, peer = compared.recall(compared.ours), compared.recall(compared.peer)
    assert ours[10] >= peer[10] - 0.15
    assert ours[100] >= peer[100] - 0.15
    assert compared.corloc(compared.ours) >= compared.corloc(compared.peer) - 0.1


def test_our_measure_prefers_the_peers_windows_to_random_ones(compared: Compared) -> None:
    """On nearly every photograph, by the mean posterior of ten against a hundred."""
    model = compared.model

    def mean_posterior(image: Photograph, windows: Boxes) -> float:
        cues = score_windows(image.pixels, windows, model.thetas)
        return float(model.tables.posterior(cues).mean())

    preferred = [
        mean_posterior(image, peer[:10]) > mean_posterior(image, random[:100])
        for image, peer, random in zip(
            compared.photographs, compared.peer, compared.random, strict=True
        )
    ]
    assert np.mean(preferred) >= 0.9
