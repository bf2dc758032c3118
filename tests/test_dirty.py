"""Hostile files: each is one counted error row with its reason, or a clear stop; none costs more.

The images are read by real runs on a local Ray, in ImageNet's layout and in a table; their
neighbours' maps are those of a run without them, bit for bit. The files that hold many images'
boxes are read by their readers alone, where the other images' rows are the same as before.
"""

import csv
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dirty
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dirty import BOX, CASES, GOOD, GREAT, LEFT_OUT, OTHER, WNID, Case, encode, noise
from test_datasets import (
    HEADER,
    LAYOUTS,
    TABLE,
    Files,
    annotated,
    coco,
    imagenet,
    label_studio,
    reader,
    rectangle,
    store,
    tiny,
)

from sensloc.config import load_config
from sensloc.datasets import Annotation
from sensloc.errors import DatasetError, one_line
from sensloc.images.decode import decode
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
from sensloc.store.run import RunDir

RUN = """
name = "dirty"
output = "{output}"
[dataset]
layout = "{layout}"
root = "{root}"
max_pixels = {max_pixels}
{options}
[split]
train = 0.5
validation = 0.25
test = 0.25
[classifier]
source = "torchvision"
name = "resnet18"
input_size = 32
[foreground]
looks = 0
[sensitivity]
grid = 4
batch_size = 8
[resources]
actors = 1
rows_per_block = 32
"""


def run_of(folder: Path, root: Path | str, layout: str, options: str = "") -> RunDir:
    """A run, not begun, of a random ResNet on 32 x 32 pixels."""
    file = folder / f"{layout}.toml"
    values = {"output": folder / "run", "root": root, "layout": layout, "options": options}
    file.write_text(RUN.format(max_pixels=GREAT, **values))
    return RunDir.open(load_config(str(file)))


Rows = dict[str, dict[str, Any]]
"""By image_id, sorted."""


def table(run: RunDir, stage: str = "sensitivity") -> Rows:
    rows = pa.concat_tables([pq.read_table(file) for file in run.files(stage)]).to_pylist()
    found = {row["image_id"]: row for row in sorted(rows, key=lambda row: row["image_id"])}
    assert len(found) == len(rows), "ids are unique"
    return found


RESULTS = ("width", "height", "content", "boxes", "map", "map_scale", "score", "probability")


# ------------------------------------------------------------------------------- images, by Ray


@pytest.fixture(scope="module")
def runs(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, RunDir]:
    """A run of 24 sound images, and one of the same among all the hostile ones."""
    folder = tmp_path_factory.mktemp("dirty")
    found = []
    for name, cases in (("good", []), ("dirty", [*CASES, *LEFT_OUT])):
        root = folder / name
        root.mkdir()
        dirty.good_images(root)
        for case in cases:
            case.write(*dirty.folders(root, WNID))
        run = run_of(root, root, "imagenet", 'parts = ["train"]')
        manifest(run)
        sensitivity(run)
        found.append(run)
    return found[0], found[1]


@pytest.fixture(scope="module")
def good(runs: tuple[RunDir, RunDir]) -> Rows:
    return table(runs[0])


@pytest.fixture(scope="module")
def found(runs: tuple[RunDir, RunDir]) -> Rows:
    return table(runs[1])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_image_is_one_row_with_its_reason(case: Case, found: Rows) -> None:
    row = found[case.image_id]
    assert row["error"] is None or row["error"].isprintable()
    if case.reason is None:
        assert row["error"] is None
        assert len(row["map"]) == 16
        assert 0 <= min(row["map"]) <= max(row["map"]) == 1
        assert row["map_scale"] > 0
    else:
        assert case.reason in row["error"]
        assert one_line(case.image_id) in row["error"]
        assert row["map"] is None
        assert (row["split"] is None) == (row["content"] is None), "split by what the manifest saw"
        assert len(row["error"]) <= 1000


def test_no_neighbour_changes_by_a_bit(good: Rows, found: Rows) -> None:
    assert len(good) == GOOD
    for image_id, row in good.items():
        assert row["error"] is None
        assert [found[image_id][name] for name in RESULTS] == [row[name] for name in RESULTS]


