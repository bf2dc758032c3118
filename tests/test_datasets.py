"""Laws of the dataset readers: same rows from any root, and bad input stays one row."""

import csv
import io
import json
import os
import pickle
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import fsspec.core
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from sensloc.datasets import Annotation, AnyDataset, Dataset
from sensloc.datasets.files import Tree, inside
from sensloc.datasets.imagenet import ImageNet
from sensloc.datasets.voc import Voc
from sensloc.errors import DatasetError

Files = dict[str, str | bytes]
RealData = Callable[[str], Path]

# ------------------------------------------------------------------------------- builders


def xml(*objects: str, width: object = 100, height: object = 80, filename: str = "x") -> str:
    """An annotation; an object is "name x0 y0 x1 y1"."""
    body = ""
    for name, *corners in map(str.split, objects):
        keys = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
        body += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation><filename>{filename}</filename>{size}{body}</annotation>"


DATA, XML = "ILSVRC/Data/CLS-LOC", "ILSVRC/Annotations/CLS-LOC"


def imagenet() -> Files:
    """Two classes: three train images and one without box; three val images; and some litter."""
    boxed = {
        "train/n01/n01_1": "n01 0 1 50 60 n02 0 0 9 9 n01 5 5 20 20",
        "train/n01/n01_2": "n01 10 20 30.5 40",
        "train/n02/n02_5": "n02 0 0 100 80",
        "val/ILSVRC2012_val_1": "n02 1 2 3 4 n01 5 6 7 8",
        "val/ILSVRC2012_val_2": "n01 1 2 3 4",
        "val/ILSVRC2012_val_3": "n01 1 2 99 80",
    }
    files: Files = {
        "LOC_synset_mapping.txt": "n01 tench, Tinca tinca\nn02 goldfish\n",
        f"{DATA}/train/n01/n01_3.JPEG": b"",
        f"{DATA}/train/n01/Thumbs.db": b"litter",
        f"{XML}/train/n01/._n01_1.xml": b"litter",
        f"{XML}/train/.cache/x.xml": b"litter",
        **{f"{DATA}/{path}.JPEG": b"" for path in boxed},
    }
    for path, prediction in boxed.items():
        words = prediction.split()
        files[f"{XML}/{path}.xml"] = xml(
            *(" ".join(words[i : i + 5]) for i in range(0, len(words), 5))
        )
    for part in ("train", "val"):
        rows = [(path, p) for path, p in boxed.items() if path.startswith(part)]
        lines = [f"{path.rpartition('/')[2]},{p} \n" for path, p in reversed(rows)]
        files[f"LOC_{part}_solution.csv"] = "ImageId,PredictionString\n" + "".join(lines)
    return files


def tiny() -> Files:
    return {
        "wnids.txt": "n02\nn01\n",
        "words.txt": "n00\tentity\nn01\ttench\nn02\tgoldfish\n",
        **{f"train/{w}/images/{w}_{i}.JPEG": b"" for w in ("n01", "n02") for i in range(3)},
        "train/n01/n01_boxes.txt": "n01_0.JPEG\t0\t10\t63\t58\nn01_1.JPEG\t14\t2\t54\t49\n",
        "train/n02/n02_boxes.txt": "".join(f"n02_{i}.JPEG\t0\t0\t{i}\t63\n" for i in range(3)),
        "val/images/val_0.JPEG": b"",
        "val/images/val_1.JPEG": b"",
        "val/val_annotations.txt": "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t1\t2\t3\t4\n",
    }


def voc() -> Files:
    return {
        "JPEGImages/a.jpg": b"",
        "JPEGImages/a.png": b"",
        "JPEGImages/b.png": b"",
        "JPEGImages/c.jpg": b"",
        "Annotations/a.xml": xml("dog 1 1 10 10", "cat 1 1 50 50", "cat 20 20 30 30"),
        "Annotations/b.xml": xml("dog 2 2 9 9", width=0, filename="../../etc/passwd"),
        "Annotations/c.xml": xml(),
    }


