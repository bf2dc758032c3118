"""Predicted boxes in the formats of other programs, and those that most need a person."""

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import fsspec.core
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from sensloc.datasets.webdataset import WebDataset
from sensloc.engine import cluster
from sensloc.report import exports, label_studio
from sensloc.report.exports import Format
from sensloc.store.files import load
from sensloc.store.run import RunDir, RunError

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.prediction.facts import LocalizerFacts

BOXES = "boxes"

OUTPUTS: dict[str, tuple[str, ...]] = {
    Format.COCO: ("coco.json",),
    Format.LABEL_STUDIO: ("label_studio.json", "label_studio.xml"),
    Format.VOC: ("voc",),
    Format.YOLO: ("yolo",),
}
"""The files and folders of each format."""

TOGETHER = (Format.COCO, Format.LABEL_STUDIO)
"""The formats that have all images in one file."""

REVIEW = "review"

EXPORTED = (
    "image_id", "width", "height", "wnid", "x0", "y0", "x1", "y1", "box", "confidence",
)  # fmt: skip

ALL = [*EXPORTED, "uri", "error"]


def require_shown(run: RunDir, formats: Sequence[str]) -> None:
    """Make sure that a format's program can show the images.

    Raises:
        RunError: It cannot.
    """
    if Format.LABEL_STUDIO in formats and isinstance(run.config.dataset, WebDataset):
        raise RunError(
            f"{run.config.dataset.root}: Label Studio shows files and URLs, no images inside tar "
            f"shards: unpack them first, or leave out --format {Format.LABEL_STUDIO}"
        )


def export(run: RunDir, name: str, facts: "LocalizerFacts") -> None:
    """``boxes/`` -> one of the formats.

    Raises:
        RunError: Two images would have one file.
    """
    with run.stage(name, *OUTPUTS[name]):
        if name in TOGETHER:
            rows = load(run, run.files(BOXES), ALL, errors=True).sort_by("image_id")
            _write_together(run, "", name, rows, facts)
            return
        parts = cluster.over_files(run, BOXES, list(EXPORTED), _write, run, name, facts)
        written = Counter(path for part in parts for path in part)
        shared = [path for path, count in written.items() if count > 1]
        if shared:
            raise RunError(
                f"{run.at(*OUTPUTS[name])}: {len(shared)} files are of more than one image, the "
                f"first {min(shared)}: rename the images, or take the boxes from {BOXES}/ or COCO"
            )
        if name == Format.YOLO:
            run.write("yolo/classes.txt", "".join(f"{wnid}\n" for wnid in facts.wnids))


def _write_together(
    run: RunDir, folder: str, name: str, rows: pa.Table, facts: "LocalizerFacts"
) -> None:
    """Write the files of a format of ``TOGETHER`` into a folder that ends in "/", or is ""."""
    by_part = (row for part in rows.to_batches(1000) for row in part.to_pylist())
    if name == Format.COCO:
        by_wnid = folder != ""  # of what is corrected, and comes back
        run.write(f"{folder}coco.json", exports.coco(by_part, facts, by_wnid))
    else:
        run.write(f"{folder}label_studio.json", label_studio.tasks(by_part, facts))
        run.write(f"{folder}label_studio.xml", label_studio.config(facts))


def _write(rows: pa.Table, run: RunDir, name: str, facts: "LocalizerFacts") -> list[str]:
    """Write a file for each image that has a box; return their paths."""
    classes = {wnid: i for i, wnid in enumerate(facts.wnids)}
    written = []
    for row in rows.to_pylist():
        path = f"{name}/{exports.place(row['image_id'])}"
        if name == Format.VOC:
            written.append(f"{path}.xml")
            run.write(written[-1], exports.voc(row))
        else:
            written.append(f"{path}.txt")
            run.write(written[-1], exports.yolo(row, classes))
    return written


# --------------------------------------------------------------------------- for a person


def review(
    run: RunDir, most: int, formats: Sequence[str], localizer: str, facts: "LocalizerFacts"
) -> str:
    """``boxes/`` -> ``review/``: the images that most need a person, the least confident first.

    Those that the localizer's run has boxes of are none of them, where ``localizer`` is that run.

    Args:
        run: The prediction.
        most: How many images.
        formats: Those of them that have all images in one file are written.
        localizer: URL of a finished run, or of its folder ``localizer``.
        facts: Of the localizer.

    Returns:
        The line that says what was written.
    """
    names = [name for name in TOGETHER if name in formats]
    asked: dict[str, Any] = {"images": most, "formats": names, "localizer": localizer}
    if not run.finished(REVIEW) or run.stages()[REVIEW]["asked"] != asked:
        with run.stage(REVIEW, REVIEW) as record:
            run.remove(REVIEW)  # of an attempt that was asked for something else
            unseen = load(run, run.files(BOXES), ALL)
            unseen = unseen.filter(pc.invert(pc.is_in(unseen["uri"], _boxed(localizer))))
            order = [("confidence", "ascending"), ("image_id", "ascending")]
            rows = unseen.sort_by(order).slice(0, most)
            for name in names:
                _write_together(run, f"{REVIEW}/", name, rows, facts)
            listed = io.BytesIO()
            csv.write_csv(rows.select(["image_id", "uri", "wnid", "confidence"]), listed)
            run.write(f"{REVIEW}/images.csv", listed.getvalue())
            record |= {"asked": asked, "rows": len(rows), "of": len(unseen)}
    done = run.stages()[REVIEW]
    return f"{run.at(REVIEW)}: the {done['rows']:,} least confident of {done['of']:,} images"


def _boxed(localizer: str) -> pa.Array:
    """Return the uris of the images that a run has boxes of; none for a copied localizer."""
    files, path = fsspec.core.url_to_fs(localizer)
    if not files.exists(f"{path}/run.json"):
        return pa.array([], pa.string())
    fitted = RunDir.found(localizer)
    return load(fitted, fitted.files("manifest"), ["uri"])["uri"].combine_chunks()
