"""What each choice of the foreground buys: each is learned from a run's train images anew, and
judged on its validation images. The test images are not read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from tqdm import tqdm

from benchmarks.verdicts import judged, text
from sensloc.arguments import Run
from sensloc.boxes import Boxes, largest, resize
from sensloc.config import absolute
from sensloc.heatmaps import FOREGROUND, has_channels
from sensloc.heatmaps.foreground import Cells, Placed
from sensloc.heatmaps.passes import Options
from sensloc.heatmaps.readout import SENSITIVITIES, CellSums, Readout, covered, quantise
from sensloc.images.decode import crop, pixels_of
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.methods.soft_iou import GRID, best_box, evidence_of, fine, placed
from sensloc.prediction.looks import ZOOM
from sensloc.report.messages import errors_as_messages
from sensloc.rows import true_boxes
from sensloc.stages.fit import fitted_methods
from sensloc.stages.network import map_maker
from sensloc.stages.readout import Shared
from sensloc.stages.readout_file import folder_of, saved_readouts
from sensloc.store.files import load
from sensloc.store.images import images_of
from sensloc.store.passes import batch_size_of
from sensloc.store.run import RunDir, RunError

MORE = ("inner_8", "layercam_8", "activation_8")
"""Blocks that a run does not read by default."""

ALONE = 1e9
"""A shrinkage that leaves a class nothing of its own, in images."""


@dataclass(frozen=True)
class Choice:
    """How the foreground is learned, and how its box is taken.

    Attributes:
        blocks: What is read of a pass.
        penalty: On activations.
        shrinkage: Of the classes' own read-outs, in images.
        gain: How sharply a cell's share becomes evidence; 0: the share is the evidence.
        power: What the evidence is raised to.
        grid: The box's edges lie on a grid of so many cells a side.
    """

    blocks: tuple[str, ...]
    penalty: float
    shrinkage: float
    gain: float
    power: float
    grid: int = GRID

    def boxes(self, shares: npt.NDArray[Any]) -> Boxes:
        """Return the boxes of shares: [n, P] -> [n, 4] unit xyxy."""
        maps = fine(shares, self.grid)
        evidence = evidence_of(maps, self.gain, self.power) if self.gain else maps**self.power
        return np.array([best_box(image) for image in evidence])


def chosen_by(run: RunDir) -> Choice:
    """Return what a run has chosen."""
    _, facts = saved_readouts(run, folder_of(FOREGROUND))
    fitted = fitted_methods(run)[FOREGROUND].facts
    blocks = tuple(run.stages()["foreground"]["of"]["blocks"])
    return Choice(blocks, facts["penalty"], facts["shrinkage"], fitted["gain"], fitted["power"])


def choices(run: Choice, more: Sequence[str]) -> Iterator[tuple[str, Choice]]:
    """Yield by name what is tried beside the run's own choice, and with more blocks."""
    activations = tuple(name for name in run.blocks if has_channels(name))
    inner = tuple(name for name in run.blocks if name.startswith("inner"))
    strides = [(name, name.replace("inner", "layercam")) for name in inner]
    alone = [(name,) for name in run.blocks if not name.startswith(("inner", "layercam"))]
    for names in (*strides, *alone, activations):
        rest = tuple(name for name in run.blocks if name not in names)
        yield f"without {', '.join(names)}", replace(run, blocks=rest)
    ahead = tuple(name for name in run.blocks if name in ("cam", *activations))
    yield "forward pass only", replace(run, blocks=ahead)
    yield "inner sensitivities only", replace(run, blocks=inner)
    for name in more:
        yield f"with {name} too", replace(run, blocks=(*run.blocks, name))
    yield "one penalty for all values", replace(run, penalty=SENSITIVITIES)
    yield "the penalty three times as large", replace(run, penalty=3 * run.penalty)
    yield "one read-out for all classes", replace(run, shrinkage=ALONE)
    yield "box: edges on a grid of 14", replace(run, grid=14)
    yield "box: edges on a grid of 56", replace(run, grid=56)
    yield "box: the share itself is the evidence", replace(run, gain=0.0)


