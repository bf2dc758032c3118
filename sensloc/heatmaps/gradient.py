"""Sensitivity maps: the derivative of a class score with regard to every pixel. torch only.

Ebrahimpour & Noelle, eq. 1, after Simonyan et al. 2014: ``s = d score / d x`` from one backward
pass to the pixels. Only the pixels receive a gradient: the network is frozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensloc.config import Sensitivity
from sensloc.networks import AnyClassifier

Channels = Literal["max", "l2", "sum"]
Precision = Literal["float32", "bfloat16"]

Gradient = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""``class_score_gradient``, or what takes its place."""

PREDICTED = -1
"""As a label: differentiate the score of the class that the network itself predicts."""


def class_score_gradient(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Differentiate each image's class score (the logit) with regard to its pixels.

    Args:
        network: frozen, in eval mode: [n, 3, S, S] -> logits [n, classes].
        x: [n, 3, S, S], normalised pixels.
        labels: [n] int64, class indices, or ``PREDICTED``.

    Returns:
        The gradient [n, 3, S, S] and the logits [n, classes], both float32.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = network(x).float()
        index = torch.where(labels == PREDICTED, logits.argmax(1), labels)
        (gradient,) = torch.autograd.grad(logits.gather(1, index[:, None]).sum(), x)
    return gradient.float(), logits.detach()


def sensitivity_map(gradient: Tensor, channels: Channels) -> Tensor:
    """One non-negative number per pixel: [n, 3, S, S] -> [n, S, S]."""
    if channels == "max":
        return gradient.abs().amax(1)
    if channels == "l2":
        return (gradient * gradient).sum(1).sqrt()
    return gradient.abs().sum(1)


def pool(maps: Tensor, grid: int) -> Tensor:
    """Mean over the cells of a grid: [n, S, S] -> [n, grid, grid]."""
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]


@dataclass(frozen=True)
class Maps:
    """What one batch of n images gives.

    Attributes:
        predicted: [n] int64, the class of the highest score.
        score: [n] float32, the logit that was differentiated.
        probability: [n] float32 in [0, 1], its softmax.
        map: [n, G * G] float16 in [0, 1], row-major: the pooled map over its own maximum.
        scale: [n] float32, that maximum (score per unit of normalised pixel); nan or inf where
            the gradient is.
    """

    predicted: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    map: npt.NDArray[np.float16]
    scale: npt.NDArray[np.float32]


@dataclass(frozen=True)
class MapMaker:
    """uint8 images in, sensitivity maps out: everything between happens on ``device``.

    Every batch is padded to ``batch_size`` images, so that kernels see one shape only and an
    image's map does not depend, to the bit, on how full its batch was.

    Attributes:
        network: as ``sensloc.networks.prepare.prepare`` returns it.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        batch_size: images per pass.
        channels: see ``sensitivity_map``.
        grid: see ``pool``.
        precision: of the network's arithmetic; maps are pooled in float32.
        device: where the network is.
        gradient: what is asked of the network.
    """

    network: nn.Module
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    channels: Channels = "max"
    grid: int = 14
    precision: Precision = "float32"
    device: str = "cpu"
    gradient: Gradient = class_score_gradient

    def __call__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> Maps:
        """Make maps: uint8 [n, S, S, 3] RGB and int64 [n], n <= batch_size."""
        n = len(pixels)
        if n > self.batch_size:
            raise ValueError(f"{n} images in a batch of at most {self.batch_size}")
        x, index = (self.padded(values) for values in (pixels, labels))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            gradient, logits = self.gradient(self.network, self.normalise(x), index)
        maps = pool(sensitivity_map(gradient, self.channels), self.grid).flatten(1)[:n]
        return self._encode(maps, logits[:n], index[:n])

    def padded(self, values: npt.NDArray[Any]) -> Tensor:
        """[n, ...] -> [batch_size, ...] on the device, zeros behind."""
        whole = np.zeros((self.batch_size, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        return torch.from_numpy(whole).to(self.device)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 [n, S, S, 3] -> float32 [n, 3, S, S], in the network's memory format."""
        mean = torch.tensor(self.mean, device=pixels.device) * 255
        std = torch.tensor(self.std, device=pixels.device) * 255
        x = ((pixels.float() - mean) / std).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def _encode(self, maps: Tensor, logits: Tensor, labels: Tensor) -> Maps:
        scale = maps.amax(1)
        relative = maps / torch.where(scale > 0, scale, 1)[:, None]
        predicted = logits.argmax(1)
        index = torch.where(labels == PREDICTED, predicted, labels)[:, None]

        def column(values: Tensor) -> Any:
            return values.cpu().numpy()

        return Maps(
            predicted=column(predicted),
            score=column(logits.gather(1, index)[:, 0]),
            probability=column(logits.softmax(1).gather(1, index)[:, 0]),
            map=column(relative.half()),
            scale=column(scale),
        )


def map_maker(
    network: nn.Module,
    config: AnyClassifier,
    maps: Sensitivity,
    device: str,
    gradient: Gradient = class_score_gradient,
) -> MapMaker:
    """The way to make maps that the two sections ask for, of a network that is prepared."""
    return MapMaker(
        network,
        config.mean,
        config.std,
        maps.batch_size,
        maps.channels,
        maps.grid,
        maps.precision,
        device,
        gradient,
    )