def test_every_image_is_counted_once(runs: tuple[RunDir, RunDir], found: Rows) -> None:
    run = runs[1]
    bad = {case.image_id for case in CASES if case.reason}
    assert len(CASES) >= 75
    assert len(found) == GOOD + len(CASES)
    assert {image_id for image_id, row in found.items() if row["error"]} == bad
    errors = [row["error"] for row in table(run, "manifest").values() if row["error"]]
    audit = json.loads(run.read("audit.json"))
    assert audit["left_out"] == {"no box": len(LEFT_OUT)}
    assert audit["errors"] == len(errors)
    assert audit["images"] == len(found) - len(errors)
    assert audit["first_errors"] == sorted(errors)[:20]
    assert not {case.image_id for case in LEFT_OUT} & found.keys()
    assert run.facts()["stages"]["sensitivity"]["errors"] == len(bad)


def test_what_a_file_names_is_not_read(found: Rows) -> None:
    """Neither by an entity nor by <filename>."""
    for row in found.values():
        assert "root:" not in str(row)
        assert "passwd" not in row["uri"] + row["wnid"] + row["class_name"]


def test_boxes_are_in_the_frame_in_which_pixels_are_stored(found: Rows) -> None:
    row = found[next(case.image_id for case in CASES if case.name == "EXIF rotation")]
    assert (row["width"], row["height"]) == (dirty.WIDTH, dirty.HEIGHT)
    assert np.allclose(row["boxes"], [[50 / 64, 8 / 48, 1, 40 / 48]])
    clipped = found[next(case.image_id for case in CASES if case.name == "one pixel out")]
    assert clipped["boxes"] == [[0, 0, 1, 1]]


def test_inks_become_the_right_colours() -> None:
    """20 % of black over an image's own inks is the image at 80 %."""
    x, y = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    image = dirty.Image.fromarray(pixels)
    expected = 0.8 * decode(encode(image, "PNG"), 32).pixels
    assert np.abs(decode(dirty.ycck(image, black=51), 32).pixels - expected).max() < 4


# ------------------------------------------------------------------------------- places, by Ray

PLACES: dict[str, tuple[str, str | None]] = {
    "plain.jpg": ("plain.jpg", None),
    "spaces": ("a  b c.jpg", None),
    "hash": ("a#1.jpg", None),
    "percent": ("a%20b%2e%2e.jpg", None),
    "glob": ("a[1]*?.jpg", None),
    "tilde": ("~root.jpg", None),
    "Unicode": ("Bär 猫.jpg", None),
    "quoted": ('"a, ""b"".jpg"', None),
    "absolute": ("{folder}/absolute.jpg", None),
    "file URL": ("file://{folder}/url.jpg", None),
    "file URL of a text": ("file://{folder}/secret.txt", "not an image"),
    "climbs": ("../secret.txt", "is not inside the data set's folder"),
    "climbs later": ("a/../../secret.txt", "is not inside the data set's folder"),
    "climbs from the top": ("{folder}/table/../../secret.txt", "has '..' or '::' in it"),
    "climbs in a URL": ("file://{folder}/table/../secret.txt", "has '..' or '::' in it"),
    "a chain": ("reference://x.jpg::{folder}/secret.txt", "has '..' or '::' in it"),
    "unknown protocol": ("nope://x/y.jpg", "cannot read nope://x/y.jpg"),
    "empty store": ("memory://x/y.jpg", "cannot read memory://x/y.jpg"),
    "folder": ("{folder}", "cannot read"),
    "NUL": ("a\0b.jpg", r"a\x00b.jpg"),
    "very long": ("x" * 5000, "File name too long"),
    "Latin-1": ("B\udce4r.jpg", r"B\udce4r.jpg' is not UTF-8"),
    "nothing": ("", "is not inside"),
}
"""image_id: its uri, and the reason where it is an error."""


@pytest.fixture(scope="module")
def placed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """A run of a table with such uris."""
    folder = tmp_path_factory.mktemp("places")
    root = folder / "table"
    root.mkdir()
    (folder / "secret.txt").write_text("sesame")
    lines = ["image_id,uri,label,x0,y0,x1,y1"]
    for i, (name, (uri, reason)) in enumerate(PLACES.items()):
        if reason is None:
            (file,) = next(csv.reader([uri.format(folder=folder)]))
            (root / file.removeprefix("file://")).write_bytes(encode(noise(i)))
        lines.append(f"{name},{uri.format(folder=folder)},{WNID},8,8,40,40")
    text = "\r\n".join(lines).encode(errors="surrogateescape")
    (root / "boxes.csv").write_bytes(b"\xef\xbb\xbf" + text)
    run = run_of(folder, root, "table")
    manifest(run)
    sensitivity(run)
    return table(run)


