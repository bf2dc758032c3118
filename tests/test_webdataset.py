"""Laws of the tar shards: what is packed comes back, and no damage costs a neighbour."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import fsspec.core
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sensloc.config import Config
from sensloc.datasets import Annotation
from sensloc.datasets.webdataset import WebDataset
from sensloc.errors import DatasetError
from sensloc.images.fetch import fetch
from sensloc.stages import pack as packing
from sensloc.stages.manifest import manifest
from sensloc.stages.pack import pack
from sensloc.store.run import RunDir

Members = list[tuple[str, bytes]]


def tar(members: Members, kind: int = tarfile.PAX_FORMAT, **header: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in header.items():
                setattr(info, key, value)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def note(wnid: str = "n01", **more: Any) -> bytes:
    return json.dumps({"wnid": wnid, "boxes": [[1, 2, 3, 4.5]], **more}).encode()


def sample(i: int, size: int = 700) -> Members:
    return [(f"n01_{i}.jpg", bytes([i]) * size), (f"n01_{i}.json", note())]


def reader(root: object, **options: Any) -> WebDataset:
    return WebDataset(layout="webdataset", root=str(root), **options)


def read(root: object, **options: Any) -> list[Annotation]:
    made = reader(root, **options)
    units = made.units()
    assert json.loads(json.dumps(units)) == units, "units are plain values"
    return [row for unit in units for row in made.read(unit)]


def one_shard(folder: Path, data: bytes) -> dict[str, Annotation]:
    """The rows of a folder with this shard, by image id."""
    (folder / "a.tar").write_bytes(data)
    rows = read(folder)
    assert len({row.image_id for row in rows}) == len(rows), "ids are unique"
    return {row.image_id: row for row in rows}


# --------------------------------------------------------------------------- what is read

XML = b"""<annotation><size><width>100</width><height>80</height></size>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>
</object><object><name>cat</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>50</xmax><ymax>50</ymax>
</bndbox></object></annotation>"""


def test_a_sample_is_an_image_and_its_annotation(tmp_path: Path) -> None:
    members: Members = [
        ("train/n01_1.json", note(class_name="tench", width=100, height=80)),
        ("train/n01_1.JPEG", b"first"),
        ("train/n01_1.cls", b"7"),
        ("n01_2.xml", XML),
        ("n01_2.png", b"second one"),
        (
            "n01_3.json",
            b'{"label": 3, "boxes": [[0, 0, 0.5, 1], [0, 0, 1, 1]], "convention": "unit",'
            b'"source": "imagenet/val", "image_id": "other"}',
        ),
        ("n01_3.webp", b"third"),
        ("n01_4.jpg", b"nobody looked at it"),
        ("n01_5.jpg", b"nothing on it"),
        ("n01_5.json", b'{"boxes": []}'),
        (".hidden.jpg", b""),
        ("LICENSE", b"of all"),
    ]
    (tmp_path / "a.tar").write_bytes(tar(members))
    rows = read(tmp_path)
    contents = fetch([row.uri for row in rows])
    assert contents == [data for name, data in members if name[-3:] in ("PEG", "png", "ebp")] + [
        b"nobody looked at it",
        b"nothing on it",
    ]
    assert all(row.uri.startswith(f"{tmp_path}/a.tar#") for row in rows)
    plain = [replace(row, uri="") for row in rows]
    assert plain == [
        Annotation(
            "train/n01_1", "", "n01", [[1, 2, 3, 4.5]], "edges", "webdataset", "tench", (100, 80)
        ),
        Annotation("n01_2", "", "cat", [[0, 0, 50, 50]], "edges", "webdataset", size=(100, 80)),
        Annotation("other", "", "3", [[0, 0, 0.5, 1], [0, 0, 1, 1]], "unit", "imagenet/val"),
        Annotation("n01_4", "", "", source="webdataset", left_out="no box"),
        Annotation("n01_5", "", "", source="webdataset", left_out="no box"),
    ]
    inclusive = read(tmp_path, convention="inclusive_1")
    conventions = [row.convention for row in inclusive]
    assert conventions == ["inclusive_1", "inclusive_1", "unit", "edges", "inclusive_1"]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_and_any_root_gives_the_same_rows(tmp_path: Path, kind: int) -> None:
    members = [
        pair
        for i in range(40)
        for pair in (
            (f"{'long/' * 25}{i}.jpg", b"x" * i * 999),
            (f"{'long/' * 25}{i}.json", note()),
        )
    ]
    roots = [str(tmp_path), f"memory:/{tmp_path}"]
    found = []
    for root in roots:
        with fsspec.open(f"{root}/part/b.tar", "wb", auto_mkdir=True) as file:
            file.write(tar(members, kind))
        rows = read(root, shards="part/*.tar")
        assert fetch([row.uri for row in rows]) == [data for _, data in members[::2]]
        found.append([replace(row, uri=row.uri.removeprefix(root)) for row in rows])
    assert found[0] == found[1]
    assert [row.image_id for row in found[0]] == [f"{'long/' * 25}{i}" for i in range(40)]


def test_shards_are_units_in_order_and_the_class_filter_holds(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "notes.txt"):
        (tmp_path / name).write_bytes(
            tar([(f"{name[0]}.jpg", b"1"), (f"{name[0]}.json", note(wnid=f"n0{name[0]}"))])
        )
    only = tmp_path / "only.txt"
    only.write_text("n0b b\n")
    assert [unit["shard"] for unit in reader(tmp_path).units()] == ["a.tar", "b.tar"]
    assert [row.image_id for row in read(tmp_path)] == ["a", "b"]
    assert [row.image_id for row in read(tmp_path, only_classes=str(only))] == ["b"]
    assert [row.image_id for row in read(tmp_path, shards="a*")] == ["a"]


@pytest.mark.parametrize(
    ("names", "pattern", "reason"),
    [
        ([], "*.tar", "no such folder, or no file in it that ends in .tar"),
        (["a.tar.gz"], "*.tar", "a.tar.gz is compressed"),
        (["a.tar", "b.tgz"], "*", "b.tgz is compressed"),
        (["a.tar"], "train-*.tar", r"no name matches dataset.shards, 'train-\*.tar': a.tar"),
        (["A.TAR"], "*", "A.TAR: the name of a shard must end in .tar"),
    ],
)
def test_what_cannot_be_read_by_range_is_refused(
    tmp_path: Path, names: list[str], pattern: str, reason: str
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DatasetError, match=reason):
        reader(tmp_path, shards=pattern).units()


# --------------------------------------------------------------------------- what is wrong

BAD: dict[str, tuple[Members, str, str]] = {
    "no image": ([("x.json", note())], "x", "no image in this sample"),
    "two images": ([("x.jpg", b"1"), ("x.png", b"2")], "x", "more than one image: .jpg, .png"),
    "two of a name": ([("x.jpg", b"1"), ("x.JPG", b"2")], "x", "two files .jpg"),
    "two annotations": ([("x.json", note()), ("x.jpg", b"1"), ("x.xml", XML)], "x", "two annotat"),
    "broken XML": ([("x.jpg", b"1"), ("x.xml", XML[:90])], "x", ".xml: not a readable XML file"),
    "other XML": ([("x.jpg", b"1"), ("x.xml", b"<html/>")], "x", ".xml: the root element is"),
    "broken JSON": ([("x.jpg", b"1"), ("x.json", note()[:9])], "x", ".json: not a JSON file"),
    "deep JSON": ([("x.jpg", b"1"), ("x.json", b"[" * 99999)], "x", ".json: not a JSON file"),
    "a JSON list": ([("x.jpg", b"1"), ("x.json", b"[]")], "x", "a JSON list, not an object"),
    "no boxes": ([("x.jpg", b"1"), ("x.json", b'{"wnid": "n01"}')], "x", "has no list of boxes"),
    "no class": ([("x.jpg", b"1"), ("x.json", b'{"boxes": [[0,0,1,1]]}')], "x", "boxes and no wn"),
    "three corners": ([("x.jpg", b"1"), ("x.json", note(boxes=[[1, 2, 3]]))], "x", "not a list of"),
    "a text": ([("x.jpg", b"1"), ("x.json", note(boxes=[[1, 2, 3, "w"]]))], "x", "not a number"),
    "not finite": (
        [("x.jpg", b"1"), ("x.json", note(boxes=[[1, 2, 3, 1e999]]))],
        "x",
        "not finite",
    ),
    "a list of names": ([("x.jpg", b"1"), ("x.json", note(wnid=["n"]))], "x", "is not a text"),
    "not UTF-8": ([("x.jpg", b"1"), ("x.json", note(source="\ud800"))], "x", "is not UTF-8"),
    "convention": ([("x.jpg", b"1"), ("x.json", note(convention="voc"))], "x", "'voc' is unknown"),
    "a huge image": (
        [("x.jpg", b"1"), ("x.json", note(width=2**40, height=2))],
        "x",
        "its size is",
    ),
    "climbs": ([("../x.jpg", b"1")], "a.tar#2048", "is not inside the data set's folder"),
    "climbs later": ([("y/../../x.jpg", b"1")], "a.tar#2048", "is not inside"),
    "absolute": ([("/etc/x.jpg", b"1")], "a.tar#2048", "is not inside the data set's folder"),
    "apart": ([*sample(8), ("n01_0.png", b"1")], "a.tar#4608", "must stand next to each other"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_sample_is_an_error_under_its_name_and_its_neighbours_are_read(
    tmp_path: Path, name: str
) -> None:
    members, key, reason = BAD[name]
    found = one_shard(tmp_path, tar([*sample(0, 500), *members, *sample(1)]))
    errors = {image_id: row.error for image_id, row in found.items() if row.error}
    assert errors.keys() == {key}
    assert reason in errors[key]
    assert errors[key].startswith("a.tar: ")
    assert {"n01_0", "n01_1"} <= found.keys() - errors.keys()
    for row in found.values():
        json.dumps(asdict(row)).encode()  # any table can hold it


@pytest.mark.parametrize(
    "header",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "n01_0.jpg", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
    ],
)
def test_a_link_or_a_device_is_an_error(tmp_path: Path, header: dict[str, Any]) -> None:
    end = bytes(10240)
    odd = tar([("n01_5.jpg", b"")], **header)[:512]
    found = one_shard(tmp_path, tar(sample(0))[:2560] + odd + tar(sample(1))[:2560] + end)
    assert found["n01_5"].error == "a.tar: n01_5: .jpg is a link or a sparse file"
    assert [image_id for image_id, row in found.items() if not row.error] == ["n01_0", "n01_1"]


NO_TAR = {
    "empty": b"",
    "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 100,
    "gzip": gzip.compress(tar(sample(0))),
    "a header of nothing": b"x" * 10240,
}


@pytest.mark.parametrize("name", NO_TAR)
def test_a_shard_that_is_no_tar_is_one_error(tmp_path: Path, name: str) -> None:
    found = one_shard(tmp_path, NO_TAR[name])
    assert found.keys() == {"a.tar"}
    assert "a.tar: a.tar: not a tar file" in str(found["a.tar"].error)
    assert found["a.tar"].uri == f"{tmp_path}/a.tar"


@pytest.mark.parametrize("data", [bytes(1 << 20), tar([("README", b"x")])])
def test_a_shard_without_a_sample_is_an_error(tmp_path: Path, data: bytes) -> None:
    """A download that stopped may leave zeros, which are an empty tar file."""
    assert "holds no sample" in str(one_shard(tmp_path, data)["a.tar"].error)


WHOLE = tar([member for i in range(4) for member in sample(i)])
ENDS = [512 + 1024 + 512 + len(note()) + 2560 * i for i in range(4)]
"""Where the last byte of each sample's annotation is."""


