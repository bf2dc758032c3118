"""The localizer of a finished run: the same boxes in memory, on a cluster, and anywhere it goes."""

import json
import shutil
import subprocess
import tarfile
import venv
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, copied
from PIL import Image
from pycocotools.coco import COCO
from test_cli import job
from test_datasets import by_id, reader
from test_datasets import rows as rows_of

from sensloc.boxes import unit_boxes
from sensloc.config import Resources
from sensloc.datasets import Unboxed
from sensloc.datasets.images import Images
from sensloc.datasets.voc_xml import parse
from sensloc.datasets.webdataset import WebDataset
from sensloc.images.fetch import ImageError
from sensloc.prediction.confidence import calibration_error
from sensloc.prediction.facts import LocalizerError, read_facts
from sensloc.prediction.localizer import Localizer
from sensloc.stages.predict import images_at, predict, prediction
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")

FORMATS = ["coco", "label-studio", "voc", "yolo"]

ANNOTATORS = ("label-studio-sdk==2.1.2", "datumaro==0.3.1")
"""Other people's readers: Label Studio's, and that of which CVAT has a fork."""


@pytest.fixture(scope="module")
def photos(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders, one of them broken, one hidden, and a text."""
    folder = tmp_path_factory.mktemp("photos")
    manifest = pq.read_table(small_run.path("manifest")).to_pylist()
    for i, row in enumerate(manifest[:40]):
        file = folder / f"{i % 3}" / f"{i:03d}.png"
        file.parent.mkdir(exist_ok=True)
        with Image.open(row["uri"]) as image:
            image.resize((64 + i, 96)).save(file)
    (folder / "0" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def predicted(small_run: RunDir, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Their boxes, in all formats."""
    output = str(tmp_path_factory.mktemp("boxes") / "run")
    config = prediction(small_run.url, str(photos), output, Resources(rows_per_block=16))
    run = RunDir.open(config)
    predict(run, small_run.url, FORMATS, review=7)
    return run


def rows(run: RunDir) -> pd.DataFrame:
    return pq.read_table(run.path("boxes")).to_pandas().set_index("image_id").sort_index()


# --------------------------------------------------------------------------- the stage


def test_where_the_class_was_recognised_the_box_is_the_runs_own(small_run: RunDir) -> None:
    judged = pq.read_table(small_run.path("judged")).to_pandas().set_index("image_id")
    ours = pq.read_table(small_run.path("predictions")).to_pandas()
    method = read_facts(small_run.url)[1].method
    ours = ours[ours.method == method].set_index("image_id")
    both = judged.join(ours, suffixes=("", "_run"), how="inner")
    same = both[both.recognised]
    assert len(both) == len(ours) == (judged.split == "test").sum()
    assert len(same) > 0
    for one, other in zip(same.box, same.box_run, strict=True):
        assert (one == other).all()


def test_the_facts_are_those_of_the_judged_images(small_run: RunDir) -> None:
    _, facts = read_facts(small_run.url)
    judged = pq.read_table(small_run.path("judged")).to_pandas()
    for name in ("validation", "test"):
        mine, found = judged[judged.split == name], getattr(facts, name)
        assert found.images == len(mine)
        assert found.corloc == pytest.approx(100 * mine.correct.mean())
        assert found.calibration_error == pytest.approx(100 * calibration_error(found.reliability))
        chance = facts.confidence(np.stack(mine.evidence))
        assert found.confidence == pytest.approx(100 * chance.mean())
    # the likelihood's own law: on average as sure as it is right, where it was learned
    assert facts.validation.confidence == pytest.approx(facts.validation.corloc, abs=0.5)


# --------------------------------------------------------------------------- in memory


def test_a_copy_of_the_folder_is_enough(small_run: RunDir, tmp_path: Path) -> None:
    copy = shutil.copytree(small_run.path("localizer"), tmp_path / "anywhere")
    assert {file.name for file in copy.iterdir()} == {
        "localizer.json", "method.npz", "methods", "readout.npz", "classifier.pt",
    }  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    here, there = (Localizer.load(url).find(pixels, pixels) for url in (small_run.url, copy))
    np.testing.assert_array_equal(here.boxes, there.boxes)
    np.testing.assert_array_equal(here.confidence, there.confidence)


def test_an_image_is_the_same_however_it_is_given(small_run: RunDir, photos: Path) -> None:
    localizer = Localizer.load(small_run.url)
    file = photos / "1" / "001.png"
    with Image.open(file) as image:
        given = [file, str(file), file.read_bytes(), image.convert("RGB"), np.array(image)]
        found = localizer.predict(given)
    for one in found[1:]:
        assert one.box == pytest.approx(found[0].box, abs=1e-3)
        assert (one.wnid, one.class_name) == (found[0].wnid, found[0].class_name)
    assert found[0].wnid in localizer.facts.wnids
    x0, y0, x1, y1 = found[0].box
    assert 0 <= x0 < x1 <= 65
    assert 0 <= y0 < y1 <= 96
    assert 0 < found[0].confidence < 1
    assert localizer.predict([]) == []


def test_what_is_no_image_is_an_error_that_says_so(small_run: RunDir, tmp_path: Path) -> None:
    localizer = Localizer.load(small_run.url)
    for wrong in (tmp_path / "none.jpg", b"no image", np.zeros((4, 4), np.uint8)):
        with pytest.raises(ImageError):
            localizer.predict([wrong])


def test_other_weights_and_other_folders_are_refused(small_run: RunDir, tmp_path: Path) -> None:
    copy = shutil.copytree(small_run.path("localizer"), tmp_path / "copy")
    facts = json.loads((copy / "localizer.json").read_text())
    (copy / "localizer.json").write_text(json.dumps(facts | {"weights": "0" * 32}))
    with pytest.raises(LocalizerError, match="weights are not those"):
        Localizer.load(copy)
    (copy / "localizer.json").write_text(json.dumps(facts | {"format": "?"}))
    with pytest.raises(LocalizerError, match="not of this version"):
        Localizer.load(copy)
    with pytest.raises(LocalizerError, match=f"{tmp_path}: no localizer there"):
        Localizer.load(tmp_path)
    (copy / "localizer.json").write_text(json.dumps(facts))
    (copy / "method.npz").unlink()
    with pytest.raises(LocalizerError, match=f"{copy}/method.npz: no such file: the folder was"):
        Localizer.load(copy)


# --------------------------------------------------------------------------- on a cluster


def test_every_image_has_a_row_and_a_bad_one_its_reason(predicted: RunDir, photos: Path) -> None:
    found = rows(predicted)
    assert len(found) == 41
    assert found.error.notna().sum() == 1
    assert f"{photos}/0/broken.jpg: " in found.error["0/broken.jpg"]
    assert found.confidence.isna().sum() == 1
    assert predicted.stages()["predict"]["rows"] == 41
    assert predicted.stages()["predict"]["errors"] == 1
    assert not predicted.exists("work")


def test_the_cluster_and_memory_agree(predicted: RunDir, photos: Path, small_run: RunDir) -> None:
    found = rows(predicted)
    found = found[found.error.isna()]
    ours = Localizer.load(small_run.url).predict([photos / name for name in found.index])
    corners = found[["x0", "y0", "x1", "y1"]].to_numpy()
    np.testing.assert_allclose(corners, [one.box for one in ours], atol=0.05)
    np.testing.assert_allclose(found.confidence, [one.confidence for one in ours], atol=1e-3)
    assert list(found.wnid) == [one.wnid for one in ours]
    assert list(found.width) == [64 + int(name[-7:-4]) for name in found.index]
    sides = found[["width", "height", "width", "height"]].to_numpy()
    np.testing.assert_allclose(np.stack(found.box) * sides, corners, rtol=1e-5)


def test_it_goes_on_where_it_was_cut_off(
    predicted: RunDir, small_run: RunDir, tmp_path: Path
) -> None:
    shutil.copytree(predicted.path(""), tmp_path / "run")
    run = RunDir(str(tmp_path / "run"), predicted.config)
    first, second, *_ = run.files("boxes")
    kept, lost = Path(first).stat(), Path(second).read_bytes()
    Path(second).unlink()
    record = run.facts()
    del record["stages"]["predict"]["finished"]
    run.write("run.json", json.dumps(record))
    predict(run, small_run.url, FORMATS)
    assert Path(first).stat().st_mtime_ns == kept.st_mtime_ns
    assert Path(second).read_bytes() == lost


def test_other_images_are_refused_in_the_same_place(
    predicted: RunDir, small_run: RunDir, tmp_path: Path
) -> None:
    config = prediction(small_run.url, str(tmp_path), predicted.url, Resources())
    with pytest.raises(RunError, match=r"config\.dataset\.root"):
        RunDir.open(config)


def test_coco_has_the_same_boxes(predicted: RunDir) -> None:
    found, coco = rows(predicted), COCO(predicted.path("coco.json"))
    assert len(coco.imgs) == 41
    assert len(coco.anns) == 40
    for image in coco.imgs.values():
        row, anns = found.loc[image["file_name"]], coco.imgToAnns[image["id"]]
        if pd.notna(row.error):
            assert anns == []
            continue
        (one,) = anns
        x, y, width, height = one["bbox"]
        np.testing.assert_allclose(
            [x, y, x + width, y + height], row[["x0", "y0", "x1", "y1"]].astype(float)
        )
        assert one["score"] == pytest.approx(row.confidence)
        assert coco.cats[one["category_id"]]["wnid"] == row.wnid


def test_voc_is_read_back(predicted: RunDir) -> None:
    found, root = rows(predicted), predicted.path("voc")
    for name in (name for name in found.index if name.startswith("1/")):
        ((wnid, corners),), size = parse(Path(root, name).with_suffix(".xml").read_bytes())
        row = found.loc[name]
        assert (wnid, size) == (row.wnid, (row.width, row.height))
        edges = np.array(corners) - [1, 1, 0, 0]
        np.testing.assert_allclose(edges, row[["x0", "y0", "x1", "y1"]].astype(float), atol=1)


def test_label_studio_has_the_same_boxes(predicted: RunDir, photos: Path) -> None:
    found = rows(predicted)
    tasks = json.loads(predicted.read("label_studio.json"))
    assert [task["data"]["image_id"] for task in tasks] == list(found[found.error.isna()].index)
    config = ElementTree.fromstring(predicted.read("label_studio.xml"))
    labels = [label.get("alias", label.get("value")) for label in config.iter("Label")]
    for task in tasks:
        row = found.loc[task["data"]["image_id"]]
        assert task["data"]["image"] == f"/data/local-files/?d={quote(row.uri[1:])}"
        (guess,) = task["predictions"]
        assert guess["score"] == pytest.approx(row.confidence)
        (region,) = guess["result"]
        value = region["value"]
        assert value["rectanglelabels"] == [row.wnid]
        assert row.wnid in labels
        assert (region["original_width"], region["original_height"]) == (row.width, row.height)
        corner = [value[key] for key in ("x", "y", "width", "height")]
        x0, y0, x1, y1 = row.box
        np.testing.assert_allclose(corner, 100 * np.array([x0, y0, x1 - x0, y1 - y0]), rtol=1e-5)


def test_the_least_confident_are_for_a_person(predicted: RunDir) -> None:
    found = rows(predicted).sort_values("confidence")
    first = list(found.index[:7])
    assert list(pd.read_csv(predicted.path("review/images.csv")).image_id) == first
    tasks = json.loads(predicted.read("review/label_studio.json"))
    assert [task["data"]["image_id"] for task in tasks] == first
    coco = COCO(predicted.path("review/coco.json"))
    assert [image["file_name"] for image in coco.dataset["images"]] == first
    assert {cat["name"] for cat in coco.dataset["categories"]} == {
        cat["wnid"] for cat in coco.dataset["categories"]
    }


def test_another_number_and_no_image_that_has_boxes_already(
    small_run: RunDir, predicted: RunDir, photos: Path, tmp_path: Path
) -> None:
    run = copied(predicted, tmp_path / "run")
    table = pq.read_table(run.path("boxes"))
    boxed = pq.read_table(small_run.path("manifest"))["uri"][:41]
    run.remove("boxes")
    uri = table.column_names.index("uri")
    there = pa.chunked_array([[*boxed.to_pylist()[:30], *table["uri"].to_pylist()[30:]]])
    Path(run.path("boxes")).mkdir()
    pq.write_table(table.set_column(uri, "uri", there), run.path("boxes/0.parquet"))
    text = predict(run, small_run.url, ["coco"], review=100)
    left = pd.read_csv(run.path("review/images.csv"))
    errors = table["error"].to_pylist()
    pairs = zip(there.to_pylist()[30:], errors[30:], strict=True)
    unseen = [uri for uri, error in pairs if error is None]
    assert sorted(left.uri) == sorted(unseen)
    assert text.endswith(f"the {len(unseen)} least confident of {len(unseen)} images")
    assert not run.exists("review/label_studio.json")
    predict(run, f"{small_run.url}/localizer", ["coco"], review=100)
    assert len(pd.read_csv(run.path("review/images.csv"))) == 40


def test_images_in_shards_are_nothing_for_label_studio(small_run: RunDir, tmp_path: Path) -> None:
    config = prediction(small_run.url, f"{tmp_path}/*.tar", f"{tmp_path}/run", Resources())
    with pytest.raises(RunError, match="no images inside tar shards: unpack them first"):
        predict(RunDir.open(config), small_run.url, ["label-studio"])


def test_corrected_boxes_come_back(predicted: RunDir, tmp_path: Path) -> None:
    """What the files say, accepted as it is in Label Studio or CVAT, are the boxes."""
    tasks = json.loads(predicted.read("review/label_studio.json"))
    accepted = [task | {"annotations": task["predictions"]} for task in tasks]
    (tmp_path / "project.json").write_text(json.dumps(accepted))
    (tmp_path / "annotations.json").write_bytes(predicted.read("review/coco.json"))
    found = rows(predicted)
    for layout in ("label_studio", "coco"):
        back = list(by_id(reader(layout, tmp_path)).values())
        assert len(back) == 7
        for row in back:
            image_id = row.image_id if layout == "label_studio" else row.uri[-len("0/000.png") :]
            image = found.loc[image_id]
            (box,) = unit_boxes(row.corners, image.width, image.height, row.convention)
            np.testing.assert_allclose(box, image.box, atol=1e-5)
            assert row.wnid == image.wnid


@pytest.mark.long
def test_label_studio_and_cvat_read_and_write_the_same_boxes(
    predicted: RunDir, tmp_path: Path
) -> None:
    """By their own readers, in an environment of their own: they want other versions of OpenCV."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *ANNOTATORS], check=True)
    for name in ("coco.json", "label_studio.json", "label_studio.xml"):
        (tmp_path / name).write_bytes(predicted.read(name))
    tasks = json.loads(predicted.read("label_studio.json"))
    exported = [
        task | {"id": i, "annotations": [guess | {"id": i, "was_cancelled": False}]}
        for i, task in enumerate(tasks)
        for guess in task["predictions"]
    ]
    (tmp_path / "project.json").write_text(json.dumps(exported))
    script = [python, str(ROOT / "tests/annotators.py"), str(tmp_path)]
    told = json.loads(subprocess.run(script, check=True, capture_output=True).stdout)

    found = rows(predicted)
    found = found[found.error.isna()]
    assert told["label studio"]["errors"] == []
    assert set(found.wnid) <= set(told["label studio"]["labels"])
    assert told["label studio"]["files"] == list(found.uri)
    read = {f"{box['id']}.png": box for box in told["cvat"]}
    assert {name: box["label"] for name, box in read.items()} == dict(found.class_name)
    for name, box in read.items():
        x, y, width, height = box["bbox"]
        corners = found.loc[name, ["x0", "y0", "x1", "y1"]].astype(float)
        np.testing.assert_allclose([x, y, x + width, y + height], corners, atol=0.02)

    ours = by_id(reader("label_studio", tmp_path))
    theirs = rows_of(reader("coco", tmp_path, images=".", annotations="label_studio/result.json"))
    cvats = rows_of(reader("coco", tmp_path, annotations="cvat/annotations/instances_default.json"))
    cvats = [row for row in cvats if row.left_out is None]  # an image with an error has no box
    assert len(ours) == len(theirs) == len(cvats) == 40
    sides = {name: (row.width, row.height) for name, row in found.iterrows()}
    boxes = {name: unit_boxes(row.corners, *sides[name], "unit") for name, row in ours.items()}
    for row in theirs:  # a file that was fetched has a prefix of its own
        name = next(name for name in boxes if row.uri.endswith(f"__{name.rpartition('/')[2]}"))
        box = unit_boxes(row.corners, *sides[name], row.convention)
        np.testing.assert_allclose(box, boxes[name], atol=1e-6)
        assert row.wnid == ours[name].wnid
    for row in cvats:
        name = row.uri[-len("0/000.png") :]
        box = unit_boxes(row.corners, *sides[name], row.convention)
        np.testing.assert_allclose(box, boxes[name], atol=1e-3)


def test_yolo_is_the_unit_box(predicted: RunDir) -> None:
    found, classes = rows(predicted), predicted.read("yolo/classes.txt").decode().split()
    texts = sorted(Path(predicted.path("yolo")).rglob("*/*.txt"))
    assert len(texts) == 40
    for text in texts:
        index, cx, cy, w, h, confidence = map(float, text.read_text().split())
        row = found.loc[f"{text.parent.name}/{text.stem}.png"]
        assert classes[int(index)] == row.wnid
        np.testing.assert_allclose(
            [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], row.box, atol=1e-5
        )
        assert confidence == pytest.approx(row.confidence, abs=1e-5)


def test_two_images_that_would_share_a_file_stop_that_format(
    small_run: RunDir, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "two").mkdir()
    shutil.copy(photos / "1" / "001.png", tmp_path / "two" / "a.png")
    shutil.copy(photos / "1" / "001.png", tmp_path / "two" / "a.bmp")
    run = RunDir.open(
        prediction(small_run.url, str(tmp_path / "two"), str(tmp_path / "out"), Resources())
    )
    with pytest.raises(RunError, match="1 files are of more than one image"):
        predict(run, small_run.url, ["voc"])
    assert len(rows(run)) == 2


# --------------------------------------------------------------------------- sources


def ids(config: Images | WebDataset) -> list[str]:
    reader = Unboxed(config)
    return sorted(row.image_id for unit in reader.units() for row in reader.read(unit))


@pytest.fixture
def sources(photos: Path, tmp_path: Path) -> dict[str, str]:
    files = sorted(photos.glob("1/*.png"))
    table = pd.DataFrame({"uri": [str(file) for file in files], "note": 1})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    return {
        "folder": f"{photos}/1",
        "pattern": f"{photos}/1/*.png",
        "deep pattern": f"{photos}/**/*[0-9].png",
        "csv": str(tmp_path / "t.csv"),
        "parquet": str(tmp_path / "t.parquet"),
        "tar": str(tmp_path / "a.tar"),
        "tars": str(tmp_path / "*.tar"),
        "one": f"{photos}/1/001.png",
    }


def test_sources(sources: dict[str, str], photos: Path) -> None:
    found = {name: ids(images_at(place)) for name, place in sources.items()}
    stems = {name: [Path(one).stem for one in some] for name, some in found.items()}
    whole = sorted(file.stem for file in photos.glob("1/*.png"))
    assert len(whole) == 13
    for name in ("folder", "pattern", "csv", "parquet", "tar", "tars"):
        assert stems[name] == whole, name
    assert stems["one"] == ["001"]
    assert len(stems["deep pattern"]) == 40


def test_an_images_uri_that_leaves_the_root_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri\n../x.jpg\nfine.jpg\nsimplecache::s3://b/x.jpg\n")
    reader = Unboxed(images_at(str(tmp_path / "t.csv")))
    found = [row for unit in reader.units() for row in reader.read(unit)]
    assert [row.error is None for row in found] == [False, True, False]


def test_the_command_line(small_run: RunDir, tmp_path: Path) -> None:
    done = job("jobs/predict.py", str(tmp_path), str(tmp_path), f"--output={tmp_path}/out")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}: no localizer there")
    arguments = (small_run.url, str(tmp_path), f"--output={tmp_path}/out", "--actors=0")
    done = job("jobs/predict.py", *arguments)
    assert done.returncode == 1
    assert done.stderr == "error: actors: Input should be greater than 0 (got 0)\n"


def test_a_table_without_uris_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "t.parquet")
    with pytest.raises(Exception, match=r"t\.parquet: no column uri"):
        ids(images_at(str(tmp_path / "t.parquet")))
