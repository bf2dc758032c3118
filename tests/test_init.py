"""``sensloc init``: the config that it writes reads what the layout's own reader reads."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_cli import sensloc
from test_datasets import HEADER, LAYOUTS, Files, coco, imagenet, reader, rows, store, voc
from test_webdataset import tar

from sensloc.config import load_config
from sensloc.init.start import start

WIDTH, HEIGHT = 100, 80


def image() -> bytes:
    """An image that the boxes of the layouts' files fit."""
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(buffer, "PNG")
    return buffer.getvalue()


def filled(files: Files, *more: str) -> Files:
    """Files whose images are images, and more images."""
    return {path: content or image() for path, content in files.items()} | dict.fromkeys(
        more, image()
    )


def moved(files: Files, **folders: str) -> Files:
    """Files with their top folders renamed; "" for the root itself."""
    return {
        "/".join(part for part in (folders.get(top, top), rest) if part): content
        for path, content in files.items()
        for top, _, rest in [path.partition("/")]
    }


def boxes(*lines: str) -> Files:
    return {"boxes.csv": "\n".join([HEADER, *lines])}


VOC = {path: content for path, content in voc().items() if path != "JPEGImages/a.png"}
COCO = filled(coco(), "images/a.jpg", "images/sub/b.jpg", "images/c.jpg")

NOTE = b'{"wnid": "cat", "boxes": [[0, 0, 50, 50]]}'