@pytest.mark.parametrize("cut", [*range(100, 10240, 171), *ENDS, *(end - 1 for end in ENDS)])
def test_what_stands_before_a_break_is_kept_and_the_break_is_said(tmp_path: Path, cut: int) -> None:
    found = one_shard(tmp_path, WHOLE[:cut])
    good = [image_id for image_id, row in found.items() if not row.error and not row.left_out]
    assert good == [f"n01_{i}" for i in range(4) if cut >= ENDS[i]]
    assert not [image_id for image_id, row in found.items() if row.left_out]
    contents = fetch([found[image_id].uri for image_id in good])
    assert contents == [bytes([i]) * 700 for i in range(len(good))]
    assert found["a.tar"].error


@pytest.mark.parametrize("place", range(4))
def test_a_damaged_header_is_no_end(tmp_path: Path, place: int) -> None:
    """Python's own reader stops there as if there were no more."""
    data = bytearray(WHOLE)
    data[2560 * place + 150] ^= 0xFF  # in the checksum
    found = one_shard(tmp_path, bytes(data))
    assert [image_id for image_id, row in found.items() if not row.error] == [
        f"n01_{i}" for i in range(place)
    ]
    assert found["a.tar"].error


def test_tars_that_were_joined_are_an_error(tmp_path: Path) -> None:
    found = one_shard(tmp_path, tar(sample(0)) + tar(sample(1)))
    assert not found["n01_0"].error
    assert "no header and no end of an archive" in str(found["a.tar"].error)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)),
        min_size=1,
        max_size=4,
    ),
    kind=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_no_damage_raises_or_reads_past_the_end(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], kind: int
) -> None:
    long = [(f"{'d' * 150}/{i}.{suffix}", note()) for i in range(2) for suffix in ("jpg", "json")]
    data = bytearray(tar([*long, *sample(0)], kind))
    for place, new in edits:
        at = place % len(data)
        data[at : at + len(new)] = new[: len(data) - at]
    folder = tmp_path_factory.mktemp("damaged")
    found = one_shard(folder, bytes(data))
    for row in found.values():
        json.dumps(asdict(row)).encode()
        if row.error is None:
            (content,) = fetch([row.uri])
            assert isinstance(content, bytes)


