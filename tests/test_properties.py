"""Laws on drawn values: what is written in a layout is read back; any text is rows or one error."""

import csv
import io
import json
import re
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
import test_datasets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_boxes import LATTICE, lattice_boxes
from test_datasets import LAYOUTS, Files, reader, store

from sensloc.boxes import BoxError, iou, unit_boxes
from sensloc.datasets import Annotation
from sensloc.datasets.values import main_class
from sensloc.datasets.voc_xml import parse
from sensloc.errors import DatasetError, one_line
from sensloc.stages.annotations import unit_sizes
from sensloc.stages.pack import tars

LAW = settings(max_examples=100, deadline=None)

# ------------------------------------------------------------------------------- what is drawn

readable = st.characters(exclude_categories=["Cs", "Cc", "Cn"])  # what XML can hold
names = st.text(readable, min_size=1, max_size=20).map(str.strip).filter(bool)
words = st.text(st.characters(categories=["L", "N", "S"]), min_size=1, max_size=9)
numbers = st.floats(allow_nan=False, allow_infinity=False)
corners = st.lists(numbers, min_size=4, max_size=4)
objects = st.lists(st.tuples(names, corners), max_size=4)
pixels = st.integers(1, 2**31 - 1)
sizes = st.none() | st.tuples(pixels, pixels)


def rows(layout: str, files: Files, **options: Any) -> dict[str, Annotation]:
    """What the reader makes of a data set of these files, by image id."""
    root = store("memory://laws", files)
    made = reader(layout, root, **options)
    found = [row for unit in made.units() for row in made.read(unit)]
    ids = {row.image_id for row in found}
    assert len(ids) == len(found) or "annotations" in options  # a CSV file's: the manifest's check
    return {row.image_id: row for row in found}


# ------------------------------------------------------------------------------- read back


def child(parent: ElementTree.Element, tag: str, text: object = "") -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag)
    element.text = str(text)
    return element


