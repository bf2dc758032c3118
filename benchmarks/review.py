"""What a round of corrected boxes gains: the least confident images beside as many at random.

The loop of the README, on the annotated images of a run that is there already: some are held out;
of the others some per class are boxed, and a run learns from them, predicts the rest and writes
those that most need a person; these are "corrected" with their true boxes in Label Studio's
format, and a run learns from both. So it does with as many images at random. All are judged on
the images that were held out, by one method alone: a choice between methods would be noise. What
becomes of the boxes of the rest themselves, the corrected in place, is counted too.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from sensloc.arguments import Run
from sensloc.config import Config, Localizer, Split, absolute
from sensloc.datasets.label_studio import LabelStudio
from sensloc.dice import key
from sensloc.engine.cluster import connected
from sensloc.methods import catalogue
from sensloc.report import label_studio
from sensloc.report.messages import errors_as_messages
from sensloc.report.text import Columns, aligned, interval, number, table_lines
from sensloc.scoring.corloc import Floats, best_iou
from sensloc.stages.fitted import FittedRun
from sensloc.stages.other_data import judge
from sensloc.stages.predict import predict, prediction
from sensloc.stages.whole_run import STAGES, run_all
from sensloc.store.files import load
from sensloc.store.run import RunDir

FIRST, SURE, CHANCE = "first boxes", "least confident", "at random"
"""What a run learned from: the first boxes alone, or those and more, chosen in one of two ways."""

ARMS = (FIRST, SURE, CHANCE)

METHOD = "foreground"

BY_CLASS = {"true class": METHOD, "predicted class": METHOD + catalogue.BY_PREDICTED}
"""The methods of an evaluation, by the class whose map they read."""

SPLIT = Split(train=0.7, validation=0.2, test=0.1)
"""Of ten boxes per class 7 to learn from, 2 to choose by; no set may be empty."""

HELD_OUT = 0.25
"""The share of each class's images that all are judged by."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Loop:
    """One measurement.

    Attributes:
        config: of the run whose images these are.
        folder: where its files go.
        held_out: rows of its manifest.
        pool: all other rows, by uri.
        per_class: images of each class in the first round.
        corrected: images of the second.
    """

    config: Config
    folder: Path
    held_out: Sequence[Row]
    pool: Mapping[str, Row]
    per_class: int
    corrected: int

    @classmethod
    def of(cls, run: RunDir, folder: Path, per_class: int, corrected: int) -> "Loop":
        """Hold out a share of each class of a run's images, always the same."""
        run.require("manifest")
        held_out: list[Row] = []
        pool: dict[str, Row] = {}
        for rows in by_class(load(run, run.files("manifest"), None).to_pylist()).values():
            rows.sort(key=lambda row: key(row["content"], 0))
            cut = round(HELD_OUT * len(rows))
            held_out += rows[:cut]
            pool |= {row["uri"]: row for row in rows[cut:]}
        return cls(run.config, folder, held_out, pool, per_class, corrected)

    def draw(self, seed: int) -> list[Row]:
        """Go round once: a row of results for each arm, with its images' IoUs."""
        folder = self.folder / f"draw_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        boxed = []
        for rows in by_class(self.pool.values()).values():
            boxed += sorted(rows, key=lambda row: key(row["image_id"], seed))[: self.per_class]
        first = self.run(folder, "first", boxed)
        guesses = self.predicted(first, folder / "boxes")
        seen = {row["uri"] for row in boxed}
        unseen = [uri for uri in self.pool if uri not in seen]
        chance = sorted(unseen, key=lambda uri: key(uri, seed))[: self.corrected]
        with (folder / "boxes/review/images.csv").open() as file:
            sure = [row["uri"] for row in csv.DictReader(file)]
        right = self.right(guesses) | dict.fromkeys(seen, True)
        arms: dict[str, tuple[RunDir, list[str]]] = {FIRST: (first, [])}
        for arm, uris in ((SURE, sure), (CHANCE, chance)):
            more = [self.pool[uri] for uri in uris]
            arms[arm] = (self.run(folder, arm.replace(" ", "_"), boxed + more), uris)
        return [
            {"draw": seed, "arm": arm, "boxes": len(boxed) + len(uris)}
            | {"right_before": [right[uri] for uri in uris], "iou": self.judged(run, folder)}
            | {"pool": [is_right or uri in uris for uri, is_right in right.items()]}
            for arm, (run, uris) in arms.items()
        ]

    def run(self, folder: Path, name: str, rows: Sequence[Row]) -> RunDir:
        """Learn from images as Label Studio would export them."""
        file = f"{name}.json"
        (folder / file).write_text(json.dumps([task(row) for row in rows]))
        made = RunDir.open(
            self.config.model_copy(
                update={
                    "name": name,
                    "output": str(folder / name),
                    "dataset": LabelStudio(layout="label_studio", root=str(folder), file=file),
                    "split": SPLIT,
                    "foreground": self.config.foreground.model_copy(update={"looks": 1}),
                    "localizer": Localizer(method=METHOD),
                }
            )
        )
        with made.alone():
            stages = {name: stage for name, stage in STAGES.items() if name != "report"}
            run_all(made, stages)
        return made

    def predicted(self, first: RunDir, output: Path) -> dict[str, Row]:
        """Predict the whole pool by a run, and write what to review; the rows of boxes by uri."""
        listing = output.with_suffix(".csv")
        listing.write_text("\n".join(["uri", *self.pool]))
        config = prediction(first.url, str(listing), str(output), self.config.resources)
        boxes = RunDir.open(config)
        with boxes.alone():
            predict(boxes, first.url, ["label-studio"], self.corrected)
        return {row["uri"]: row for row in pq.read_table(boxes.path("boxes")).to_pylist()}

    def right(self, guesses: Mapping[str, Row]) -> dict[str, bool]:
        """Return whether the box that was predicted for each image of the pool is right."""
        boxes = np.array([guesses[uri]["box"] or [0.0] * 4 for uri in self.pool])
        iou = best_iou(boxes, [row["boxes"] for row in self.pool.values()])
        return dict(zip(self.pool, (iou >= 0.5).tolist(), strict=True))

    def judged(self, run: RunDir, folder: Path) -> dict[str, list[float]]:
        """Judge a run on the held out images: their IoUs, in the order of their ids."""
        file = folder / "held_out.json"
        file.write_text(json.dumps([task(row) for row in self.held_out]))
        toml = folder / "held_out.toml"
        toml.write_text(
            f'name = "held_out"\noutput = ""\n\n[dataset]\nlayout = "label_studio"\n'
            f"root = {json.dumps(str(folder))}\nfile = {json.dumps(file.name)}\n"
        )
        fitted = FittedRun.read(run.url)
        there = RunDir.open(fitted.config_on(str(toml), None, f"{run.url}_on_held_out"))
        with there.alone():
            judge(there, fitted)
        rows = pq.read_table(there.path("predictions")).sort_by("image_id").to_pylist()
        return {
            by: [row["iou"] or 0.0 for row in rows if row["method"] == method]
            for by, method in BY_CLASS.items()
        }