# --------------------------------------------------------------------------- packing


def imagenet(root: Path, seed: int = 0) -> Path:
    """Three classes of eight photographs; one is broken, one is lost, one has broken XML."""
    draw = random.Random(seed)
    data, xml = (root / "ILSVRC" / part / "CLS-LOC/train" for part in ("Data", "Annotations"))
    names = ["n01440764 tench, Tinca tinca", "n01443537 goldfish", "n01484850 great white shark"]
    for line in names:
        wnid = line.split()[0]
        (data / wnid).mkdir(parents=True)
        (xml / wnid).mkdir(parents=True)
        for i in range(8):
            size = (40 + i, 30)
            pixels = bytes(draw.randrange(256) for _ in range(3 * size[0] * size[1]))
            image = Image.frombytes("RGB", size, pixels)
            image.save(data / wnid / f"{wnid}_{i}.JPEG")
            if i == 7:
                continue  # no annotation: left out
            (xml / wnid / f"{wnid}_{i}.xml").write_text(
                f"<annotation><size><width>{size[0]}</width><height>30</height></size>"
                f"<object><name>{wnid}</name><bndbox><xmin>{i}.5</xmin><ymin>2</ymin>"
                "<xmax>30</xmax><ymax>29</ymax></bndbox></object></annotation>"
            )
    (root / "LOC_synset_mapping.txt").write_text("\n".join(names) + "\n")
    return root