FOLDERS: dict[str, tuple[Files, dict[str, Any]]] = {
    "imagenet": (filled(imagenet()), {"layout": "imagenet"}),
    "train alone": (
        {path: data for path, data in filled(imagenet()).items() if "/val/" not in path},
        {"layout": "imagenet", "parts": ["train"]},
    ),
    "csv alone": (
        {path: data for path, data in filled(imagenet()).items() if "/Annotations/" not in path},
        {"layout": "imagenet", "annotations": "csv"},
    ),
    "tiny_imagenet": (filled(LAYOUTS["tiny_imagenet"]()), {"layout": "tiny_imagenet"}),
    "voc": (filled(VOC), {"layout": "voc"}),
    "voc by other names": (
        filled(moved(VOC, JPEGImages="my/photos", Annotations="my/boxes")),
        {"layout": "voc", "images": "my/photos", "annotations": "my/boxes"},
    ),
    "voc in one folder": (
        filled(moved(VOC, JPEGImages="", Annotations="")),
        {"layout": "voc", "images": ".", "annotations": "."},
    ),
    "coco": (COCO, {"layout": "coco"}),
    "coco by other names": (
        moved(COCO, images="train2017")
        | {"notes/x.json": COCO["annotations.json"], "y.json": "{}"},
        {"layout": "coco", "images": "train2017"},
    ),
    "coco in one folder": (moved(COCO, images=""), {"layout": "coco", "images": "."}),
    "label_studio": (
        filled(LAYOUTS["label_studio"](), "a.jpg", "sub/b.jpg", "c.jpg"),
        {"layout": "label_studio"},
    ),
    "label_studio by another name": (
        filled(
            {"notes/my.json": LAYOUTS["label_studio"]()["project.json"], "y.json": "[1, {}]"},
            "a.jpg",
            "sub/b.jpg",
        ),
        {"layout": "label_studio", "file": "notes/my.json"},
    ),
    "table": (filled(LAYOUTS["table"](), "a.jpg", "b.jpg"), {"layout": "table"}),
    "table of another name": (
        filled({"notes/my.csv": boxes("p/a.jpg,cat,0,0,50,50")["boxes.csv"]}, "p/a.jpg"),
        {"layout": "table", "file": "notes/my.csv"},
    ),
    "table of left, top, width, height": (
        filled(boxes("a.jpg,cat,60,40,30,30", "b.jpg,dog,5,5,50,50"), "a.jpg", "b.jpg"),
        {"layout": "table", "convention": "xywh"},
    ),
    "webdataset": (
        {"shards/a.tar": tar([("a.png", image()), ("a.json", NOTE)])},
        {"layout": "webdataset", "shards": "shards/*.tar"},
    ),
    "table of fractions": (
        filled(boxes("a.jpg,cat,0.1,0.1,0.9,1"), "a.jpg"),
        {"layout": "table", "convention": "unit"},
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_config_reads_what_the_layouts_reader_reads(tmp_path: Path, name: str) -> None:
    files, options = FOLDERS[name]
    folder, file = store(str(tmp_path / "my photos"), files), tmp_path / "mine.toml"
    text = start(folder, str(file))
    config = load_config(str(file))
    expected = rows(reader(root=folder, **options))
    assert rows(config.dataset) == expected
    boxed = [row for row in expected if row.error is None and row.left_out is None]
    n_boxes, n_classes = sum(len(row.corners) for row in boxed), len({row.wnid for row in boxed})
    assert boxed
    assert f"{len(boxed)} images with {n_boxes} boxes of {n_classes} classes" in text
    assert config.name == "my_photos"


def test_a_folder_may_be_a_url(tmp_path: Path) -> None:
    folder, file = store("memory://my/photos", COCO), tmp_path / "new/mine.toml"
    start(folder, str(file))
    assert rows(load_config(str(file)).dataset) == rows(reader("coco", folder))


def test_every_key_of_the_config_is_explained(tmp_path: Path) -> None:
    for name, (files, _) in FOLDERS.items():
        file = tmp_path / f"{name}.toml"
        start(store(str(tmp_path / name), files), str(file))
        lines = [line for line in file.read_text().splitlines() if line]
        keys = [i for i, line in enumerate(lines) if re.match(r"\w+ = ", line)]
        assert keys
        assert all(lines[i - 1].startswith("# ") or i - 1 in keys for i in keys), lines


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        (boxes("a.jpg,n01440764,0,0,50,50"), []),
        (boxes("a.jpg,n01440764,0,0,50,50") | {"b.jpg": b""}, ["boxes of 1 images"]),
        (filled(VOC), ["boxes of 2 images", "2 of 2 classes are none"]),
        (
            boxes("a.jpg,n01440764,0,0,50,50", "c.jpg,n01440764,0,0,5,5"),
            ["1 images with boxes are not there: the first: .*/c.jpg"],
        ),
        (
            boxes("a.jpg,n01440764,0,0,50,50", "a/../c.jpg,n01440764,0,0,5,5"),
            ["1 annotations have errors: the first: boxes.csv: row 2: "],
        ),
        (
            boxes("a.jpg,cat,0,0,50,50", "b.jpg,n01440764,0,0,50,500") | {"b.jpg": image()},
            [
                "1 of 2 images that were opened are errors: the first: .*b.jpg: .* is outside",
                "1 of 2 classes are none of the network's, such as cat",
            ],
        ),
        (
            boxes("a.jpg,n01440764,0,0,50,50") | {"more.csv": f"{HEADER}\na.jpg,cat,0,0,5,5"},
            ["layout table more.csv is not taken"],
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, files: Files, lacks: list[str]) -> None:
    file = tmp_path / "mine.toml"
    folder = store(str(tmp_path / "photos"), {"a.jpg": image()} | files)
    said = re.findall("^missing: (.*)$", start(folder, str(file)), re.MULTILINE)
    assert len(said) == len(lacks)
    assert all(re.match(lack, line) for lack, line in zip(lacks, said, strict=True)), said
    unknown = any("are none of the network's" in line for line in said)
    assert load_config(str(file)).sensitivity.label == ("predicted" if unknown else "truth")


REFUSED: dict[str, tuple[Files, str]] = {
    "nothing": ({"notes.md": ""}, "nothing recognisable is in it; boxes are needed"),
    "no boxes": ({"p/a.jpg": image()}, "1 images, and none with a box that can be used"),
    "other columns": (
        {"a.jpg": image(), "labels.csv": "filename,class,xmin,ymin,xmax,ymax\n"},
        "labels.csv: its columns are filename, class, .*; expected uri, label, x0",
    ),
    "no image there": (boxes("a.jpg,cat,0,0,50,50"), "1 images with boxes are not there"),
    "no image at all": ({"a.jpg": b"no image"} | boxes("a.jpg,cat,0,0,5,5"), "not an image"),
    "a name that no URL can have": ({"a::b.jpg": image()}, "rename 'a::b.jpg'"),
    "half an ImageNet": (
        {path: data for path, data in imagenet().items() if path != "LOC_synset_mapping.txt"},
        "LOC_synset_mapping.txt: no such file",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_nothing_can_be_learned_from_is_refused(tmp_path: Path, name: str) -> None:
    files, reason = REFUSED[name]
    folder, file = store(str(tmp_path / "photos"), files), tmp_path / "mine.toml"
    done = sensloc("init", folder, "--output", str(file))
    assert done.exit_code == 1
    assert done.output.startswith("error: ")
    assert re.search(reason, done.output), done.output
    assert not file.exists()


def test_nothing_is_written_but_the_config_and_none_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store("photos", COCO)
    before = sorted(tmp_path.rglob("*"))
    done = sensloc("init", "photos")
    assert done.exit_code == 0
    assert "next: sensloc run photos.toml" in done.output
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "photos.toml"])
    for arguments, reason in {
        ("photos",): "photos.toml is there already: delete it, or name another --output",
        ("photos", "--output", "/sys/x.toml"): "'/sys/x.toml': choose a folder that you may",
        ("photo",): f"{tmp_path}/photo: no such folder",
        ("nope://other",): "nope://other: Protocol not known",
    }.items():
        refused = sensloc("init", *arguments)
        assert refused.exit_code == 1
        assert re.fullmatch(f"error: .*{reason}.*\n", refused.output)