@pytest.mark.parametrize("name", PLACES)
def test_a_uri_is_the_image_there_or_an_error(name: str, placed: Rows) -> None:
    row, reason = placed[name], PLACES[name][1]
    assert len(placed) == len(PLACES)
    if reason is None:
        assert row["error"] is None
        assert max(row["map"]) == 1
    else:
        assert reason in row["error"]
        assert row["map"] is None
        assert "sesame" not in row["error"]
        assert row["error"].isprintable()


# ------------------------------------------------------------------------------- stops, by Ray

TWICE = {
    f"ILSVRC/{top}/CLS-LOC/train/{wnid}/same.{suffix}": content
    for wnid in (WNID, OTHER)
    for top, suffix, content in (
        ("Data", "JPEG", dirty.JPEG),
        ("Annotations", "xml", dirty.annotation(dirty.box(*BOX, name=wnid))),
    )
} | {"LOC_synset_mapping.txt": f"{WNID} tench\n{OTHER} goldfish\n"}

STOPS: dict[str, tuple[str, str, Files, str]] = {
    "one id twice": ("imagenet", 'parts = ["train"]', TWICE,
                     r"1 image_id\(s\) occur more than once: same: .*same\.JPEG, .*same\.JPEG"),
    "COCO is no JSON": ("coco", "", {"annotations.json": b"\xff\xfe{"},
                        r"annotations\.json: not a JSON file"),
    "a quote is not closed": ("table", "", {"boxes.csv": f'{HEADER}\na.jpg,"cat,0,0,1,1\n'},
                              r"boxes\.csv: not a CSV file: .*unexpected end of data"),
    "all images are bad": ("table", "", {"boxes.csv": f"{HEADER}\na.jpg,cat,0,0,1,1\n"},
                           r"all 1 images have errors, the first: .*a\.jpg"),
}  # fmt: skip


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("name", STOPS)
def test_a_stop_names_the_file(name: str, tmp_path: Path) -> None:
    layout, options, files, message = STOPS[name]
    root = store(str(tmp_path / "set"), files)
    with pytest.raises(DatasetError, match=message):
        manifest(run_of(tmp_path, root, layout, options))


# ------------------------------------------------------------------------------- the readers


def read(layout: str, root: str, **options: Any) -> dict[str, Annotation]:
    """All rows by id; any table can hold them."""
    found = reader(layout, root, **options)
    rows = [row for unit in found.units() for row in found.read(unit)]
    texts = [text for row in rows for text in asdict(row).values() if isinstance(text, str)]
    assert pa.array(texts, pa.string()).to_pylist() == texts
    assert all(0 < side < 2**31 for row in rows for side in row.size or ())
    assert all(row.error is None or row.error.isprintable() for row in rows)
    assert len({row.image_id for row in rows}) == len(rows)
    return {row.image_id: row for row in rows}


def one_bad_row(
    layout: str, base: Files, bad: Files, image_id: str, reason: str, root: Path, **options: Any
) -> None:
    """The other images' rows are those of the sound files."""
    before = read(layout, store(str(root), base), **options)
    after = read(layout, store(str(root), bad), **options)
    row = after.pop(image_id)
    assert row.error is not None
    assert reason in row.error
    assert len(row.error) <= 1000
    before.pop(image_id, None)
    assert after == before


def lines(*more: str | bytes, end: bytes = b"\n", header: str = HEADER) -> bytes:
    """A table: the four good rows of b.jpg and a.jpg, and more."""
    rows = [row.encode() if isinstance(row, str) else row for row in (header, *TABLE, *more)]
    return end.join(rows) + end