def config(root: Path, output: Path, layout: str = "imagenet") -> Config:
    return Config.model_validate(
        {
            "name": "packed",
            "output": str(output),
            "dataset": {"layout": layout, "root": str(root)}
            | ({"parts": ["train"]} if layout == "imagenet" else {}),
            "classifier": {"source": "torchvision", "name": "resnet18"},
            "resources": {"rows_per_block": 10},
        }
    )


def shards_of(folder: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.glob("*.tar")
    }


def table(run: RunDir) -> pa.Table:
    rows = pa.concat_tables([pq.read_table(file) for file in run.files("manifest")])
    return rows.sort_by("image_id").drop_columns(["uri"]).replace_schema_metadata(None)


@pytest.fixture(scope="module")
def packed(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunDir]:
    """A small ILSVRC with a few faults, and its shards of five images."""
    root = imagenet(tmp_path_factory.mktemp("imagenet"))
    train = root / "ILSVRC/Data/CLS-LOC/train/n01443537"
    (train / "n01443537_1.JPEG").write_bytes((train / "n01443537_1.JPEG").read_bytes()[:100])
    (train / "n01443537_2.JPEG").unlink()
    broken = root / "ILSVRC/Annotations/CLS-LOC/train/n01443537/n01443537_3.xml"
    broken.write_text("<annotation>")
    run = RunDir.open(config(root, tmp_path_factory.mktemp("packed") / "shards"))
    assert pack(run, images_per_shard=5) == "19 images in 5 shards, 2 errors"
    return root, run


def test_rows_from_shards_equal_rows_from_files(packed: tuple[Path, RunDir]) -> None:
    run = packed[1]
    files = run.config.dataset
    there = {r.image_id: r for unit in files.units() for r in files.read(unit) if not r.left_out}
    here = {row.image_id: row for row in read(run.url)}
    assert here.keys() == there.keys()
    for image_id, row in here.items():
        if row.error:
            assert not there[image_id].error or row.error == there[image_id].error
        else:
            assert replace(row, uri="") == replace(there[image_id], uri="")
            (data,) = fetch([row.uri])
            assert data == Path(there[image_id].uri).read_bytes()
    assert len(fetch([row.uri for row in here.values()])) == 21


