"""Sums -> a read-out: solved, chosen, and saved whole.

Two numbers are chosen. The *penalty* on activations: how much the shared read-out may lean on what
single channels mean, which is much for classes that it has seen and little for others. And the
*shrinkage* of the classes' own. Both by the squared error on validation images, by their class's
own read-out; the error on held-out classes, by what was learned without them, is reported.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import chain
from typing import Any

import numpy as np

from sensloc.config import Foreground
from sensloc.engine import cluster
from sensloc.heatmaps import has_channels
from sensloc.heatmaps.readout import Array, CellSums, Means, Readout, penalties
from sensloc.methods import saved
from sensloc.stages.cell_sums import HALVES, VALIDATION, Key, merged, sums_in, sums_of
from sensloc.stages.readout_file import place
from sensloc.store.files import load
from sensloc.store.run import RunDir, RunError
from sensloc.sums import Sums

ROUNDING = 2.0**-24

FOLDS = 5
"""Parts of the classes, each of which is held out once."""


@dataclass(frozen=True)
class Bundle:
    """Some classes, and the units that hold all of their sums.

    Attributes:
        labels: The classes.
        units: Names of units of the sums.
    """

    labels: tuple[int, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What all classes share, of some images.

    Attributes:
        means: Of values and shares, at each position.
        deviations: [d] Of each value.
        weights: [k, d] Of each penalty.
    """

    means: Means
    deviations: Array
    weights: Array

    @classmethod
    def of(cls, sums: CellSums, blocks: Sequence[str], on_channels: Sequence[float]) -> "Shared":
        """Solve for a path of penalties on the blocks with many channels."""
        means = sums.means
        moments, many = sums.about(means), [has_channels(name) for name in blocks]
        deviations, values = moments.deviations, len(sums.xy)
        weights = [
            moments.shared(deviations, penalties(many, values, penalty)) for penalty in on_channels
        ]
        return cls(means, deviations, np.array(weights))

    def own(self, sums: CellSums, shrinkages: Sequence[float]) -> Array:
        """Return a class's own weights: [k, s, d]."""
        moments = sums.about(self.means)
        return moments.own(self.weights, self.deviations, shrinkages, len(self.means.y))

    def readout(self, blocks: Sequence[str], grid: int, own: Mapping[int, Array]) -> Readout:
        """Return the read-out of the first penalty.

        Args:
            blocks: What is read.
            grid: g, cells of a row and of a column.
            own: By class, its own weights [d].
        """
        classes = sorted(own)
        return Readout(
            tuple(blocks),
            grid,
            self.means.x.astype(np.float32),
            self.means.y.astype(np.float32),
            np.array([self.weights[0], *(own[label] for label in classes)], np.float32),
            np.array(classes, np.int64),
        )


# --------------------------------------------------------------------------- the stage's end


def learn(
    run: RunDir,
    folder: str,
    blocks: Mapping[str, int],
    bundles: Sequence[Bundle],
    cross_fit: bool = True,
) -> dict[str, Any]:
    """Solve for the read-outs, choose, and write their file; return the facts of it.

    Args:
        run: The run.
        folder: Where the sums are, and the file goes.
        blocks: What is read, and how many values each block has.
        bundles: The units of the sums.
        cross_fit: Whether there is a read-out without each half of the train images too.

    Raises:
        RunError: There is no train or no validation image without an error.
    """
    config, over = run.config.foreground, partial(_over, run, sums_in(folder), bundles)
    labels = sorted(label for bundle in bundles for label in bundle.labels)
    folds = {label: i % FOLDS for i, label in enumerate(labels)}
    totals = merged(chain.from_iterable(over(_totals, folds)))
    by_fold = [totals[key] for key in sorted(totals) if key[0] == FOLD]
    halves = [totals[HALF, half] for half in HALVES[::-1] if (HALF, half) in totals]
    if not by_fold or (cross_fit and len(halves) < len(HALVES)):
        raise RunError(f"{run.at(folder)}: too few train images without an error")
    whole = reduce(CellSums.merge, by_fold)
    shared = Shared.of(whole, tuple(blocks), config.penalties)
    held_out = [Shared.of(rest, tuple(blocks), config.penalties) for rest in _without_each(by_fold)]
    path = reduce(Errors.merge, over(_errors, folds, shared, held_out, config.shrinkages))
    if path.n == 0:
        raise RunError(f"{run.at(folder)}: no validation image without an error")
    penalty, shrinkage = path.choose(config)
    parts = [whole, *halves] if cross_fit else [whole]
    chosen = [Shared.of(sums, tuple(blocks), [penalty]) for sums in parts]
    own = {k: v for some in over(_own_weights, chosen, shrinkage) for k, v in some.items()}
    readouts = _readouts(tuple(blocks), run.config.sensitivity.grid, chosen, own)
    facts = {"n_train": whole.n, "n_validation": path.n, "classes": len(own)}
    facts |= {"values": len(whole.xy), "penalty": penalty, "shrinkage": shrinkage}
    facts["strengths"] = readouts[0].strengths(chosen[0].deviations, list(blocks.values()))
    facts["path"] = path.facts(config)
    stamp = {"run": run.config.name, "config_hash": run.config.fingerprint}
    run.write(place(folder), saved.pack(readouts, facts, **stamp))
    return facts