def coco(**changes: Any) -> Files:
    instances: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 8, "file_name": "sub/b.jpg", "width": 0, "height": 80},
            {"id": 9, "file_name": "c.jpg"},
        ],
        "annotations": [
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]},
            {"image_id": 7, "category_id": 2, "bbox": [5, 5, 50, 50]},
            {"image_id": 8, "category_id": 1, "bbox": [1.5, 2, 3, 4], "iscrowd": 0},
            {"image_id": 9, "category_id": 1, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    for key, more in changes.items():
        instances[key] = instances[key] + more
    return {"annotations.json": json.dumps(instances)}


HEADER = "uri,label,x0,y0,x1,y1"
TABLE = ["a.jpg,cat,0,0,50,50", "b.jpg,dog,1,2,3,4", "a.jpg,cat,1,1,9,9", "a.jpg,dog,2,2,8,8"]


def table(*more: str, header: str = HEADER) -> Files:
    return {"boxes.csv": "\n".join([header, *TABLE, *more]) + "\n"}


def rectangle(label: str, *corner: object, **more: Any) -> dict[str, Any]:
    """A region of Label Studio's: left, top, width and height in percent."""
    value = dict(zip(("x", "y", "width", "height"), corner, strict=True))
    return {
        "id": "x", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
        "original_width": 100, "original_height": 80, "image_rotation": 0,
        "value": {**value, "rotation": 0, "rectanglelabels": [label]}, **more,
    }  # fmt: skip


def annotated(*result: Any, hour: int = 1, **more: Any) -> dict[str, Any]:
    return {"result": list(result), "updated_at": f"2026-01-01T{hour:02}:00:00.000000Z", **more}


def label_studio(*more: Any) -> Files:
    """An image that two people have boxed and a third has given up, and others."""
    dog, cat = rectangle("dog", 0, 0, 10, 10), rectangle("cat", 5, 5, 50, 50)
    choice = {"type": "choices", "value": {"choices": ["blurred"]}}
    unsized = {"original_width": None, "original_height": None}
    tasks = [
        {"id": 1, "data": {"image": "a.jpg", "image_id": "7"}, "annotations": [
            annotated(rectangle("cow", 0, 0, 99, 99), hour=3, was_cancelled=True),
            annotated(dog, choice, cat, hour=2), annotated(rectangle("dog", 0, 0, 90, 90))]},
        {"id": 2, "data": {"image": "sub/b.jpg", "image_id": "8"}, "annotations": [
            annotated(rectangle("dog", 1.5, 2, 3, 4, **unsized))]},
        {"id": 3, "data": {"image": "c.jpg", "image_id": "9"}, "annotations": [annotated(choice)]},
    ]  # fmt: skip
    return {"project.json": json.dumps([*tasks, *more])}


LAYOUTS: dict[str, Callable[[], Files]] = {
    "imagenet": imagenet,
    "tiny_imagenet": tiny,
    "voc": voc,
    "coco": coco,
    "label_studio": label_studio,
    "table": table,
}


def store(root: str, files: Files) -> str:
    """Write files below any root that fsspec can write to."""
    fs, top = fsspec.core.url_to_fs(root)
    for path, content in files.items():
        full = f"{top}/{path}"
        fs.makedirs(full.rpartition("/")[0], exist_ok=True)
        fs.pipe_file(full, content.encode() if isinstance(content, str) else content)
    return root


def reader(layout: str, root: str | Path, **options: Any) -> Dataset:
    values = {"layout": layout, "root": str(root), **options}
    return TypeAdapter(AnyDataset).validate_python(values)


def rows(reader: Dataset) -> list[Annotation]:
    """All rows, read as workers do: with a reader and units that were sent to them."""
    units = reader.units()
    assert json.loads(json.dumps(units)) == units, "units are plain values"
    sent: Dataset = pickle.loads(pickle.dumps(reader))
    assert sent == reader
    found = [list(sent.read(unit)) for unit in units]
    assert found == [list(sent.read(unit)) for unit in units], "the order is fixed"
    return [row for of_unit in found for row in of_unit]


def by_id(reader: Dataset) -> dict[str, Annotation]:
    found = rows(reader)
    assert len({row.image_id for row in found}) == len(found), "ids are unique"
    return {row.image_id: row for row in found}


def comparable(found: dict[str, Annotation], root: str) -> dict[str, Any]:
    """Without what may differ: the root, and the size, which CSV files do not tell."""

    def below_root(uri: str) -> str:
        for link in root.split("::"):
            uri = uri.replace(link, "", 1)
        return uri.strip(":")

    return {
        key: asdict(row) | {"size": None, "uri": below_root(row.uri)} for key, row in found.items()
    }


def test_a_layout_is_the_file_of_its_name() -> None:
    union, _ = get_args(AnyDataset)
    for section in get_args(union):
        (layout,) = get_args(section.model_fields["layout"].annotation)
        assert section.__module__ == f"sensloc.datasets.{layout}"


# ------------------------------------------------------------------------------- what is read


def test_imagenet_reads_boxes_of_the_images_class(tmp_path: Path) -> None:
    found = by_id(reader("imagenet", store(str(tmp_path), imagenet())))
    assert len(found) == 7
    first = found["n01_1"]
    assert first == Annotation(
        image_id="n01_1",
        uri=f"{tmp_path}/{DATA}/train/n01/n01_1.JPEG",
        wnid="n01",
        corners=[[0, 1, 50, 60], [5, 5, 20, 20]],
        convention="edges",
        source="imagenet/train",
        class_name="tench, Tinca tinca",
        size=(100, 80),
    )
    assert found["n01_3"].left_out == "no box"
    val = found["ILSVRC2012_val_1"]
    assert (val.wnid, val.corners, val.source) == ("n02", [[1, 2, 3, 4]], "imagenet/val")


def test_tiny_imagenet(tmp_path: Path) -> None:
    found = by_id(reader("tiny_imagenet", store(str(tmp_path), tiny())))
    assert Counter(row.source for row in found.values()) == {
        "tiny_imagenet/train": 6,
        "tiny_imagenet/val": 2,
    }
    assert found["n01_1"] == Annotation(
        image_id="n01_1",
        uri=f"{tmp_path}/train/n01/images/n01_1.JPEG",
        wnid="n01",
        corners=[[14, 2, 54, 49]],
        convention="inclusive_0",
        source="tiny_imagenet/train",
        class_name="tench",
    )
    assert found["n01_2"].left_out == "no box"
    assert (found["val_0"].wnid, found["val_0"].corners) == ("n02", [[0, 32, 44, 62]])


@pytest.mark.parametrize(
    ("layout", "size", "corners", "ids"),
    [
        ("voc", (100, 80), [[1, 1, 50, 50], [20, 20, 30, 30]], ("a", "b", "c")),
        ("coco", (100, 80), [[5, 5, 50, 50]], ("7", "8", "9")),
        ("label_studio", (100, 80), [[0.05, 0.05, 0.55, 0.55]], ("7", "8", "9")),
        ("table", None, [[0, 0, 50, 50], [1, 1, 9, 9]], ("a.jpg", "b.jpg", None)),
    ],
)
def test_an_image_has_the_class_of_its_largest_box(
    tmp_path: Path, layout: str, size: Any, corners: Any, ids: tuple[str, str, str | None]
) -> None:
    found = by_id(reader(layout, store(str(tmp_path), LAYOUTS[layout]())))
    several, single, without = ids
    image = found.pop(several)
    assert (image.wnid, image.corners, image.size) == ("cat", corners, size)
    assert found[single].wnid == "dog"
    assert found.pop(single).size is None
    assert [row.left_out for row in found.values()] == ["no box"] * (without is not None)


def test_what_cvat_exports_is_coco(tmp_path: Path) -> None:
    """As its COCO 1.0 has it, see also test_localizer.py."""
    exported = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": ""},
        "categories": [{"id": 1, "name": "dog", "supercategory": ""}],
        "images": [{"id": 1, "width": 100, "height": 80, "file_name": "sub/a.jpg", "license": 0,
                    "flickr_url": "", "coco_url": "", "date_captured": 0}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [],
                         "area": 12.0, "bbox": [1.5, 2.0, 3.0, 4.0], "iscrowd": 0,
                         "attributes": {"occluded": False, "rotation": 0.0}}],
    }  # fmt: skip
    files = {"annotations/instances_default.json": json.dumps(exported)}
    options = {"images": "photos", "annotations": "annotations/instances_default.json"}
    (row,) = rows(reader("coco", store(str(tmp_path), files), **options))
    assert (row.wnid, row.corners, row.error) == ("dog", [[1.5, 2, 3, 4]], None)
    assert row.uri == f"{tmp_path}/photos/sub/a.jpg"