def test_a_run_on_shards_gives_the_tables_of_a_run_on_files(
    packed: tuple[Path, RunDir], tmp_path: Path
) -> None:
    root, run = packed
    runs = [
        RunDir.open(config(root, tmp_path / "files")),
        RunDir.open(config(Path(run.url), tmp_path / "shards", "webdataset")),
    ]
    for each in runs:
        manifest(each)
    whole, shards = map(table, runs)
    errors = [row["image_id"] for row in whole.to_pylist() if row["error"]]
    assert errors == [f"n01443537_{i}" for i in (1, 2, 3)]
    assert [row["image_id"] for row in shards.to_pylist() if row["error"]] == errors
    assert shards.drop_columns(["error"]).equals(whole.drop_columns(["error"]))
    audits = [json.loads(each.read("audit.json")) for each in runs]
    for name in ("images", "classes", "images_hash", "splits", "errors", "duplicates"):
        assert audits[0][name] == audits[1][name]


def test_the_index_says_where_each_image_is(packed: tuple[Path, RunDir]) -> None:
    root, run = packed
    rows = pa.concat_tables([pq.read_table(file) for file in run.files("packed")]).to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows) == 21
    where = {row.image_id: Path(row.uri.partition("#")[0]).name for row in read(run.url)}
    assert {row["image_id"]: row["shard"] for row in rows} == where
    assert sorted(row["image_id"] for row in rows if row["error"]) == ["n01443537_2", "n01443537_3"]
    assert {Path(row["uri"]).parent.parent for row in rows} == {root / "ILSVRC/Data/CLS-LOC/train"}


def test_shards_are_equal_byte_by_byte_and_what_is_there_is_not_made_again(
    packed: tuple[Path, RunDir], tmp_path: Path
) -> None:
    root, run = packed
    again = RunDir.open(config(root, tmp_path / "again"))
    folder = Path(again.url)
    pack(again, images_per_shard=5)
    assert shards_of(folder) == shards_of(Path(run.url))
    record = again.facts()  # as if the job had died in the third shard
    del record["stages"]["pack"]["finished"]
    again.write("run.json", json.dumps(record))
    Path(again.files("packed")[2]).unlink()
    names = sorted(shards_of(folder))
    (folder / names[2]).write_bytes(b"half of i")
    before = {name: (folder / name).stat().st_mtime_ns for name in names}
    assert pack(again, images_per_shard=9) == "19 images in 5 shards, 2 errors"
    after = {name: (folder / name).stat().st_mtime_ns for name in names}
    assert [name for name in names if after[name] != before[name]] == [names[2]]
    assert shards_of(folder) == shards_of(Path(run.url))
    pack(again)
    assert {name: (folder / name).stat().st_mtime_ns for name in names} == after


def test_large_images_fill_severaltars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one unit: so that its memory is bounded."""
    monkeypatch.setattr(packing, "SHARD_BYTES", 5000)
    rows = [{"image_id": f"a/b.{i}", "uri": f"{i}.PNG", "error": None} for i in range(7)]
    more = {"wnid": "n", "class_name": "", "source": "", "corners": [[0, 0, 1, 1]]}
    filled = [row | more | {"convention": "unit", "size": None} for row in rows]
    made = list(packing.tars(iter((row, bytes(1500)) for row in filled)))
    assert [len(of_tar) for _, of_tar in made] == [2, 2, 2, 1]
    for i, (data, _) in enumerate(made):
        (tmp_path / f"{i}.tar").write_bytes(data)
    found = read(tmp_path)
    assert [row.image_id for row in found] == [row["image_id"] for row in rows]
    assert [len(data) for data in fetch([row.uri for row in found])] == [1500] * 7


RealData = Callable[[str], Path]


def test_the_notes_and_images_of_real_photographs_come_back(real_data: RealData) -> None:
    """Names, boxes and bytes of a class of ILSVRC, through the writer and the reader alone."""
    files = config(real_data("imagenet-mini"), Path("unused")).dataset
    rows = [row for row in files.read(files.units()[0]) if not row.left_out][:20]
    contents = [Path(row.uri).read_bytes() for row in rows]
    ((data, _),) = packing.tars(iter(zip(map(asdict, rows), contents, strict=True)))
    url = f"memory://real/{len(data)}.tar"
    with fsspec.open(url, "wb") as file:
        file.write(data)
    found = read("memory://real")
    assert [replace(row, uri="") for row in found] == [replace(row, uri="") for row in rows]
    assert fetch([row.uri for row in found]) == contents