def by_class(rows: Any) -> dict[str, list[Row]]:
    """Return rows by their wnid."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["wnid"]].append(row)
    return groups


def task(row: Row) -> Row:
    """Return a row of a manifest as Label Studio exports a task that a person has completed."""
    drawn = [label_studio.region(row, box) for box in row["boxes"]]
    data = {"image": label_studio.served(row["uri"]), "image_id": row["image_id"]}
    return {"data": data, "annotations": [{"was_cancelled": False, "result": drawn}]}


# --------------------------------------------------------------------------- the table


def _from(by: str, iou: float) -> Callable[[Row], list[bool]]:
    """Return what says which held out images are right."""
    return lambda row: [value >= iou for value in row["iou"][by]]


MEASURES: Mapping[str, Callable[[Row], list[bool]]] = {
    **{f"held out, {by}, IoU >= {iou}": _from(by, iou) for by in BY_CLASS for iou in (0.5, 0.7)},
    "the pool itself, the corrected in place": lambda row: row["pool"],
}
"""What is counted: which images of a row are right, the same images in every row."""


def gain(more: Floats, less: Floats, resamplings: int = 10_000) -> tuple[float, float, float]:
    """Return how many points more are right, the mean over draws, with a 95 % interval.

    The images are resampled, each with its results of all draws: what other images would give. How
    far draws differ is another matter, which the table's single draws show.

    Args:
        more: [draws, n] whether an arm is right.
        less: [draws, n] whether another is, on the same images.
        resamplings: Of the bootstrap.
    """
    by_image = 100 * (more.mean(0) - less.mean(0))
    n = len(by_image)
    picks = np.random.default_rng(0).integers(0, n, (resamplings, n))
    low, high = np.percentile(by_image[picks].mean(1), [2.5, 97.5])
    return float(by_image.mean()), float(low), float(high)


def summary(rows: Sequence[Row]) -> list[Row]:
    """Return what each round gains over the first boxes alone, and over that at random."""
    pairs = ((SURE, FIRST), (CHANCE, FIRST), (SURE, CHANCE))
    lines = []
    for what, right_of in MEASURES.items():
        right = {
            arm: np.array([right_of(row) for row in rows if row["arm"] == arm], float)
            for arm in ARMS
        }
        for arm, other in pairs:
            value, low, high = gain(right[arm], right[other])
            line: Row = {"measure": what, "arm": arm, "other": other}
            line |= {"right": 100 * right[arm].mean(), "more": value, "low": low, "high": high}
            line |= {"draws": (100 * (right[arm] - right[other]).mean(1)).tolist()}
            lines.append(line)
    return lines


SHOWN: Columns = {
    "right, %": lambda row: row["measure"],
    "learned from": lambda row: row["arm"],
    "": number("right"),
    "beside": lambda row: row["other"],
    "more": interval("more", "low", "high", "+"),
    "draws": lambda row: " ".join(f"{value:+.1f}" for value in row["draws"]),
}


@errors_as_messages()
def main(
    run: Run,
    output: Annotated[str, typer.Option(help="Folder for the runs, and review.json.")],
    draws: Annotated[int, typer.Option(min=1, help="Draws of the first boxes.")] = 3,
    per_class: Annotated[int, typer.Option(min=3, help="First boxes of each class.")] = 10,
    corrected: Annotated[int, typer.Option(min=1, help="Boxes of a round.")] = 200,
) -> None:
    """Print what a round of corrected boxes gains, on the images of a run."""
    folder = Path(absolute(output))
    existing = RunDir.found(absolute(run.rstrip("/")))
    loop = Loop.of(existing, folder, per_class, corrected)
    rows = []
    with connected():
        for seed in range(draws):
            rows += loop.draw(seed)
    lines = summary(rows)
    content = {"held_out": len(loop.held_out), "pool": len(loop.pool), "rows": rows}
    (folder / "review.json").write_text(json.dumps(content | {"summary": lines}))
    print(aligned(table_lines(SHOWN, lines)))
    for arm in (SURE, CHANCE):
        before = [row["right_before"] for row in rows if row["arm"] == arm]
        print(f"{arm}: {100 * np.mean(before):.1f} % of the boxes were right before")
    print(f"{len(loop.held_out)} images held out, {draws} draws of {rows[0]['boxes']} first boxes")


if __name__ == "__main__":
    typer.run(main)