@pytest.mark.parametrize(
    ("image", "uri"),
    [
        ("/data/local-files/?d=photos/a%20b%26.jpg", "/mnt/photos/a b&.jpg"),
        ("http://here:8080/data/local-files/?d=/photos/a.jpg", "/mnt/photos/a.jpg"),
        ("https://example.com/a.jpg?d=1", "https://example.com/a.jpg?d=1"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("/photos/a.jpg", "/photos/a.jpg"),
        ("photos/a.jpg", "{root}/photos/a.jpg"),
    ],
)
def test_where_label_studios_images_are(tmp_path: Path, image: str, uri: str) -> None:
    task = {"data": {"image": image}, "annotations": [annotated(rectangle("dog", 1, 2, 3, 4))]}
    root = store(str(tmp_path), {"project.json": json.dumps([task])})
    found = by_id(reader("label_studio", root, documents="/mnt"))
    assert found[image].uri == uri.format(root=root)
    assert found[image].error is None


def test_what_nobody_has_boxed_in_label_studio_is_left_out(tmp_path: Path) -> None:
    skipped = annotated(rectangle("dog", 1, 2, 3, 4), was_cancelled=True)
    files = label_studio(
        {"data": {"image": "d.jpg"}, "annotations": []},
        {"data": {"image": "e.jpg"}, "predictions": [annotated(rectangle("dog", 1, 2, 3, 4))]},
        {"data": {"image": "f.jpg"}, "annotations": [skipped]},
    )
    found = by_id(reader("label_studio", store(str(tmp_path), files)))
    assert {key: row.left_out for key, row in found.items()} == {
        "7": None, "8": None, "9": "no box",
        "d.jpg": "not annotated", "e.jpg": "not annotated", "f.jpg": "skipped",
    }  # fmt: skip


def test_of_two_images_of_one_stem_the_first_is_taken(tmp_path: Path) -> None:
    found = by_id(reader("voc", store(str(tmp_path), voc())))
    assert found["a"].uri == f"{tmp_path}/JPEGImages/a.jpg"


def test_largest_counts_whole_pixels(tmp_path: Path) -> None:
    """1 x 40 inclusive pixels are more than 5 x 5, though x1 - x0 is 0."""
    files = voc() | {"Annotations/a.xml": xml("cat 10 10 14 14", "dog 7 1 7 40")}
    assert by_id(reader("voc", store(str(tmp_path), files)))["a"].wnid == "dog"


@pytest.mark.parametrize("annotations", ["xml", "csv"])
def test_classes_without_images_are_one_row_each(tmp_path: Path, annotations: str) -> None:
    store(str(tmp_path), imagenet())
    (tmp_path / DATA / "train" / "n03").mkdir()
    (empty,) = (
        row for row in rows(reader("imagenet", tmp_path, annotations=annotations))
        if row.wnid == "n03"
    )  # fmt: skip
    assert (empty.image_id, empty.left_out, empty.error) == ("n03", "empty class", None)
    store(str(tmp_path / "t"), tiny())
    shutil.rmtree(tmp_path / "t" / "train" / "n01" / "images")
    (empty, *rest) = rows(reader("tiny_imagenet", tmp_path / "t", parts=["train"]))
    assert (empty.image_id, empty.left_out) == ("n01", "empty class")
    assert [row.wnid for row in rest] == ["n02"] * 3


# ------------------------------------------------------------------------------- real images


def test_xml_and_csv_agree_on_real_data(real_data: RealData) -> None:
    root = str(real_data("imagenet-mini"))
    from_xml, from_csv = (
        by_id(reader("imagenet", root, annotations=kind)) for kind in ("xml", "csv")
    )
    assert len(from_xml) == 2299
    assert comparable(from_xml, root) == comparable(from_csv, root)
    assert not any(row.error or row.left_out for row in from_xml.values())
    assert all(os.path.isfile(row.uri) and row.class_name for row in from_xml.values())


def test_tiny_imagenet_on_real_data(real_data: RealData) -> None:
    found = by_id(reader("tiny_imagenet", real_data("tiny-imagenet-100")))
    assert len(found) == 30_000
    assert not any(row.error or row.left_out for row in found.values())
    train = Counter(row.wnid for row in found.values() if row.source == "tiny_imagenet/train")
    assert sorted(set(train.values())) == [250]
    assert len(train) == 100
    assert all(os.path.isfile(row.uri) for row in found.values())


# ------------------------------------------------------------------------------- any root


@pytest.fixture
def s3_root(bucket: str) -> str:
    """An empty place in a bucket, with a folder marker as consoles write them."""
    fsspec.filesystem("s3").pipe_file(f"{bucket}/{DATA}/train/", b"")
    return bucket


def root_with(kind: str, files: Files, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The files in a store of one kind: its URL."""
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path, content in files.items():
                archive.writestr(f"set/{path}", content)
        return f"zip://set::{tmp_path}/set.zip"
    if kind == "cached":
        return "simplecache::" + store(f"memory:/{tmp_path}", files)
    roots = {"local": str(tmp_path / "set"), "memory": f"memory:/{tmp_path}"}
    return store(roots.get(kind) or request.getfixturevalue(f"{kind}_root"), files)


@pytest.mark.parametrize("kind", ["memory", "zip", "cached", "s3"])
@pytest.mark.parametrize("layout", ["imagenet", "imagenet csv", "tiny_imagenet", "voc", "table"])
def test_any_root_gives_the_same_rows(
    layout: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    layout, _, annotations = layout.partition(" ")
    options = {"annotations": annotations} if annotations else {}
    files = LAYOUTS[layout]()
    local = root_with("local", files, request, tmp_path)
    other = root_with(kind, files, request, tmp_path)
    expected, found = (by_id(reader(layout, root, **options)) for root in (local, other))
    assert comparable(found, other) == comparable(expected, local)
    if layout == "imagenet":
        for row in found.values():
            with fsspec.open(row.uri) as image:
                assert image.read() == b""


def test_a_listing_is_never_an_old_one(s3_root: str) -> None:
    """Someone else adds an image between two runs of one session."""
    import s3fs

    store(s3_root, voc())
    assert "d" not in by_id(reader("voc", s3_root))
    s3fs.S3FileSystem(skip_instance_cache=True).pipe_file(f"{s3_root}/JPEGImages/d.jpg", b"")
    assert by_id(reader("voc", s3_root))["d"].left_out == "no box"


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    assert Tree(store(str(tmp_path), {"a.jpg": b""})).files("a.jpg", (".jpg",)) == []


def test_links_are_followed(tmp_path: Path) -> None:
    """Subsets of a data set are often folders of links."""
    store(str(tmp_path / "whole"), imagenet())
    store(str(tmp_path / "part"), {"LOC_synset_mapping.txt": "n01 tench\nn02 goldfish\n"})
    for top in (DATA, XML):
        train = tmp_path / "part" / top / "train"
        train.mkdir(parents=True)
        (train / "n02").symlink_to(tmp_path / "whole" / top / "train" / "n02")
        (train / "n01").mkdir()
        for file in (tmp_path / "whole" / top / "train" / "n01").glob("n01_1.*"):
            (train / "n01" / file.name).symlink_to(file)
        (train / "n01" / f"n01_9.{'JPEG' if top == DATA else 'xml'}").symlink_to("nowhere")
    found = by_id(reader("imagenet", tmp_path / "part", parts=["train"]))
    assert [key for key, row in found.items() if not row.error] == ["n01_1", "n02_5"]


# ------------------------------------------------------------------------------- units


def test_xml_and_csv_agree_whatever_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = store(str(tmp_path), imagenet())
    chunked = ImageNet(layout="imagenet", root=root)
    expected = comparable(by_id(chunked), root)
    monkeypatch.setattr(ImageNet, "names_per_unit", 2)
    assert [len(unit["images"]) for unit in chunked.units() if unit["part"] == "val"] == [2, 1]
    assert comparable(by_id(chunked), root) == expected
    ranged = chunked.model_copy(update={"annotations": "csv"})
    monkeypatch.setattr(ImageNet, "folders_per_unit", 1)
    size = os.path.getsize(tmp_path / "LOC_train_solution.csv")
    for length in range(1, size + 2):
        monkeypatch.setattr(ImageNet, "bytes_per_unit", length)
        found = [row for unit in ranged.units() for row in ranged.read(unit)]
        assert len(found) == len(expected)
        assert comparable({row.image_id: row for row in found}, root) == expected


def test_a_large_listing_is_chunked(tmp_path: Path) -> None:
    files: Files = {f"JPEGImages/{i:04}.jpg": b"" for i in range(2500)}
    store(f"memory:/{tmp_path}", files | {"Annotations/0000.xml": xml("dog 1 1 2 2")})
    units = Voc(layout="voc", root=f"memory:/{tmp_path}").units()
    assert [len(unit["images"]) for unit in units] == [1000, 1000, 500]


# ------------------------------------------------------------------------------- the class filter


@pytest.mark.parametrize(
    ("layout", "options", "keep", "ids"),
    [
        ("imagenet", {}, "n02", "n02_5 ILSVRC2012_val_1"),
        ("imagenet", {"annotations": "csv"}, "n02", "n02_5 ILSVRC2012_val_1"),
        ("tiny_imagenet", {}, "n02", "n02_0 n02_1 n02_2 val_0"),
        ("voc", {}, "cat", "a c"),
        ("coco", {}, "cat", "7 9"),
        ("label_studio", {}, "cat", "7 9"),
        ("table", {}, "cat", "a.jpg"),
    ],
)
def test_only_classes(
    tmp_path: Path, layout: str, options: dict[str, str], keep: str, ids: str
) -> None:
    """The classes of the file are kept, and so is an image of which no class is known."""
    root = store(str(tmp_path / "set"), LAYOUTS[layout]())
    chosen = tmp_path / "classes.txt"
    options |= {"only_classes": str(chosen)}
    chosen.write_text(f"{keep} with a name\n\n")
    assert sorted(by_id(reader(layout, root, **options))) == sorted(ids.split())

    chosen.write_text(f"{keep}\nunicorn\n")
    if layout != "voc":  # whose classes nobody knows before reading
        with pytest.raises(DatasetError, match="names unicorn: not in"):
            rows(reader(layout, root, **options))
    chosen.write_text("\n")
    with pytest.raises(DatasetError, match=r"classes\.txt: names no class"):
        rows(reader(layout, root, **options))
    chosen.unlink()
    with pytest.raises(DatasetError, match=r"classes\.txt: no such file; dataset\.only_classes"):
        rows(reader(layout, root, **options))


def test_a_filtered_train_class_needs_its_folder(tmp_path: Path) -> None:
    files = imagenet() | {"LOC_synset_mapping.txt": "n01 tench\nn02 goldfish\nn03 shark\n"}
    root = store(str(tmp_path), files | {"classes.txt": "n03"})
    with pytest.raises(DatasetError, match=f"names n03: not in {root}/{DATA}/train"):
        reader("imagenet", root, parts=["train"], only_classes=f"{root}/classes.txt").units()


# ------------------------------------------------------------------------------- bad input

BOMB = '<!DOCTYPE b [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>'
NO_BOX = "<annotation><object><name>n01</name></object></annotation>"
NO_NAME = "<annotation><object><bndbox/></object></annotation>"
BAD_XML = [
    ("not xml", "not a readable XML file"),
    ("", "not a readable XML file"),
    ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not a readable XML file"),
    (xml("n01 1 2 3 4")[:-5], "not a readable XML file"),
    ("<html/>", "the root element is <html>"),
    (BOMB, "not a readable XML file: EntitiesForbidden"),
    (NO_BOX, "without a <bndbox>"),
    (NO_NAME, "without a <name>"),
    (xml("n01 1 2 x 4"), "<xmax> of an <object> (n01): 'x' is not a number"),
    (xml("n01 1 nan 3 4"), "'nan' is not finite"),
    (xml("n01 1 2 3 -inf"), "'-inf' is not finite"),
    (xml("n01 1 2 3 4").replace("<ymax>4</ymax>", ""), "<ymax> of an <object> (n01): None"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_XML)
@pytest.mark.parametrize(
    ("layout", "file", "image_id"),
    [
        ("imagenet", f"{XML}/train/n01/n01_2.xml", "n01_2"),
        ("imagenet", f"{XML}/val/ILSVRC2012_val_2.xml", "ILSVRC2012_val_2"),
        ("voc", "Annotations/b.xml", "b"),
    ],
)
def test_a_bad_xml_file_is_one_row(
    tmp_path: Path, layout: str, file: str, image_id: str, content: str, reason: str
) -> None:
    good = by_id(reader(layout, store(str(tmp_path), LAYOUTS[layout]())))
    bad = by_id(reader(layout, store(str(tmp_path), {file: content})))
    row = bad.pop(image_id)
    assert row.error is not None
    assert row.error.startswith(f"{file}: ")
    assert reason in row.error
    assert (row.corners, row.left_out) == ([], None)
    good.pop(image_id)
    assert bad == good


@pytest.mark.parametrize(
    ("path", "content", "image_id", "reason"),
    [
        (f"{XML}/train/n01/n01_2.xml", xml("n02 1 2 3 4"), "n01_2", "no object of the class n01"),
        (f"{XML}/train/n01/n01_2.xml", xml(), "n01_2", "no object of the class n01"),
        (f"{XML}/val/ILSVRC2012_val_2.xml", xml(), "ILSVRC2012_val_2", "no object"),
        (f"{XML}/val/ILSVRC2012_val_2.xml", xml("n09 1 2 3 4"), "ILSVRC2012_val_2",
         "the class n09 is not in LOC_synset_mapping.txt"),
        (f"{XML}/train/n01/n01_8.xml", xml("n01 1 2 3 4"), "n01_8",
         f"no image {DATA}/train/n01/n01_8.*"),
        (f"{XML}/train/n03/n03_1.xml", xml("n03 1 2 3 4"), "n03_1",
         f"no image {DATA}/train/n03/n03_1.*"),
    ],
)  # fmt: skip
def test_an_xml_file_that_does_not_fit_is_one_row(
    tmp_path: Path, path: str, content: str, image_id: str, reason: str
) -> None:
    found = by_id(reader("imagenet", store(str(tmp_path), imagenet() | {path: content})))
    assert {key: row.error for key, row in found.items() if row.error} == {
        image_id: f"{path}: {reason}"
    }


def test_tiny_imagenet_without_a_file_of_boxes(tmp_path: Path) -> None:
    """The class's images are errors, not images without boxes."""
    files = tiny()
    del files["train/n01/n01_boxes.txt"]
    found = by_id(reader("tiny_imagenet", store(str(tmp_path), files)))
    wrong = {key for key, row in found.items() if "n01_boxes.txt: no such" in (row.error or "")}
    assert wrong == {"n01_0", "n01_1", "n01_2"}


def test_table_places_and_ids(tmp_path: Path) -> None:
    """Absolute paths and URLs are taken as they are; an id has one place."""
    lines = ["1,s3://b/x.jpg", "2,/x/y.jpg", "3,sub/z.jpg", "4,a.jpg", "4,b.jpg"]
    text = "\n".join(["image_id,uri,label,x0,y0,x1,y1", *(f"{line},dog,1,2,3,4" for line in lines)])
    root = store(str(tmp_path), {"boxes.csv": text})
    found = by_id(reader("table", root, convention="xywh"))
    assert {row.convention for row in found.values()} == {"xywh"}
    assert [found[key].uri for key in "123"] == ["s3://b/x.jpg", "/x/y.jpg", f"{root}/sub/z.jpg"]
    assert "image_id 4 has two uris" in str(found["4"].error)


def test_parquet_gives_the_same_as_csv(tmp_path: Path) -> None:
    root = store(str(tmp_path), table())
    columns = list(csv.DictReader(io.StringIO(str(table()["boxes.csv"]))))
    typed = [
        {key: value if key in ("uri", "label") else float(value) for key, value in row.items()}
        for row in columns
    ]
    pq.write_table(pa.Table.from_pylist(typed), tmp_path / "boxes.parquet")
    assert rows(reader("table", root, file="boxes.parquet")) == rows(reader("table", root))


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_missing_root(
    layout: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = f"{root_with(kind, {'x': b''}, request, tmp_path)}/nowhere"
    with pytest.raises(DatasetError, match=f"^{root}: no such folder; set dataset.root or --data"):
        reader(layout, root).units()


@pytest.mark.parametrize(
    ("layout", "options", "path"),
    [
        ("imagenet", {}, "LOC_synset_mapping.txt"),
        ("imagenet", {}, f"{DATA}/train"),
        ("imagenet", {}, f"{DATA}/val"),
        ("imagenet", {}, f"{XML}/train"),
        ("imagenet", {}, f"{XML}/val"),
        ("imagenet", {"annotations": "csv"}, "LOC_train_solution.csv"),
        ("imagenet", {"annotations": "csv"}, "LOC_val_solution.csv"),
        ("tiny_imagenet", {}, "wnids.txt"),
        ("tiny_imagenet", {}, "words.txt"),
        ("tiny_imagenet", {}, "train"),
        ("tiny_imagenet", {}, "val/val_annotations.txt"),
        ("voc", {}, "JPEGImages"),
        ("voc", {}, "Annotations"),
        ("coco", {}, "annotations.json"),
        ("label_studio", {}, "project.json"),
        ("table", {}, "boxes.csv"),
    ],
)
def test_a_missing_part(tmp_path: Path, layout: str, options: dict[str, str], path: str) -> None:
    files = {name: text for name, text in LAYOUTS[layout]().items() if not name.startswith(path)}
    root = store(str(tmp_path), files or {"other": b""})
    with pytest.raises(DatasetError, match=rf"^{root}/{path}: no such .*dataset\.root or --data"):
        reader(layout, root, **options).units()


def test_an_unknown_protocol(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere://set"):
        reader("voc", "nowhere://set").units()


@pytest.mark.parametrize("path", ["a.jpg", "a/b.jpg", "a..b/c", "a b/(1).jpg", "a:1.jpg"])
def test_inside_lets_paths_below_the_folder_through(path: str) -> None:
    assert inside(path) == path


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "..", "a/../b", "a/..", "..\\a", "\\a", "s3://b/x", "a::zip://b"]
)
def test_inside_refuses_paths_that_leave(path: str) -> None:
    with pytest.raises(ValueError, match="is not inside"):
        inside(path)