@LAW
@given(objects, sizes, st.sampled_from(["utf-8", "utf-16", "us-ascii", "iso-8859-1"]))
def test_xml_is_read_back(written: Any, size: Any, encoding: str) -> None:
    root = ElementTree.Element("annotation")
    if size:
        frame = child(root, "size")
        child(frame, "width", size[0])
        child(frame, "height", size[1])
    for name, box in written:
        one = child(root, "object")
        child(one, "name", name)
        frame = child(one, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            child(frame, key, value)
    assert parse(ElementTree.tostring(root, encoding)) == (written, size)


@LAW
@given(
    st.dictionaries(names, objects.filter(bool), min_size=1, max_size=4),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_is_read_back(written: dict[str, Any], quoting: Any, end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=end)
    writer.writerow(["image_id", "uri", "label", "x0", "y0", "x1", "y1"])
    for i, (image_id, some) in enumerate(written.items()):
        writer.writerows([image_id, f"{i}.jpg", label, *box] for label, box in some)
    found = rows("table", {"boxes.csv": text.getvalue()})
    assert found == {
        image_id: Annotation(
            image_id, f"memory://laws/{i}.jpg", *main_class(some, "edges"), source="table"
        )
        for i, (image_id, some) in enumerate(written.items())
    }


@LAW
@given(st.dictionaries(names, st.tuples(objects, sizes), min_size=1, max_size=4))
def test_coco_is_read_back(written: dict[str, Any]) -> None:
    labels = sorted({label for some, _ in written.values() for label, _ in some})
    entries = [
        {
            "id": image_id,
            "file_name": f"{i}.jpg",
            "width": size and size[0],
            "height": size and size[1],
        }
        for i, (image_id, (_, size)) in enumerate(written.items())
    ]
    instances = [
        {"image_id": image_id, "category_id": labels.index(label), "bbox": box}
        for image_id, (some, _) in written.items()
        for label, box in some
    ]
    categories = [{"id": i, "name": label} for i, label in enumerate(labels)]
    content = {"images": entries, "annotations": instances, "categories": categories}
    found = rows("coco", {"annotations.json": json.dumps(content)})
    for i, (image_id, (some, size)) in enumerate(written.items()):
        assert found.pop(image_id) == Annotation(
            image_id,
            f"memory://laws/images/{i}.jpg",
            *main_class(some, "xywh"),
            "xywh",
            "coco",
            size=size,
            left_out=None if some else "no box",
        )
    assert not found


percent = st.lists(st.floats(0, 100), min_size=4, max_size=4)
rectangles = st.lists(st.tuples(names, percent), max_size=4)


@LAW
@given(st.dictionaries(names, st.tuples(rectangles, sizes), min_size=1, max_size=4))
def test_label_studio_is_read_back(written: dict[str, Any]) -> None:
    def region(label: str, corner: list[float], size: Any) -> dict[str, Any]:
        sides = {"original_width": size and size[0], "original_height": size and size[1]}
        return test_datasets.rectangle(label, *corner, **sides)

    tasks = [
        {
            "data": {"image": f"{i}.jpg", "image_id": image_id},
            "annotations": [{"result": [region(*one, size) for one in some]}],
        }
        for i, (image_id, (some, size)) in enumerate(written.items())
    ]
    found = rows("label_studio", {"project.json": json.dumps(tasks)})
    for i, (image_id, (some, size)) in enumerate(written.items()):
        boxes = [
            (label, [x / 100, y / 100, (x + width) / 100, (y + height) / 100])
            for label, (x, y, width, height) in some
        ]
        assert found.pop(image_id) == Annotation(
            image_id,
            f"memory://laws/{i}.jpg",
            *main_class(boxes, "unit"),
            "unit",
            "label_studio",
            size=size if some else None,
            left_out=None if some else "no box",
        )
    assert not found


@LAW
@given(st.lists(st.tuples(words, corners), min_size=1, max_size=3))
def test_tiny_imagenets_lines_are_read_back(written: list[tuple[str, list[float]]]) -> None:
    lines = ["\t".join(["val_0.JPEG", wnid, *map(str, box)]) for wnid, box in written]
    files = test_datasets.tiny() | {
        "words.txt": "".join(f"{wnid}\ta name\n" for wnid, _ in [*written, ("n01", 0), ("n02", 0)]),
        "val/val_annotations.txt": "\n".join(lines),
    }
    found, wnid = rows("tiny_imagenet", files, parts=["val"])["val_0"], written[0][0]
    assert (found.wnid, found.class_name, found.error) == (wnid, "a name", None)
    assert found.corners == [box for label, box in written if label == wnid]


anything = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
annotations = st.builds(
    Annotation,
    image_id=anything,
    uri=st.sampled_from(["a.jpg", "b.PNG", "c", "d.tar#1+2"]),
    wnid=anything,
    corners=st.lists(corners, min_size=1, max_size=3),
    convention=st.sampled_from(["edges", "inclusive_0", "inclusive_1", "xywh", "unit"]),
    source=anything,
    class_name=anything,
    size=sizes,
) | st.builds(Annotation, anything, st.just(""), anything, source=anything, error=anything)


@LAW
@given(st.lists(annotations, min_size=1, max_size=5, unique_by=lambda row: row.image_id))
def test_what_is_packed_is_read_back(written: list[Annotation]) -> None:
    packed = ((asdict(row), None if row.error else b"image") for row in written)
    ((shard, _),) = tars(packed)
    found = rows("webdataset", {"a.tar": shard})
    assert list(found) == [row.image_id for row in written]
    assert [replace(found[row.image_id], uri=row.uri) for row in written] == written


# ------------------------------------------------------------------------------- any text

PLACES = [
    ("imagenet", "LOC_synset_mapping.txt", {}),
    ("imagenet", "LOC_train_solution.csv", {"annotations": "csv", "parts": ["train"]}),
    ("imagenet", f"{test_datasets.XML}/train/n01/n01_1.xml", {}),
    ("tiny_imagenet", "wnids.txt", {}),
    ("tiny_imagenet", "words.txt", {}),
    ("tiny_imagenet", "train/n01/n01_boxes.txt", {}),
    ("tiny_imagenet", "val/val_annotations.txt", {}),
    ("coco", "annotations.json", {}),
    ("label_studio", "project.json", {}),
    ("table", "boxes.csv", {}),
]


@pytest.mark.parametrize(("layout", "path", "options"), PLACES, ids=lambda value: str(value))
@LAW
@given(data=st.data())
def test_any_text_is_rows_or_one_error(
    layout: str, path: str, options: dict[str, Any], data: st.DataObject
) -> None:
    """Drawn from the pieces of a sound file, and from anything."""
    sound = LAYOUTS[layout]()
    first, *others = str(sound[path]).splitlines(keepends=True)
    pieces = st.sampled_from(re.findall(r"\w+|\W", str(sound[path])))
    line = st.sampled_from([first, *others]) | st.lists(pieces | st.text(max_size=3)).map("".join)
    text = st.tuples(st.just(first) | line, st.lists(line).map("".join)).map("".join)
    content = data.draw(text).encode(errors="replace") + data.draw(st.binary(max_size=2))
    try:
        found = rows(layout, sound | {path: content}, **options)
    except DatasetError:
        return
    for row in found.values():
        pa.array([row.image_id, row.uri, row.wnid, row.class_name], pa.string())
        assert row.error is None or row.error.isprintable()


@given(st.text(), st.integers(10, 50))
@example("\0" * 100, 10)
def test_one_line_is_one_short_line(text: str, most: int) -> None:
    line = one_line(text, most)
    assert line.isprintable()
    assert len(line) <= most
    assert one_line(line, most) == line
    assert line == text or not text.isprintable() or len(text) > most


# ------------------------------------------------------------------------------- boxes


@LAW
@given(lattice_boxes(), lattice_boxes(), st.integers(-LATTICE, LATTICE))
def test_iou_does_not_change_when_both_are_flipped_or_moved(
    a: np.ndarray, b: np.ndarray, shift: int
) -> None:
    def turned(boxes: np.ndarray) -> list[np.ndarray]:
        x0, y0, x1, y1 = boxes.T
        flips = [(1 - x1, y0, 1 - x0, y1), (x0, 1 - y1, x1, 1 - y0), (y0, x0, y1, x1)]
        return [np.stack(flip, axis=1) for flip in flips] + [boxes + shift / LATTICE]

    expected = iou(a[:, None], b[None])
    assert np.array_equal(expected == 1, (a[:, None] == b[None]).all(-1))
    for c, d in zip(turned(a), turned(b), strict=True):
        assert np.array_equal(iou(c[:, None], d[None]), expected)


sides = st.integers(1, 20_000)


@LAW
@given(st.data(), sides, sides)
def test_pixels_are_read_back_from_the_unit_square(data: st.DataObject, w: int, h: int) -> None:
    x0, y0 = data.draw(st.integers(0, w - 1)), data.draw(st.integers(0, h - 1))
    box = [x0, y0, data.draw(st.integers(x0 + 1, w)), data.draw(st.integers(y0 + 1, h))]
    unit = unit_boxes([box], w, h, "edges")
    assert np.rint(unit[0] * [w, h, w, h]).tolist() == box


@LAW
@given(st.lists(st.floats(-10, 110) | st.floats(), min_size=4, max_size=4), sides, sides)
def test_any_numbers_are_a_box_of_the_unit_square_or_none(box: Any, w: int, h: int) -> None:
    for convention in ("edges", "inclusive_0", "inclusive_1", "xywh", "unit"):
        with suppress(BoxError), np.errstate(over="ignore"):
            unit = unit_boxes([box], w, h, convention)
            assert unit.min() >= 0
            assert unit.max() <= 1
            assert (unit[:, :2] < unit[:, 2:]).all()
            assert np.array_equal(unit_boxes(unit, w, h, "unit"), unit)
            assert np.array_equal(unit_boxes(unit, 1, 1, "edges"), unit)


# ------------------------------------------------------------------------------- units


@LAW
@example(659, 256, 2, 32)
@given(st.integers(0, 20_000), st.integers(1, 300), st.integers(1, 16), st.integers(1, 64))
def test_units_are_whole_batches_that_actors_share(
    count: int, most: int, actors: int, batch_size: int
) -> None:
    sizes = list(unit_sizes(count, most, actors, batch_size))
    batch = min(most, batch_size)
    batches = [-(-size // batch) for size in sizes]
    assert sum(sizes) == count
    assert all(0 < size <= most for size in sizes)
    assert all(size % batch == 0 for size in sizes[:-1])
    assert sum(batches) == -(-count // batch)
    assert not sizes or max(batches) - min(batches) <= 1
    assert len(sizes) % actors == 0 or max(batches) == 1


def test_units_by_hand() -> None:
    assert list(unit_sizes(659, 256, 2, 32)) == [192, 160, 160, 147]
    assert list(unit_sizes(20, 256, 2, 32)) == [20]
    assert list(unit_sizes(100, 10, 3, 32)) == [10] * 10
    assert list(unit_sizes(1024, 256, 2, 32)) == [256] * 4
