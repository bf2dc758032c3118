"""Ideas for the foreground that are more than a choice: each beside the run's own, on validation.

A score less those of the nearest classes; classes' read-outs that are shrunk to their neighbours';
a logistic loss. The nearest classes are those of the classifier's own last weights, so no tree of
words is needed. The test images are not read.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.foreground import (
    ALONE,
    Choice,
    Passes,
    chosen_by,
    learned,
    photographs,
    sums_of,
)
from benchmarks.verdicts import judged, text
from sensloc.arguments import Run
from sensloc.boxes import Boxes
from sensloc.config import absolute
from sensloc.heatmaps import has_channels
from sensloc.heatmaps.maker import MapMaker
from sensloc.heatmaps.readout import CellSums, Readout, penalties
from sensloc.report.messages import errors_as_messages
from sensloc.stages.readout import Shared
from sensloc.store.run import RunDir, RunError

NEAREST = (1, 5, 20)
"""Nearest classes, of all that the network knows, whose mean score is taken off."""

NEIGHBOURS = (1, 3, 5)
"""Nearest classes, of those with boxes, whose read-out a class's own is shrunk to."""

STEPS = 60
"""Steps of the search for the least logistic loss."""

Floats = npt.NDArray[np.float32]


def head_of(make: MapMaker) -> Tensor:
    """Return the last linear layer's weights: [classes, C].

    Raises:
        RunError: They do not read pooled features.
    """
    head = make.networks[0].head
    if head is None:
        raise RunError("the network has no last linear layer on pooled features")
    return head


def nearest(head: Tensor, n: int) -> Tensor:
    """Return the n nearest other rows of each row, by the cosine: int64 [rows, n]."""
    unit = F.normalize(head)
    alike = unit @ unit.T
    alike.fill_diagonal_(-torch.inf)
    return alike.topk(n).indices


# --------------------------------------------------------------------------- another score


def contrasted(make: MapMaker, n: int) -> MapMaker:
    """Return a maker whose class scores have lost the mean score of the n nearest classes."""
    network, head = make.networks[0], head_of(make)
    others = torch.zeros(len(head), len(head)).scatter_(1, nearest(head, n), 1 / n)
    contrast = nn.Linear(len(head), len(head), bias=False).requires_grad_(False)
    contrast.weight.copy_(torch.eye(len(head)) - others)
    both = nn.Sequential(network.network, contrast)
    return replace(make, networks=(replace(network, network=both, head=contrast.weight @ head),))


# --------------------------------------------------------------------------- other read-outs


def from_neighbours(
    sums: Mapping[int, CellSums], passes: Passes, choice: Choice, n: int
) -> Readout:
    """Learn classes' read-outs that are shrunk to that of the class and its n neighbours.

    That one is shrunk to what all classes share.
    """
    classes = sorted(sums)
    near = nearest(head_of(passes.make)[classes], n).tolist()
    whole = CellSums.zeros(*sums[classes[0]].x.shape)
    for total in sums.values():
        whole = whole.merge(total)
    shared, own = Shared.of(whole, choice.blocks, [choice.penalty]), {}
    for label, others in zip(classes, near, strict=True):
        around = sums[label]
        for other in others:
            around = around.merge(sums[classes[other]])
        base = shared.own(around, [choice.shrinkage])[:, 0]
        moved = replace(shared, weights=base).own(sums[label], [choice.shrinkage])
        own[label] = moved[0, 0]
    return shared.readout(choice.blocks, passes.grid, own)


def logistic(
    values: Floats, shares: npt.NDArray[np.float64], choice: Choice, images: Floats
) -> Floats:
    """Return the shares of images by one read-out for all classes of the least logistic loss.

    Args:
        values: [n, P, d] Of the train images.
        shares: [n, P] Of them.
        choice: Its penalty, here on the logit's weights, counts as for least squares.
        images: [m, P, d] Of the images whose shares are wanted.

    Returns:
        [m, P] in (0, 1).
    """
    x, y = torch.from_numpy(values), torch.from_numpy(shares).float()
    mean, prior = x.mean(0), y.mean(0).clamp(1e-3, 1 - 1e-3)
    deviation = x.sub(mean).flatten(0, 1).std(0).clamp(min=1e-6)
    many = [has_channels(name) for name in choice.blocks]
    penalty = torch.from_numpy(penalties(many, x.shape[2], choice.penalty)).float()
    curvature = float((prior * (1 - prior)).mean())
    weights = torch.zeros(x.shape[2], requires_grad=True)

    def logits(of: Tensor) -> Tensor:
        scaled = weights / deviation
        return torch.logit(prior) + of @ scaled - mean @ scaled

    search = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> float:
        search.zero_grad()
        value = F.binary_cross_entropy_with_logits(logits(x), y)
        value = value + 0.5 * curvature * (penalty * weights.square()).sum()
        torch.autograd.backward(value)
        return float(value)

    search.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return np.asarray(logits(torch.from_numpy(images)).sigmoid().numpy())


# --------------------------------------------------------------------------- the table


def boxes_by_idea(run: RunDir) -> tuple[dict[str, Boxes], list[Boxes]]:
    """Return the boxes that each idea gives the validation images, and their true boxes."""
    own, passes = chosen_by(run), Passes(run, chosen_by(run).blocks)
    own = replace(own, blocks=passes.cells.blocks)
    train, images = photographs(run, "train", False), photographs(run, "validation", False)
    shares, plain = train.shares(passes.grid), passes.make
    values = passes.of(train.pixels, train.labels)
    held_out = passes.of(images.pixels, images.labels)
    sums = sums_of(train.labels, values, shares)

    def boxes(readout: Readout, of: Floats) -> Boxes:
        return own.boxes(passes.shares(readout, of, images.labels))

    found = {"the run's": boxes(learned(sums, passes, own), held_out)}
    for n in NEIGHBOURS:
        name = f"classes shrunk to {n} nearest of them"
        if n < len(sums):
            found[name] = boxes(from_neighbours(sums, passes, own, n), held_out)
    alone = replace(own, shrinkage=ALONE)
    found["one read-out for all, least squares"] = boxes(learned(sums, passes, alone), held_out)
    by_loss = logistic(values, shares, own, held_out)
    found["one read-out for all, logistic loss"] = own.boxes(by_loss)
    for n in NEAREST:
        if n < len(head_of(plain)):
            passes.make = contrasted(plain, n)
            sums = sums_of(train.labels, passes.of(train.pixels, train.labels), shares)
            other = passes.of(images.pixels, images.labels)
            found[f"score less that of {n} nearest"] = boxes(learned(sums, passes, own), other)
    return found, list(images.truth)


@errors_as_messages()
def main(run: Run) -> None:
    """Print what each idea buys the foreground, on the validation images of a run."""
    existing = RunDir.found(absolute(run.rstrip("/")))
    existing.require("fit")
    found, truth = boxes_by_idea(existing)
    print(text(judged(existing, found, truth)))


if __name__ == "__main__":
    typer.run(main)
