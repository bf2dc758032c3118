"""The foreground: how much of each cell the object covers, by a learned read-out of one pass.

It is not the paper's. The paper's equation 1 gives a sensitivity for every unit of every layer, not
for the pixels alone; a least-squares read-out of these and of the activations gives a map of the
object. What it reads lies at inner layers, so the backward pass stops half-way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sensloc.errors import ClassifierError
from sensloc.heatmaps import has_channels, maker
from sensloc.heatmaps.passes import Options, Pass, Reading
from sensloc.heatmaps.readout import LIMIT, Readout
from sensloc.networks.taps import Tap

STRIDES = 2
"""The coarsest strides of a network, so many, are read where a config names no blocks."""


def blocks_at(strides: Sequence[int], head: bool) -> tuple[str, ...]:
    """Return what is read of a network where a config does not say.

    Args:
        strides: Those of the network, ascending.
        head: Whether the network has a CAM.
    """
    read = strides[-STRIDES:]
    maps = [f"{kind}_{stride}" for stride in read for kind in ("inner", "layercam")]
    cam = ["cam"] if head else []
    activations = [f"activation_{stride}" for stride in read]
    return (*maps, f"hirescam_{read[-1]}", *cam, *activations)


@dataclass(frozen=True)
class Cells:
    """What a pass says of each cell: blocks of values, side by side.

    Attributes:
        blocks: Names of readings; those with many channels come last.
        readings: One for each.
        grid: g, cells of a row and of a column.
    """

    blocks: tuple[str, ...]
    readings: tuple[Reading, ...]
    grid: int

    @classmethod
    def of(cls, blocks: Iterable[str], grid: int, options: Options) -> "Cells":
        """Return the cells of blocks that are named."""
        names = tuple(sorted(blocks, key=has_channels))
        return cls(names, tuple(maker.reading(name, options) for name in names), grid)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """What is read of the pass."""
        return tuple({tap: None for reading in self.readings for tap in reading.taps})

    @property
    def backward(self) -> bool:
        """Whether derivatives are read."""
        return any(reading.backward for reading in self.readings)

    def __call__(self, passed: Pass) -> Tensor:
        """Return the values: [n, P, d] in [-LIMIT, LIMIT]."""
        values = torch.cat(self._blocks(passed), 1).clamp(-LIMIT, LIMIT)
        return values.flatten(2).transpose(1, 2)

    def widths(self, passed: Pass) -> dict[str, int]:
        """Return how many values each block has."""
        widths = (block.shape[1] for block in self._blocks(passed))
        return dict(zip(self.blocks, widths, strict=True))

    def _blocks(self, passed: Pass) -> list[Tensor]:
        return [_block(reading.read(passed), self.grid) for reading in self.readings]


def _block(values: Tensor, grid: int) -> Tensor:
    """Return values on the grid's cells, of mean square 1 over an image: [n, C, g, g].

    Args:
        values: [n, h, w] or [n, C, h, w]; coarser ones are interpolated, finer ones averaged.
        grid: g.
    """
    values = values[:, None] if values.ndim == 3 else values
    if values.shape[2] > grid:
        values = F.adaptive_avg_pool2d(values, grid)
    elif values.shape[2] < grid:
        values = F.interpolate(values, (grid, grid), mode="bilinear", align_corners=False)
    norm = values.square().mean((1, 2, 3), keepdim=True).sqrt()
    return values / torch.where(norm > 0, norm, 1)


def reading(options: Options) -> Reading:
    """Read the share of each cell that is foreground, by the class's own read-out.

    Raises:
        ClassifierError: No read-out was learned.
    """
    return reading_of("foreground", options)


def reading_of(name: str, options: Options) -> Reading:
    """Read the shares by the read-outs of that name.

    Raises:
        ClassifierError: No read-out was learned.
    """
    if not options.readouts.get(name):
        raise ClassifierError(f"the {name} is learned by a run: it has no read-out here")
    whole, *_ = options.readouts[name]
    placed = [Placed(readout) for readout in options.readouts[name]]
    cells = Cells.of(whole.blocks, whole.grid, options)

    def read(passed: Pass) -> Tensor:
        values, fold = cells(passed), passed.fold.clamp(max=len(placed) - 1)
        maps = torch.stack([shares_of(values, passed.labels) for shares_of in placed])
        chosen = maps[fold, torch.arange(len(fold), device=fold.device)]
        return chosen.reshape(-1, cells.grid, cells.grid)

    return Reading(read, cells.taps, cells.backward, share=True)


class Placed:
    """A read-out as tensors, on the device of what it is first called with."""

    def __init__(self, readout: Readout) -> None:
        weights = torch.from_numpy(readout.weights)
        means = torch.from_numpy(readout.means_x)
        self.weights = weights
        self.bias = torch.from_numpy(readout.means_y) - weights @ means.T
        self.classes = torch.from_numpy(readout.classes)

    def __call__(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the shares [n, P] of values [n, P, d] of images of such classes [n]."""
        self.weights, self.bias, self.classes = (
            tensor.to(values.device) for tensor in (self.weights, self.bias, self.classes)
        )
        row = self.row(labels)
        return torch.einsum("npd,nd->np", values, self.weights[row]) + self.bias[row]

    def row(self, labels: Tensor) -> Tensor:
        """Return what ``Readout.row`` does, where the labels are: a GPU is not waited for."""
        at = torch.searchsorted(self.classes, labels)
        known = F.pad(self.classes, (0, 1), value=-1)[at] == labels
        return torch.where(known, at + 1, 0)