TABLE_ROWS: dict[str, tuple[bytes, str, str]] = {
    "too few cells": (b"c.jpg,dog,1,2,3", "c.jpg", "boxes.csv: row 5: y1: None is not a number"),
    "of two errors the first": (b"c.jpg,dog,1,2,3,x\nc.jpg,,1,2,3,4", "c.jpg",
                                "boxes.csv: row 5: y1: 'x' is not a number"),
    "a bad row beside good ones": (b"b.jpg,dog,1,2,3,x", "b.jpg", "row 5: y1: 'x' is not a number"),
    "no label": (b"c.jpg,,1,2,3,4", "c.jpg", "boxes.csv: row 5: no label"),
    "no uri": (b",dog,1,2,3,4", "boxes.csv: row 5", "row 5: no image_id, or no uri"),
    "nan": (b"c.jpg,dog,1,2,nan,4", "c.jpg", "row 5: x1: 'nan' is not finite"),
    "too many cells": (b"c.jpg,dog,1,2,3,4,5", "c.jpg", "row 5: more cells than columns"),
    "NUL in a number": (b"c.jpg,dog,1,2,3\0,4", "c.jpg", r"'3\x00' is not a number"),
    "NUL in a label": (b"c.jpg,dog,1,2,3,4\0", "c.jpg", "is not a number"),
    "Latin-1 label": (b"c.jpg,B\xe4r,1,2,3,4", "c.jpg", r"the wnid 'B\udce4r' is not UTF-8"),
    "Latin-1 uri": (b"B\xe4r.jpg,dog,1,2,3,4", r"B\udce4r.jpg", r"'B\udce4r.jpg' is not UTF-8"),
    "decimal commas": (b'c.jpg,dog,"1,5",2,3,4', "c.jpg", "'1,5' is not a number"),
    "a long number": (b"c.jpg,dog,1,2,3," + b"9" * 100_000, "c.jpg", "is not finite"),
    "a long word": (b"c.jpg,dog,1,2,3," + b"x" * 100_000, "c.jpg", "xxx' is not a number"),
    "infinity": (b"c.jpg,dog,1,2,3,inf", "c.jpg", "'inf' is not finite"),
    "truth": (b"c.jpg,dog,1,2,3,True", "c.jpg", "'True' is not a number"),
    "climbing uri": (b"x/../../c.jpg,dog,1,2,3,4", "x/../../c.jpg", "is not inside"),
    "backslashes": (b"..\\c.jpg,dog,1,2,3,4", "..\\c.jpg", "is not inside"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE_ROWS)
def test_a_bad_row_of_a_table(name: str, tmp_path: Path) -> None:
    line, image_id, reason = TABLE_ROWS[name]
    one_bad_row(
        "table", {"boxes.csv": lines()}, {"boxes.csv": lines(line)}, image_id, reason, tmp_path
    )


TABLES: dict[str, bytes] = {
    "BOM": b"\xef\xbb\xbf" + lines(),
    "CRLF": lines(end=b"\r\n"),
    "old Macintosh": lines(end=b"\r"),
    "empty lines": lines("", "", end=b"\n\n"),
    "columns in another order": lines().replace(b"uri,label", b"uri,label"),
    "more columns": b"\n".join(
        line + (b",note" if i == 0 else b",x") for i, line in enumerate(lines().splitlines())
    ),
    "quotes everywhere": b"\n".join(
        b",".join(b'"' + cell + b'"' for cell in line.split(b",")) for line in lines().splitlines()
    ),
    "no line end at the end": lines().rstrip(),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_looks_odd_and_is_sound(name: str, tmp_path: Path) -> None:
    expected = read("table", store(str(tmp_path), {"boxes.csv": lines()}))
    assert read("table", store(str(tmp_path), {"boxes.csv": TABLES[name]})) == expected


FILES: dict[str, tuple[str, dict[str, str], str, bytes, str]] = {
    "a table without columns": ("table", {}, "boxes.csv", b"\n", "its columns are ;"),
    "a table of other columns": ("table", {}, "boxes.csv", b"a;b;c\n1;2;3\n", "are a;b;c;"),
    "a table in UTF-16": ("table", {}, "boxes.csv", lines().decode().encode("utf-16"), r"\\x00"),
    "a table of Latin-1 columns": ("table", {}, "boxes.csv", b"\xfcri\n", r"are \\udcfcri;"),
    "a column twice": ("table", {}, "boxes.csv", lines(header=f"{HEADER},x0"),
                       "two columns 'x0'"),
    "a cell of 10 MB": ("table", {}, "boxes.csv", lines(b"c.jpg,dog,1,2,3," + b"9" * 10**7),
                        "not a CSV file: field larger than field limit"),
    "a header of 10 MB": ("table", {}, "boxes.csv", b"x" * 10**7, "field larger than field limit"),
    "an unclosed quote": ("table", {}, "boxes.csv", lines(b'"c.jpg,dog,1,2,3,4', *TABLE),
                          "unexpected end of data"),
    "a stray quote": ("table", {}, "boxes.csv", lines(b'"c.jpg,dog,1,2,3,4', b'"d.jpg",dog'),
                      "not a CSV file: ',' expected after"),
    "Parquet cut in two": ("table", {"file": "b.parquet"}, "b.parquet", b"PAR1\0\0PAR1",
                           "not a Parquet file"),
    "ILSVRC's CSV of other columns": ("imagenet", {"annotations": "csv"}, "LOC_train_solution.csv",
                                      b"PredictionString,ImageId\n",
                                      "are 'PredictionString,ImageId', not 'ImageId,Prediction"),
    "ILSVRC's CSV in UTF-16": ("imagenet", {"annotations": "csv"}, "LOC_train_solution.csv",
                               "ImageId,PredictionString\n".encode("utf-16"), "its columns are"),
    "ILSVRC's CSV without columns": ("imagenet", {"annotations": "csv"}, "LOC_train_solution.csv",
                                     b"", "its columns are ''"),
    "COCO: no JSON": ("coco", {}, "annotations.json", b"<html/>", "not a JSON file"),
    "COCO: a list": ("coco", {}, "annotations.json", b"[]",
                     "a JSON list; expected an object with lists images, annotations, categories"),
    "COCO: cut in two": ("coco", {}, "annotations.json", b'{"images": [{"id": 1}, ',
                         "not a JSON file"),
    "COCO: 100,000 levels": ("coco", {}, "annotations.json", b'{"a":' * 100_000,
                             "not a JSON file"),
    "COCO: a number of 10,000 digits": ("coco", {}, "annotations.json", b"9" * 10_000,
                                        "not a JSON file"),
    "COCO: no lists": ("coco", {}, "annotations.json", b'{"images": {}}', "its keys are images"),
    "Label Studio: no JSON": ("label_studio", {}, "project.json", b"<html/>", "not a JSON file"),
    "Label Studio: one task": ("label_studio", {}, "project.json", b'{"data": {}}',
                               "a JSON dict; expected a list of tasks"),
    "Label Studio: 100,000 levels": ("label_studio", {}, "project.json", b"[" * 100_000,
                                     "not a JSON file: maximum recursion depth"),
    "COCO: odd keys": ("coco", {}, "annotations.json", rb'{"\ud800\n": 1}', r"\\ud800\\n"),
    "COCO: a category without name": (
        "coco", {}, "annotations.json",
        b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": null}]}',
        r"categories\[0\]: an entry without name"),
    "COCO: a category twice": (
        "coco", {}, "annotations.json",
        b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"},'
        b' {"id": "1", "name": "b"}]}', "category 1 is 'a' and 'b'"),
    "Tiny ImageNet: a class that climbs": ("tiny_imagenet", {}, "wnids.txt", b"n01\n../n02\n",
                                           r"wnids\.txt: path '\.\./n02' is not inside"),
    "Tiny ImageNet: a class at the top": ("tiny_imagenet", {}, "wnids.txt", b"/etc\n",
                                          r"wnids\.txt: path '/etc' is not inside"),
    "Tiny ImageNet: a class without name": ("tiny_imagenet", {}, "words.txt", b"n01\ttench\n",
                                            r"words\.txt: has no line for n02"),
    "VOC: a name with ::": ("voc", {}, "JPEGImages/a::b.jpg", b"", "rename 'a::b.jpg'"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_a_stop_that_names_it(name: str, tmp_path: Path) -> None:
    layout, options, path, content, reason = FILES[name]
    root = store(str(tmp_path), LAYOUTS[layout]() | {path: content})
    with pytest.raises(DatasetError, match=reason) as caught:
        read(layout, root, **options)
    assert str(caught.value).startswith((f"{root}/{path}", os.path.dirname(f"{root}/{path}")))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2100


LOC_ROWS: dict[str, tuple[bytes, str, str]] = {
    "too few numbers": (b"n01_2,n01 1 2 3", "n01_2",
                        "LOC_train_solution.csv: n01_2: 'n01 1 2 3' is not a sequence"),
    "nothing behind the comma": (b"n01_2,", "n01_2", "is not a sequence"),
    "no comma": (b"n01_2", "n01_2", "is not a sequence"),
    "a word": (b"n01_2,n01 1 2 3 four", "n01_2", "'four' is not a number"),
    "nan": (b"n01_2,n01 1 2 3 nan", "n01_2", "'nan' is not finite"),
    "another class": (b"n01_2,n02 1 2 3 4", "n01_2", "no object of the class n01"),
    "an unknown class": (b"n09_1,n09 1 2 3 4", "n09_1", "the class n09 is not in"),
    "no class": (b"junk,n01 1 2 3 4", "junk", "does not begin with a wnid"),
    "a quote alone": (b'"', '"', "does not begin with a wnid"),
    "ten million digits": (b"n01_2,n01 1 2 3 " + b"9" * 10**7, "n01_2", "99' is not finite"),
    "a line of 10 MB": (b"n01_2," + b"x" * 10**7, "n01_2", "xxx' is not a sequence"),
    "NUL": (b"n01_2,n01 1 2 3 4\0", "n01_2", r"'4\x00' is not a number"),
    "a quote": (b'n01_2,"n01 1 2 3 4', "n01_2", "no object of the class n01"),
    "Latin-1": (b"n01_\xe4,n01 1 2 3 4", r"n01_\udce4", r"the image_id 'n01_\udce4' is not UTF-8"),
    "climbing": (b"../../n01_2,n01 1 2 3 4", "../../n01_2", "is not inside"),
    "climbing class": (b"../../etc_2,n01 1 2 3 4", "../../etc_2", "is not inside"),
    "absolute": (b"/etc/n01_2,n01 1 2 3 4", "/etc/n01_2", "no object of the class"),
}  # fmt: skip


@pytest.mark.parametrize("name", LOC_ROWS)
def test_a_bad_row_of_ilsvrcs_csv(name: str, tmp_path: Path) -> None:
    line, image_id, reason = LOC_ROWS[name]
    files, key = imagenet(), "LOC_train_solution.csv"
    good = [row.encode() for row in str(files[key]).splitlines() if not row.startswith("n01_2,")]
    bad = files | {key: b"\r\n".join([*good[:2], line, *good[2:]])}
    if image_id != "n01_2":
        bad[key] += b"\r\nn01_2,n01 10 20 30.5 40"
    one_bad_row("imagenet", files, bad, image_id, reason, tmp_path, annotations="csv")


TINY_LINES: dict[str, tuple[bytes, str, str]] = {
    "three corners": (b"n01_1.JPEG\t1\t2\t3", "n01_1",
                      "train/n01/n01_boxes.txt: line 2: 3 corners, not 4"),
    "junk": (b"junk", "junk", "train/n01/n01_boxes.txt: line 2: 0 corners, not 4"),
    "no such image": (b"n01_7.JPEG\t1\t2\t3\t4", "n01_7",
                      "train/n01/n01_boxes.txt: no image train/n01/images/n01_7.JPEG"),
    "climbing": (b"../n01_1.JPEG\t1\t2\t3\t4", "../n01_1",
                 "no image train/n01/images/../n01_1.JPEG"),
    "words": (b"n01_1.JPEG\tone\t2\t3\t4", "n01_1", "'one' is not a number"),
    "a name without suffix": (b"n01_0\t1\t2\t3\t4", "train/n01/n01_boxes.txt: n01_0",
                              "no image train/n01/images/n01_0"),
    "a name alone": (b"n01_1.JPEG", "n01_1", "0 corners, not 4"),
    "NUL": (b"n01_1.JPEG\t1\t2\t3\t4\0", "n01_1", r"'4\x00' is not a number"),
    "Latin-1": (b"n01_\xe4.JPEG\t1\t2\t3\t4", r"n01_\udce4",
                r"no image train/n01/images/n01_\udce4.JPEG"),
    "10 MB": (b"n01_1.JPEG\t1\t2\t3\t" + b"9" * 10**7, "n01_1", "is not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", TINY_LINES)
def test_a_bad_line_of_tiny_imagenet(name: str, tmp_path: Path) -> None:
    line, image_id, reason = TINY_LINES[name]
    files, key = tiny(), "train/n01/n01_boxes.txt"
    good = str(files[key]).encode().splitlines()
    rest = good[1:] if image_id != "n01_1" else []
    bad = files | {key: b"\n".join([good[0], line, *rest])}
    one_bad_row("tiny_imagenet", files, bad, image_id, reason, tmp_path)


COCO_ENTRIES: dict[str, tuple[str, Any, str, str]] = {
    "a bbox of three": ("annotations", {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3]},
                        "9", "annotations[4]: bbox [1, 2, 3] is not a list of four numbers"),
    "no bbox": ("annotations", {"image_id": 8, "category_id": 1}, "8",
                "annotations[4]: an entry without bbox"),
    "null": ("annotations", {"image_id": 8, "category_id": 1, "bbox": [1, 2, 3, None]}, "8",
             "annotations[4]: None is not a number"),
    "an object of no image": ("annotations", {"category_id": 1}, "annotations[4]",
                              "annotations.json: annotations[4]: an entry without image_id"),
    "no object": ("annotations", 3, "annotations[4]", "annotations[4]: an entry without"),
    "an image without name": ("images", {"id": 10}, "10", "images[3]: an entry without file_name"),
    "an image without id": ("images", {"file_name": "x.jpg"}, "images[3]",
                            "images[3]: an entry without id"),
    "no image": ("images", "x.jpg", "images[3]", "images[3]: an entry without id"),
    "a bbox of a million": ("annotations", {"image_id": 9, "category_id": 1, "bbox": [1] * 10**6},
                            "9", "1, 1] is not a list of four numbers"),
    "NaN": ("annotations", {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, float("nan")]},
            "9", "nan is not finite"),
    "truth": ("annotations", {"image_id": 9, "category_id": 1, "bbox": [True, 2, 3, 4]},
              "9", "True is not a number"),
    "an integer of 400 digits": ("annotations",
                                 {"image_id": 9, "category_id": 1, "bbox": [10**400, 2, 3, 4]},
                                 "9", "is not a number"),
    "an unknown category": ("annotations", {"image_id": 9, "category_id": 3, "bbox": [1, 2, 3, 4]},
                            "9", "category_id 3 is not in categories"),
    "an unknown image": ("annotations", {"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]},
                         "99", "99 is not in images"),
    "a climbing name": ("images", {"id": 10, "file_name": "../../x.jpg"}, "10", "is not inside"),
    "a name at the top": ("images", {"id": 10, "file_name": "/etc/passwd"}, "10", "is not inside"),
    "a URL": ("images", {"id": 10, "file_name": "file:///etc/passwd"}, "10", "is not inside"),
    "a chain": ("images", {"id": 10, "file_name": "x::reference://y"}, "10", "is not inside"),
    "an id twice": ("images", {"id": 9, "file_name": "x.jpg"}, "images[3]", "a second image"),
    "half a surrogate": ("images", {"id": 10, "file_name": "\ud83d.jpg"}, "10",
                         r"\ud83d.jpg' is not UTF-8"),
    "half a surrogate as id": ("images", {"id": "\ud83d", "file_name": "x.jpg"}, r"\ud83d",
                               r"the image_id '\ud83d' is not UTF-8"),
    "a turned box of CVAT's": ("annotations",
                               {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4],
                                "attributes": {"occluded": False, "rotation": 12.5}},
                               "9", "rotation 12.5: draw the box upright"),
    "a size of twenty digits": ("images",
                                {"id": 10, "file_name": "x.jpg", "width": 10**20, "height": 9},
                                "10", "its size is (100000000000000000000, 9) pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", COCO_ENTRIES)
def test_a_bad_entry_of_coco(name: str, tmp_path: Path) -> None:
    key, entry, image_id, reason = COCO_ENTRIES[name]
    if key == "images" and image_id != "images[3]":  # an image without object would be left out
        more = {"image_id": entry["id"], "category_id": 1, "bbox": [1, 2, 3, 4]}
        bad = coco(images=[entry], annotations=[more])
    else:
        bad = coco(**{key: [entry]})
    one_bad_row("coco", coco(), bad, image_id, reason, tmp_path)


TASKS: dict[str, tuple[Any, str, str]] = {
    "no task": (3, "[3]", "project.json: [3]: an entry without data"),
    "no data": ({"annotations": []}, "[3]", "[3]: an entry without data"),
    "no image": ({"data": {"photo": "x.jpg"}}, "[3]", "dataset.image names the key"),
    "an image that is none": ({"data": {"image": ["x.jpg"]}}, "[3]", "its data has no image"),
    "a climbing name": ({"data": {"image": "../x.jpg"}}, "../x.jpg", "is not inside"),
    "a climbing file": ({"data": {"image": "/data/local-files/?d=../x.jpg"}},
                        "/data/local-files/?d=../x.jpg", "is not inside"),
    "no file": ({"data": {"image": "/data/local-files/"}}, "/data/local-files/", "no ?d="),
    "a chain": ({"data": {"image": "x::reference://y"}}, "x::reference://y", "'::' in it"),
    "no address": ({"data": {"image": "http://[x/y.jpg"}}, "http://[x/y.jpg", "Invalid IPv6 URL"),
    "an upload": ({"data": {"image": "/data/upload/1/x.jpg"}}, "/data/upload/1/x.jpg",
                  "was uploaded into Label Studio"),
    "an image twice": ({"data": {"image": "a.jpg", "image_id": 7}}, "[3]", "second task of '7'"),
    "half a surrogate": ({"data": {"image": "\ud83d.jpg"}, "annotations": [
        annotated(rectangle("dog", 1, 2, 3, 4))]}, r"\ud83d.jpg", "is not UTF-8"),
    "no list": ({"data": {"image": "x"}, "annotations": 3}, "x", "an entry without annotations"),
    "no annotation": ({"data": {"image": "x"}, "annotations": [3]}, "x", "that is no object"),
    "no result": ({"data": {"image": "x"}, "annotations": [{}]}, "x", "an entry without result"),
    "no region": ({"data": {"image": "x"}, "annotations": [annotated(3)]}, "x", "result[0] is no"),
} | {
    name: ({"data": {"image": "x"}, "annotations": [annotated(region)]}, "x", reason)
    for name, region, reason in [
        ("no value", {"type": "rectanglelabels"}, "result[0]: an entry without value"),
        ("no label", rectangle("", 1, 2, 3, 4), "rectanglelabels [''] is not one label"),
        ("a turned box", rectangle("dog", 1, 2, 3, 4, value={"rotation": 30}), "rotation 30: draw"),
        ("a turned image", rectangle("dog", 1, 2, 3, 4, image_rotation=90), "image_rotation 90"),
        ("no number", rectangle("dog", 1, 2, None, 4), "None is not a number"),
        ("NaN", rectangle("dog", 1, 2, float("nan"), 4), "nan is not finite"),
        ("truth", rectangle("dog", True, 2, 3, 4), "True is not a number"),
        ("an integer of 400 digits", rectangle("dog", 10**400, 2, 3, 4), "is not a number"),
        ("a great size", rectangle("dog", 1, 2, 3, 4, original_width=10**20), "its size is"),
    ]
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_a_bad_task_of_label_studio(name: str, tmp_path: Path) -> None:
    task, image_id, reason = TASKS[name]
    one_bad_row("label_studio", label_studio(), label_studio(task), image_id, reason, tmp_path)


def test_an_image_can_have_thousands_of_objects(tmp_path: Path) -> None:
    many = [{"image_id": 9, "category_id": 2, "bbox": [i % 90, 0, 5, 5]} for i in range(5000)]
    found = read("coco", store(str(tmp_path), coco(annotations=many)))
    assert len(found["9"].corners) == 5000


def test_names_for_people_may_be_in_any_encoding(tmp_path: Path) -> None:
    """What is not UTF-8 in a class's description costs no image."""
    files: Files = imagenet() | {"LOC_synset_mapping.txt": b"n01 Schleie, B\xe4r\nn02 goldfish\n"}
    found = read("imagenet", store(str(tmp_path), files))
    assert found["n01_1"].class_name == r"Schleie, B\udce4r"
    assert not any(row.error for row in found.values())


def test_every_case_is_its_own() -> None:
    groups: list[Any] = [PLACES, STOPS, TABLE_ROWS, TABLES, FILES, LOC_ROWS, TINY_LINES,
                         COCO_ENTRIES]  # fmt: skip
    assert len({case.stem for case in (*CASES, *LEFT_OUT)}) == len(CASES) + len(LEFT_OUT)
    assert len(CASES) + len(LEFT_OUT) + sum(map(len, groups)) >= 75
