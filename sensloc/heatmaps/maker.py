"""Images in, heat maps out: batches padded, passed through a network, read, pooled and scaled."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sensloc.errors import ClassifierError
from sensloc.heatmaps import column, kind_and_stride, region
from sensloc.heatmaps.passes import Options, Pass, Reading, look
from sensloc.heatmaps.transfer import Arriving, sent
from sensloc.networks.prepare import Prepared
from sensloc.networks.taps import Tap
from sensloc.networks.weights import randomised

SCORES = ("predicted", "score", "probability")
"""What a batch gives beside its maps, see ``Seen``."""


def reading(name: str, options: Options) -> Reading:
    """Return the reading of a heat map's name, see ``sensloc.heatmaps``."""
    kind, stride = kind_and_stride(name)
    make: Callable[..., Reading] = import_module(f"sensloc.heatmaps.{kind}").reading
    return make(options) if stride is None else make(options, stride)


@dataclass(frozen=True)
class Maps:
    """One heat map of each of n images.

    Attributes:
        values: float16 [n, h * w] in [0, 1], row-major: the map over its own maximum, or, if it
            is signed, stretched from its minimum to its maximum; shares as they are.
        scale: float32 [n], that maximum, or the difference, or 1 for shares; nan or inf where the
            map is not finite.
        height: h.
        width: w.
    """

    values: npt.NDArray[np.float16]
    scale: npt.NDArray[np.float32]
    height: int
    width: int