def _over(
    run: RunDir, stage: str, bundles: Sequence[Bundle], function: Any, *args: Any
) -> Iterator[Any]:
    """Call ``function(sums, *args)`` with the sums of each bundle, in tasks."""

    def apply(bundle: Bundle, run: RunDir, args: tuple[Any, ...]) -> Any:
        files = (load(run, [run.file(stage, unit)], None, errors=True) for unit in bundle.units)
        return function(merged(chain.from_iterable(map(sums_of, files))), *args)

    cpus = run.config.resources.cpus_per_task
    for _, value in cluster.in_tasks(apply, bundles, run, args, cpus=cpus):
        yield value


def _without_each(sums: Sequence[CellSums]) -> Iterator[CellSums]:
    """Yield the sums of all but one, for each; nothing where there is one alone."""
    for i in range(len(sums) if len(sums) > 1 else 0):
        yield reduce(CellSums.merge, [*sums[:i], *sums[i + 1 :]])


FOLD, HALF = -2, -3
"""In place of a class: the second number of the key is a fold of the classes, or a half."""


def _totals(sums: Mapping[Key, CellSums], folds: Mapping[int, int]) -> Iterable[Any]:
    """Return the train sums of each fold of the classes, and of each half of the images."""
    train = [(key, value) for key, value in sums.items() if key[1] != VALIDATION]
    keyed = [((FOLD, folds[label]), value) for (label, _), value in train]
    keyed += [((HALF, half), value) for (_, half), value in train]
    return list(merged(iter(keyed)).items())


def _train(sums: Mapping[Key, CellSums], label: int) -> list[CellSums]:
    """Return the train sums of a class, of either half, where there are any."""
    return [sums[label, half] for half in HALVES if (label, half) in sums]


@dataclass(frozen=True)
class Errors(Sums):
    """Squared errors along the paths: a commutative monoid, to the bit.

    Each class's are rounded to multiples of ``ROUNDING``, so that no choice depends on an order.

    Attributes:
        n: Validation images.
        of_validation: [k, s] The sum over their cells, by their class's own read-out.
        n_held_out: Train images.
        of_held_out: [k] The sum over their cells, by a read-out learned without their class.
    """

    n: int
    of_validation: Array
    n_held_out: int
    of_held_out: Array

    def choose(self, config: Foreground) -> tuple[float, float]:
        """Return the penalty and the shrinkage.

        Of the penalties with about the least error the largest, which is the least bound to the
        classes that it was learned from.
        """
        best = self.of_validation.min(1)
        k = int(np.flatnonzero(best <= best.min() * (1 + config.tolerance))[-1])
        s = int(self.of_validation[k].argmin())
        return config.penalties[k], config.shrinkages[s]

    def facts(self, config: Foreground) -> list[dict[str, Any]]:
        """Return the mean squared errors of the path, for JSON: of a cell, in squared shares."""
        return [
            {
                "penalty": penalty,
                "held_out_classes": float(out) / self.n_held_out if self.n_held_out else None,
                "validation": [float(value) / self.n for value in row],
            }
            for penalty, out, row in zip(
                config.penalties, self.of_held_out, self.of_validation, strict=True
            )
        ]


def _errors(
    sums: Mapping[Key, CellSums],
    folds: Mapping[int, int],
    shared: Shared,
    held_out: Sequence[Shared],
    shrinkages: Sequence[float],
) -> Errors:
    """Return the errors on a bundle of classes."""
    paths = len(shared.weights), len(shrinkages)
    total = Errors(0, np.zeros(paths), 0, np.zeros(paths[0]))
    for label in sorted({label for label, _ in sums}):
        train = reduce(CellSums.merge, _train(sums, label), CellSums.zeros(*shared.means.x.shape))
        validation = sums.get((label, VALIDATION))
        if validation is not None:
            moments = validation.about(shared.means)
            own = shared.own(train, shrinkages) if label >= 0 else shared.weights[:, None]
            error = np.broadcast_to(_per_image(moments.squared_error(own), shared), paths)
            total = total.merge(Errors(validation.n, error, 0, np.zeros(paths[0])))
        if held_out and train.n:
            other = held_out[folds[label]]
            error = _per_image(train.about(other.means).squared_error(other.weights), other)
            total = total.merge(Errors(0, np.zeros(paths), train.n, error))
    return total


def _per_image(total: Array, shared: Shared) -> Array:
    """Return sums over cells as means over the cells of an image, summed over images; rounded."""
    return np.rint(total / len(shared.means.y) / ROUNDING) * ROUNDING


def _own_weights(
    sums: Mapping[Key, CellSums], chosen: Sequence[Shared], shrinkage: float
) -> dict[int, Array]:
    """Return the weights of each class that the network knows: [k, d], in the order of ``chosen``.

    The first are of all its train images, the others, where there are any, of one half each.
    """
    own: dict[int, Array] = {}
    for label in sorted({label for label, _ in sums if label >= 0}):
        empty = CellSums.zeros(*chosen[0].means.x.shape)
        halves = [sums.get((label, half), empty) for half in HALVES]
        parts = (halves[0].merge(halves[1]), *reversed(halves))[: len(chosen)]
        own[label] = np.array(
            [
                shared.own(part, [shrinkage])[0, 0]
                for shared, part in zip(chosen, parts, strict=True)
            ]
        )
    return own


def _readouts(
    blocks: Sequence[str], grid: int, chosen: Sequence[Shared], own: Mapping[int, Array]
) -> tuple[Readout, ...]:
    return tuple(
        shared.readout(blocks, grid, {label: weights[i] for label, weights in own.items()})
        for i, shared in enumerate(chosen)
    )