# --------------------------------------------------------------------------- passes and read-outs


class Passes:
    """What the run's network says of each cell of images, block by block.

    Args:
        run: A run that has learned its foreground.
        blocks: What is read.
    """

    def __init__(self, run: RunDir, blocks: Sequence[str]) -> None:
        self.run, self.grid = run, run.config.sensitivity.grid
        self.cells = Cells.of(blocks, self.grid, Options())
        self.make = map_maker(run, (), "cpu", self.cells.taps, backward=self.cells.backward)
        self.widths: dict[str, int] = {}

    def of(self, pixels: Pixels, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the values [n, P, d] of images uint8 [n, S, S, 3]; any n."""
        values, size = [], batch_size_of(self.run)
        for start in tqdm(range(0, len(pixels), size), "passes", leave=False):
            some = slice(start, start + size)
            passed = self.make(pixels[some], labels[some]).passed
            self.widths = self.widths or self.cells.widths(passed)
            made = self.cells(passed)[: len(labels[some])].cpu().numpy()
            values.append(quantise(made).astype(np.float32))
        return np.concatenate(values)

    def columns(self, blocks: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return where the values of some blocks stand."""
        ends = np.cumsum([0, *self.widths.values()])
        spans = zip(self.widths, ends[:-1], ends[1:], strict=True)
        return np.concatenate([np.arange(a, b) for name, a, b in spans if name in blocks])

    def shares(
        self,
        readout: Readout,
        values: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float32]:
        """Return the shares [n, P] of values [n, P, d] of images of such classes."""
        some = torch.from_numpy(values[:, :, self.columns(readout.blocks)])
        return Placed(readout)(some, torch.tensor(labels)).clamp(0, 1).numpy()


def sums_of(
    labels: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    shares: npt.NDArray[np.float64],
) -> dict[int, CellSums]:
    """Return the sums of each class, of images [n] with values [n, P, d] and shares [n, P]."""
    at = {label: np.flatnonzero(labels == label) for label in sorted(set(labels.tolist()))}
    return {label: CellSums.from_batch(values[i], shares[i]) for label, i in at.items()}


def learned(sums: Mapping[int, CellSums], passes: Passes, choice: Choice) -> Readout:
    """Learn a read-out from the sums of each class, of all columns."""
    columns = passes.columns(choice.blocks)
    parts = {label: _chosen(total, columns) for label, total in sums.items()}
    names = [name for name in passes.widths if name in choice.blocks]
    shared = Shared.of(reduce(CellSums.merge, parts.values()), names, [choice.penalty])
    own = {label: shared.own(total, [choice.shrinkage])[0, 0] for label, total in parts.items()}
    return shared.readout(names, passes.grid, own)


def _chosen(sums: CellSums, columns: npt.NDArray[np.int64]) -> CellSums:
    square = sums.xx[np.ix_(columns, columns)]
    return replace(sums, x=sums.x[:, columns], xx=square, xy=sums.xy[columns])


# --------------------------------------------------------------------------- images


@dataclass(frozen=True)
class Photographs:
    """The images of a set, with their classes and true boxes.

    Attributes:
        pixels: uint8 [n, S, S, 3].
        full: n images as they are stored; none for those that are learned from.
        labels: int64 [n].
        truth: n arrays [m_i, 4].
    """

    pixels: Pixels
    full: list[Pixels]
    labels: npt.NDArray[np.int64]
    truth: Sequence[Boxes]

    def shares(self, grid: int) -> npt.NDArray[np.float64]:
        """Return the share of each cell that an image's largest box covers: [n, P]."""
        return quantise(covered(np.array([largest(boxes) for boxes in self.truth]), grid))


def photographs(run: RunDir, split: str, full: bool) -> Photographs:
    """Read a set's images that have no error.

    Raises:
        RunError: One cannot be read any more, or there is none.
    """
    columns = ["image_id", "uri", "content", "class_index", "boxes"]
    rows = load(run, run.files("sensitivity"), columns, split).sort_by("image_id")
    size, pixels, stored = run.config.classifier.input_size, [], []
    for start in tqdm(range(0, len(rows), 64), f"reading {split}", leave=False):
        for image in images_of(rows.slice(start, 64), size, run.config, keep=full):
            if isinstance(image, ImageError):
                raise RunError(str(image))
            pixels.append(image.pixels)
            if image.data is not None:
                stored.append(pixels_of(image.data, run.config.dataset.max_pixels))
    if not pixels:
        raise RunError(f"{run.url}: no {split} image without an error")
    labels = np.asarray(rows["class_index"], np.int64)
    return Photographs(np.array(pixels), stored, labels, true_boxes(rows))


def looked_at(
    passes: Passes, images: Photographs, readout: Readout, choice: Choice, regions: Boxes
) -> Boxes:
    """Look at a region of each image once more, and return the box that is there: [n, 4]."""
    size, wanted = images.pixels.shape[1], np.clip(regions, 0, 1)
    parts = [crop(image, box, size) for image, box in zip(images.full, wanted, strict=True)]
    pixels, shown = (np.array(arrays) for arrays in zip(*parts, strict=True))
    shares = passes.shares(readout, passes.of(pixels, images.labels), images.labels)
    return placed(choice.boxes(shares), shown)


# --------------------------------------------------------------------------- the table


@errors_as_messages()
def foreground(
    run: Run,
    more: Annotated[
        list[str], typer.Option(help="A block that is tried beside the run's; may be repeated.")
    ] = list(MORE),  # noqa: B006
) -> None:
    """Print what each choice of the foreground buys, on the validation images of a run."""
    existing = RunDir.found(absolute(run.rstrip("/")))
    existing.require("fit")
    print(text(tried(existing, more)))


def tried(run: RunDir, more: Sequence[str] = MORE) -> list[dict[str, Any]]:
    """Return a row for each choice, the run's own first."""
    own = chosen_by(run)
    more = tuple(name for name in more if name not in own.blocks)
    passes, train = Passes(run, (*own.blocks, *more)), photographs(run, "train", full=False)
    sums = sums_of(train.labels, passes.of(train.pixels, train.labels), train.shares(passes.grid))
    images = photographs(run, "validation", full=True)
    if not np.isin(images.labels, list(sums)).all():
        raise RunError(f"{run.url}: a class has validation images and no train image")
    values = passes.of(images.pixels, images.labels)
    readout = learned(sums, passes, own)
    maps = passes.shares(readout, values, images.labels)
    found = {"the run's": own.boxes(maps)}
    for name, choice in choices(own, more):
        other = learned(sums, passes, choice)
        found[name] = choice.boxes(passes.shares(other, values, images.labels))
    turned = passes.of(images.pixels[:, :, ::-1], images.labels)
    mirrored = passes.shares(readout, turned, images.labels).reshape(-1, passes.grid, passes.grid)
    both = (maps + mirrored[:, :, ::-1].reshape(maps.shape)) / 2
    found["mean with the mirrored image's map"] = own.boxes(both)

    def again(boxes: Boxes, wide: float) -> Boxes:
        return looked_at(passes, images, readout, own, resize(boxes, (wide, wide)))

    for wide in (ZOOM, 1.6, 2.0):
        found[f"second look, {wide} times as wide"] = again(found["the run's"], wide)
    twice = found[f"second look, {ZOOM} times as wide"]
    found[f"third look, {ZOOM} times as wide"] = again(twice, ZOOM)
    found["mean box of both looks"] = (found["the run's"] + twice) / 2
    return judged(run, found, images.truth)


if __name__ == "__main__":
    typer.run(foreground)