@dataclass(frozen=True)
class Seen:
    """What one batch of n images gives.

    Attributes:
        predicted: int64 [n], the class of the highest score.
        score: float32 [n], the logit that was differentiated.
        probability: float32 [n] in [0, 1], its softmax.
        maps: The heat maps by name.
        passed: The pass of the batch, padding behind.
        regions: Of maps that show a part of each image, by name: float32 [n, 4] unit xyxy.
    """

    predicted: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    maps: Mapping[str, Maps]
    passed: Pass
    regions: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    @property
    def finite(self) -> npt.NDArray[np.bool_]:
        """Whether every heat map of an image is finite: bool [n]."""
        finite = [np.isfinite(maps.scale) for maps in self.maps.values()]
        return np.asarray(np.all(finite, axis=0))

    def columns(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the maps [n, h * w] by their columns, zeros where an image's are not finite.

        Regions [n, 4] are among them.
        """
        good = self.finite[:, None]
        maps = {column(name): np.where(good, m.values, 0) for name, m in self.maps.items()}
        return maps | {region(column(name)): at for name, at in self.regions.items()}


@dataclass(frozen=True)
class MapMaker:
    """uint8 images in, heat maps out: everything between happens on ``device``.

    Every batch is padded to ``batch_size`` images, so that kernels see one shape only and an
    image's map does not depend, to the bit, on how full its batch was.

    Attributes:
        networks: The network, and the one of random weights if a reading is of it.
        readings: By name.
        mean: Per channel, of pixels in [0, 1].
        std: Per channel.
        batch_size: Images per pass.
        grid: A map of more cells than ``grid`` x ``grid`` is area-pooled to that.
        device: Where the networks are.
        taps: What is kept of the pass beside what the readings read.
        backward: Whether derivatives at these are wanted too.
    """

    networks: tuple[Prepared, ...]
    readings: Mapping[str, Reading]
    mean: Sequence[float]
    std: Sequence[float]
    batch_size: int
    grid: int = 14
    device: str = "cpu"
    taps: tuple[Tap, ...] = ()
    backward: bool = False

    def __call__(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        fold: npt.NDArray[np.int64] | None = None,
    ) -> Seen:
        """Make the maps of a batch.

        Args:
            pixels: RGB, uint8 [n, S, S, 3], n <= batch_size.
            labels: Class indices, or ``PREDICTED``, int64 [n].
            fold: Which fold of a cross-fitted reading reads each image, int64 [n]; None: the whole.
        """
        return self.start(pixels, labels, fold).seen()

    def start(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        fold: npt.NDArray[np.int64] | None = None,
    ) -> "Started":
        """Begin to make the maps of a batch, see ``__call__``: a GPU works on when this returns.

        Raises:
            ClassifierError: The device's memory does not hold a pass of a batch. Nothing goes on
                with a smaller one by itself: kernels round otherwise there.
        """
        n = len(pixels)
        if n > self.batch_size:
            raise ValueError(f"{n} images in a batch of at most {self.batch_size}")
        try:
            return self._started(pixels, labels, fold)
        except torch.OutOfMemoryError:
            pass  # behind this line nothing holds what the pass had
        fits = self._fitting(pixels[:1])
        raise ClassifierError(
            f"sensitivity.batch_size = {self.batch_size}: the memory of {self.device} does not "
            f"hold a pass of so many images; of {fits} it does"
        )

    def _fitting(self, pixels: npt.NDArray[np.uint8]) -> int:
        """Return the largest half, quarter and so on of the batch that memory holds; 0: none."""
        size = self.batch_size // 2
        while size:
            try:
                replace(self, batch_size=size)._started(pixels, np.zeros(len(pixels), np.int64))
                break
            except torch.OutOfMemoryError:
                size //= 2
        return size

    def _started(
        self,
        pixels: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.int64],
        fold: npt.NDArray[np.int64] | None = None,
    ) -> "Started":
        n = len(pixels)
        fold = np.zeros(n, np.int64) if fold is None else fold
        x, index, folds = (
            sent(values, self.batch_size, self.device) for values in (pixels, labels, fold)
        )
        looks = partial(self._look, x=self.normalise(x), labels=index, fold=folds)
        passes = [looks(network, random=i) for i, network in enumerate(self.networks)]
        sizes, tensors = {}, _of_class_scores(passes[0], n)
        for name, reading in self.readings.items():
            maps = pool(reading.read(passes[reading.random]).float(), self.grid)
            values, scale = _encoded(maps.flatten(1)[:n], reading)
            tensors |= {f"{name} values": values, f"{name} scale": scale}
            sizes[name] = (maps.shape[1], maps.shape[2])
        return Started(passes[0], Arriving.of(tensors), sizes)

    def only(self, names: Iterable[str], taps: Iterable[Tap] = ()) -> "MapMaker":
        """Return a maker of fewer heat maps by the same networks."""
        readings = {name: self.readings[name] for name in names}
        return replace(self, readings=readings, taps=tuple(taps))

    def _look(
        self, network: Prepared, x: Tensor, labels: Tensor, fold: Tensor, random: int
    ) -> Pass:
        readings = [r for r in self.readings.values() if r.random == random]
        taps = taps_of(readings) | (set() if random else set(self.taps))
        backward = any(r.backward for r in readings) or (self.backward and not random)
        return look(network, x, labels, sorted(taps, key=str), backward, fold)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return uint8 [n, S, S, 3] as float32 [n, 3, S, S], in the network's memory format."""
        mean, std = (_levels(tuple(of), pixels.device) for of in (self.mean, self.std))
        x = ((pixels.float() - mean) / std).permute(0, 3, 1, 2)
        return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Started:
    """A batch whose maps are being made.

    Attributes:
        passed: Its pass, padding behind.
        arriving: The arrays of what is seen.
        sizes: Height and width of each map, by name.
    """

    passed: Pass
    arriving: Arriving
    sizes: Mapping[str, tuple[int, int]]

    def seen(self) -> Seen:
        """Wait for what the batch gives."""
        arrays = self.arriving.arrays()
        maps = {
            name: Maps(arrays[f"{name} values"], arrays[f"{name} scale"], *size)
            for name, size in self.sizes.items()
        }
        predicted, score, probability = (arrays[name] for name in SCORES)
        return Seen(predicted, score, probability, maps, self.passed)


def _of_class_scores(passed: Pass, n: int) -> dict[str, Tensor]:
    """Return what the class scores of a pass's first n images say: ``SCORES``."""
    logits, chosen = passed.logits[:n], passed.labels[:n, None]
    score, probability = (of.gather(1, chosen)[:, 0] for of in (logits, logits.softmax(1)))
    return dict(zip(SCORES, (logits.argmax(1), score, probability), strict=True))


def _encoded(flat: Tensor, reading: Reading) -> tuple[Tensor, Tensor]:
    """Return maps [n, cells] scaled and rounded to float16, and their scales [n]: see ``Maps``."""
    if reading.share:
        one = torch.where(flat.isfinite().all(1), 1.0, torch.nan)
        return flat.clamp(0, 1).half(), one
    low = flat.amin(1) if reading.signed else torch.zeros_like(flat[:, 0])
    scale = flat.amax(1) - low
    return ((flat - low[:, None]) / torch.where(scale > 0, scale, 1)[:, None]).half(), scale


@cache
def _levels(shares: tuple[float, ...], device: torch.device) -> Tensor:
    """Return shares as grey levels, on a device: to send them again would wait for it."""
    return torch.tensor(shares, device=device) * 255


def pool(maps: Tensor, grid: int) -> Tensor:
    """Return the means over the cells of a grid, if the maps are finer: [n, h, w]."""
    if maps.shape[1] * maps.shape[2] <= grid * grid:
        return maps
    return F.adaptive_avg_pool2d(maps[:, None], grid)[:, 0]


def taps_of(readings: Iterable[Reading]) -> set[Tap]:
    """Return all that the readings tap."""
    return {tap for reading in readings for tap in reading.taps}


def map_maker(
    load: Callable[[], nn.Module],
    prepare: Callable[[nn.Module, Iterable[Tap]], Prepared],
    names: Sequence[str],
    options: Options,
    taps: Iterable[Tap] = (),
    **settings: Any,
) -> MapMaker:
    """Return the maker of heat maps by their names.

    Args:
        load: Loads the network with its weights.
        prepare: Prepares a network with taps.
        names: Of the heat maps, see ``sensloc.heatmaps``.
        options: Of their readings.
        taps: What is kept of the pass beside.
        settings: Of the ``MapMaker``: mean, std, batch_size, grid, device.

    Raises:
        ClassifierError: The network has no place for a reading.
    """
    readings = {name: reading(name, options) for name in names}
    own, random = ([r for r in readings.values() if r.random == kind] for kind in (False, True))
    taps = tuple(taps)
    networks = [prepare(load(), taps_of(own) | set(taps))]
    if random:
        networks.append(prepare(randomised(load(), options.seed), taps_of(random)))
    return MapMaker(tuple(networks), readings, taps=taps, **settings)
