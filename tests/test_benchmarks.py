"""The benchmarks: the rehearsal's files are real, what is measured is there, the table adds up."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from conftest import ROOT, small_config
from PIL import Image

from benchmarks import decode, fit, gpu, gradient, parts, pipeline, review, since
from benchmarks.foreground import tried
from benchmarks.latency import first_files, measure, text
from benchmarks.passes import counted
from benchmarks.scale import RehearsalError, make_dataset, tiny_network
from benchmarks.scale.figures import Figure, figures, line, markdown, table
from benchmarks.scale.measure import SAMPLES, Job, run_job, sampled, together
from benchmarks.storage import storage
from benchmarks.turns import apart, in_turn
from sensloc.boxes import unit_boxes
from sensloc.config import load_config
from sensloc.datasets import Annotation
from sensloc.datasets.imagenet import ImageNet
from sensloc.datasets.label_studio import LabelStudio
from sensloc.datasets.tiny_imagenet import TinyImageNet
from sensloc.errors import DatasetError
from sensloc.images.inspection import inspect
from sensloc.prediction.localizer import Localizer
from sensloc.stages.views.diff import diff
from sensloc.store.run import RunDir

WNIDS = ("n01443537", "n01629819", "n01641577")

# --------------------------------------------------------------------------- the data set


def tiny(root: Path) -> str:
    """Tiny ImageNet with three classes: nine train images and two of val, no two alike."""
    rng = np.random.default_rng(0)

    def draw(file: Path, mode: str = "RGB", size: tuple[int, int] = (64, 64)) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        Image.fromarray(rng.integers(0, 255, shape, np.uint8), mode).save(file, "JPEG")

    for wnid, count in zip(WNIDS, (4, 3, 2), strict=True):
        lines = []
        for i in range(count):
            odd = {0: ("L", (64, 64)), 1: ("RGB", (50, 37))}.get(i, ("RGB", (64, 64)))
            draw(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", *odd)
            lines.append(f"{wnid}_{i}.JPEG\t{i}\t3\t{30 + i}\t36\n")
        lines.append(f"{wnid}_0.JPEG\t7\t7\t20\t21\n")  # a second box of the first image
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(lines))
    for i in range(3):  # the last one has no box
        draw(root / "val" / "images" / f"val_{i}.JPEG")
    boxed = "".join(f"val_{i}.JPEG\t{WNIDS[i]}\t0\t0\t63\t63\n" for i in range(2))
    (root / "val" / "val_annotations.txt").write_text(boxed)
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    (root / "words.txt").write_text("".join(f"{wnid}\tclass {wnid}, & more\n" for wnid in WNIDS))
    return str(root)


def annotations(dataset: ImageNet | TinyImageNet) -> list[Annotation]:
    return [row for unit in dataset.units() for row in dataset.read(unit)]


def imagenet(root: Path) -> list[Annotation]:
    return annotations(ImageNet(layout="imagenet", root=str(root), parts=("train",)))


def pixels_and_facts(row: Annotation) -> tuple[str, tuple[object, ...]]:
    """A hash of an image's pixels; and its class, class's name, size and boxes."""
    data = Path(row.uri).read_bytes()
    image = Image.open(io.BytesIO(data))
    pixels = hashlib.sha256(image.mode.encode() + np.asarray(image).tobytes()).hexdigest()
    boxes = unit_boxes(row.corners, image.width, image.height, row.convention)
    return pixels, (row.wnid, row.class_name, image.size, boxes.tolist())


def test_every_copy_is_its_original_and_no_file_is_like_another(tmp_path: Path) -> None:
    source, folder = tiny(tmp_path / "tiny"), tmp_path / "made"
    make_dataset(source, folder, 300)
    boxed = [
        row
        for row in annotations(TinyImageNet(layout="tiny_imagenet", root=source))
        if row.left_out is None
    ]
    originals = dict(pixels_and_facts(row) for row in boxed)
    assert len(originals) == 11
    rows = imagenet(folder)
    assert len(rows) == 300
    assert len({row.image_id for row in rows}) == 300
    copies: Counter[str] = Counter()
    for row in rows:
        assert row.error is None
        pixels, facts = pixels_and_facts(row)
        assert facts == originals[pixels]
        assert row.size == facts[2]
        copies[pixels] += 1
    assert copies.keys() == originals.keys()
    assert max(copies.values()) - min(copies.values()) <= 1
    contents = {inspect(Path(row.uri).read_bytes()).content for row in rows}
    assert len(contents) == 300


def test_a_complete_set_is_left_alone_and_one_cut_off_is_made_whole(tmp_path: Path) -> None:
    source, folder = tiny(tmp_path / "tiny"), tmp_path / "made"
    make_dataset(source, folder, 20)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files}
    make_dataset(source, folder, 20)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in files} == before
    victim = next(file for file in files if file.suffix == ".JPEG")
    victim.unlink()
    (folder / "rehearsal.json").unlink()
    make_dataset(source, folder, 20)
    assert {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()} == {
        file: content for file, (_, content) in before.items()
    }
    with pytest.raises(RehearsalError, match="holds another set"):
        make_dataset(source, folder, 21)


def test_a_disk_without_room_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    with pytest.raises(RehearsalError, match=r"made: 1,000,000,000,000 images want about .* free"):
        make_dataset(tiny(tmp_path / "tiny"), tmp_path / "made", 10**12)
    assert list((tmp_path / "made").iterdir()) == []


def test_an_original_that_is_no_jpeg_is_named(tmp_path: Path) -> None:
    source = tiny(tmp_path / "tiny")
    file = Path(source) / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_1.JPEG"
    Image.new("RGB", (64, 64)).save(file, "PNG")
    with pytest.raises(RehearsalError, match=rf"{file}: not a JPEG"):
        make_dataset(source, tmp_path / "made", 20)
    assert not (tmp_path / "made" / "rehearsal.json").exists()


# --------------------------------------------------------------------------- the sampler

HOLD = """
import sys, time
while time.process_time() < 0.5:
    pass
held = b"x" * (100 * 2**20)
print("held", flush=True)
sys.stdin.read()
"""
PARENT = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {HOLD!r}])\n"


def test_a_childs_memory_is_seen() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with sampled(process.pid, interval=0.01) as rows:
            while len({row["second"] for row in rows}) < 2:
                time.sleep(0.01)
        process.stdin.close()
    first = [row for row in rows if row["second"] == rows[0]["second"]]
    by_kind = {row["kind"]: row for row in first}
    assert len(first) == 2
    assert by_kind["driver"]["pid"] == process.pid
    assert by_kind["driver"]["own"] < 50 * 2**20
    assert 100 * 2**20 <= by_kind["other"]["own"] < 150 * 2**20
    assert by_kind["other"]["resident"] >= by_kind["other"]["own"]
    assert by_kind["other"]["cpu"] >= max(0.5, by_kind["driver"]["cpu"])


def test_a_job_has_a_ray_of_its_own_and_finds_the_network_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = "import benchmarks.scale, os, sys; print(os.environ['RAY_ADDRESS']); sys.exit(3)"
    job = run_job([sys.executable, "-c", code], tmp_path / "log")
    assert (job.code, (tmp_path / "log").read_text()) == (3, "local\n")


# --------------------------------------------------------------------------- the table


def sample(second: float, pid: int, kind: str, own: int, **more: int) -> dict[str, object]:
    row = {"second": second, "pid": pid, "kind": kind, "own": own, "resident": 2 * own}
    return row | {"cpu": pid + second} | more


def test_figures_are_peaks_and_sizes(tmp_path: Path) -> None:
    samples = [
        sample(0, 1, "driver", 10),
        sample(0, 2, "raylet", 1, store=5, spilled=0),
        sample(1, 1, "driver", 8),
        sample(1, 2, "raylet", 2, store=7, spilled=9),
        sample(1, 3, "worker", 20),
        sample(1, 4, "worker", 30),
        sample(2, 4, "worker", 25),
    ]
    stages = {"manifest": {"seconds": 2.5}, "fit": {"seconds": 1}}
    (tmp_path / "run.json").write_text(json.dumps({"stages": stages}))
    (tmp_path / "manifest").mkdir()
    for name in ("a", "b"):
        (tmp_path / "manifest" / f"{name}.parquet").write_bytes(b"123")
    job = Job(0, 4.0, pa.Table.from_pylist(samples, SAMPLES))
    assert {figure.figure: figure.value for figure in figures(100, job, tmp_path)} == {
        "manifest": 2.5,
        "fit": 1,
        "the job": 4,
        "CPU": (1 + 1) + (2 + 1) + (3 + 1) + (4 + 2),
        "driver, own memory": 10,
        "driver, with shared pages": 20,
        "largest worker, own memory": 30,
        "largest worker, with shared pages": 60,
        "largest raylet, own memory": 2,
        "largest raylet, with shared pages": 4,
        "all processes, own memory": 60,
        "workers at once": 2,
        "object store touched": 7,
        "spilled": 9,
        "manifest/ on disk": 6,
        "other files on disk": (tmp_path / "run.json").stat().st_size,
        "files written": 3,
        "annotations and images read": 300,
    }


def series(values: dict[int, float], grows: bool = True) -> list[Figure]:
    return [Figure(rows, "x", "s", value, grows) for rows, value in values.items()]


def test_a_line_through_the_two_largest_sizes() -> None:
    assert line(series({10: 99, 100: 5, 200: 7}), 1000) == pytest.approx(7 + 0.02 * 800)
    assert line(series({200: 7, 100: 5}), 1000) == pytest.approx(7 + 0.02 * 800)
    assert line(series({100: 5, 200: 4}), 1000) == 4
    assert line(series({100: 5}), 1000) is None
    assert line(series({100: 5, 200: 7}, grows=False), 1000) is None


def test_the_table_has_a_column_per_size_and_one_beyond() -> None:
    measured = [
        *(Figure(n, "the job", "s", 10 + n / 100) for n in (1000, 2000)),
        *(Figure(n, "driver, own memory", "B", 1e6 * n) for n in (1000, 2000)),
        *(Figure(n, "spilled", "B", 0, grows=False) for n in (1000, 2000)),
    ]
    lines = markdown(measured, 4000).splitlines()
    assert lines[:9] == [
        "|  | 1,000 | 2,000 | 4,000 (line) |",
        "| --- | ---: | ---: | ---: |",
        "| the job, s | 20.0 | 30.0 | 50.0 |",
        "| driver, own memory, MB | 1,000.0 | 2,000.0 | 4,000.0 |",
        "| spilled, MB | 0.0 | 0.0 |  |",
        "| the job, µs per row | 20,000 | 15,000 |  |",
        "| the job, µs per further row |  | 10,000 |  |",
        "| rows/s | 50 | 67 |  |",
        "",
    ]
    assert table(measured).to_pylist() == [vars(figure) for figure in measured]


# --------------------------------------------------------------------------- the whole


def test_the_config_names_the_stand_in_and_its_weights_are_fixed() -> None:
    classifier = load_config(str(ROOT / "conf" / "rehearsal.toml")).classifier
    torch.manual_seed(1)
    configured = classifier.load().state_dict()
    torch.manual_seed(2)
    weights = tiny_network().state_dict()
    assert configured.keys() == weights.keys()
    assert all(torch.equal(configured[name], weights[name]) for name in weights)
    x = torch.rand(2, 3, classifier.input_size, classifier.input_size)
    assert tiny_network()(x).shape == (2, 1000)


@pytest.mark.long
def test_a_rehearsal(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "benchmarks.scale", "conf/rehearsal.toml", "--rows", "300"),
        *("--data", tiny(tmp_path / "tiny"), "--output", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    assert done.stdout.strip() == (out / "rehearsal.md").read_text().strip()
    rows = pq.read_table(out / "run-300" / "sensitivity")
    assert len(rows) == 300
    assert rows["error"].null_count == 300
    by_name = {row["figure"]: row for row in pq.read_table(out / "rehearsal.parquet").to_pylist()}
    assert {row["rows"] for row in by_name.values()} == {300}
    for name in ("driver", "largest worker", "largest raylet", "largest gcs_server"):
        own, shared = (
            by_name[f"{name}, {k}"]["value"] for k in ("own memory", "with shared pages")
        )
        assert 1e6 < own <= shared
    assert by_name["object store touched"]["value"] > 0
    stages = json.loads((out / "run-300" / "run.json").read_text())["stages"]
    assert {"manifest", "sensitivity", "fit", "evaluate", "figure"} <= stages.keys()
    assert all(by_name[name]["value"] == facts["seconds"] for name, facts in stages.items())
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith(f"error: {out / 'run-300'}: an earlier rehearsal: delete it")


# --------------------------------------------------------------------------- storage, latency


def test_single_files_and_shards_are_timed_on_the_same_images(tmp_path: Path) -> None:
    small_config(tmp_path)
    run = RunDir.open(load_config(str(tmp_path / "small.toml"), changes=["dataset.count=30"]))
    single, shards = storage(run).splitlines()
    assert single.startswith("single files ")
    assert shards.startswith("tar shards ")
    assert run.facts()["stages"]["storage"]["images"] == 30
    assert len(list((tmp_path / "run" / "single").iterdir())) == 30


def test_what_a_choice_of_the_foreground_buys_is_beside_the_runs_own(small_run: RunDir) -> None:
    rows = {row["choice"]: row for row in tried(small_run, more=["inner_2", "inner_4"])}
    own, *others = rows.values()
    assert (own["more_50"], own["more_70"]) == (0, 0)
    said = diff(small_run, small_run, "validation").splitlines()
    (line,) = (words for words in map(str.split, said) if words and words[0] == "foreground")
    assert own["at_50"] == pytest.approx(float(line[2]), abs=100 / 51), "as the run's own table"
    for row in others:
        assert row["low_50"] <= row["more_50"] <= row["high_50"]
        assert row["more_50"] == pytest.approx(row["at_50"] - own["at_50"])
    assert {"with inner_2 too", "forward pass only", "third look, 1.3 times as wide"} <= rows.keys()
    assert "with inner_4 too" not in rows, "the run reads it"


def test_a_localizer_is_timed_image_by_image(small_run: RunDir) -> None:
    threads = torch.get_num_threads()
    files = first_files(str(small_run.config.dataset.root), 3)
    milliseconds = measure(Localizer.load(small_run.url), files, rounds=1)
    torch.set_num_threads(threads)
    assert min(milliseconds.values()) > 0
    (line,) = (
        line for line in text(milliseconds, 3).splitlines() if line.startswith("the classifier")
    )
    assert line.split()[-1] == "1.00"


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        first_files(str(tmp_path), 3)


# --------------------------------------------------------------------------- a device

BARE = """
import sys
for module in ("ray", "pydantic", "pyarrow", "typer", "tqdm", "sklearn"):
    sys.modules[module] = None
from benchmarks.gpu import main
main(sys.argv[1:])
"""


def test_a_device_is_measured_with_torch_alone(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-c", BARE, "--device", "cpu", "--quick", "--networks", "resnet18"),
        *("--output", str(tmp_path / "gpu.json")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert 0 < content["relative_l2"]["resnet18"]["float32"] < gpu.WRONG
    ways = {row["way"] for row in content["rows"]}
    assert ways == {"forward pass only", "gradient", "foreground"}
    assert all(row["low"] <= row["images_per_second"] <= row["high"] for row in content["rows"])
    assert all(row["share_of_roofline"] > 0 for row in content["rows"])
    assert content["decoding"]["cpu_images_per_second"] > 0
    assert "decoding on the device" in content["plan"]["left_out"]


@pytest.mark.cpu
def test_a_device_whose_float32_is_off_is_not_timed() -> None:
    class Off(gpu.Passes):
        def ways(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, gpu.Way]:
            ways = super().ways(images, labels)
            return ways | {gpu.GRADIENT: lambda: ways[gpu.GRADIENT]() + 1}

    passes = gpu.Passes.of("resnet18")
    gpu.correctness("resnet18", {"float32": passes}, "cpu", 2)
    off = Off(passes.prepared, passes.readings)
    with pytest.raises(SystemExit, match=r"resnet18 in float32 is .* from float64"):
        gpu.correctness("resnet18", {"float32": off}, "cpu", 2)


def test_the_roofline_is_the_longer_of_operations_and_bytes() -> None:
    a, b = torch.randn(4, 8), torch.randn(8, 2)
    product = counted(lambda: a @ b)
    assert product.total == 2 * 4 * 8 * 2
    moved = 4 * (4 * 8 + 8 * 2 + 4 * 2)
    assert product.seconds(per_second=1, bandwidth=1) == max(128, moved)
    assert product.seconds(per_second=1, bandwidth=1e9) == 128


# --------------------------------------------------------------------------- beside others


def test_ways_take_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    timed = in_turn({name: partial(calls.append, name) for name in "ab"}, items=1, rounds=2)
    assert calls == ["a", "b"] * 3
    assert [time.way for time in timed] == ["a", "b"]
    assert vars(timed[0].ratio) == {"median": 1, "low": 1, "high": 1}
    assert all(t.milliseconds.low <= t.milliseconds.median <= t.milliseconds.high for t in timed)


def test_what_is_done_apart_lacks_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SENSLOC_SETTING", "ours")
    said = tmp_path / "said"
    say = partial(os.system, f"echo ${{SENSLOC_SETTING-none}} >> {said}")
    with apart(partial(partial, say), ["SENSLOC_SETTING"]) as ask:
        ask()
        ask()
        assert said.read_text() == "none\nnone\n", "it is done when it was asked for"
    assert os.environ["SENSLOC_SETTING"] == "ours"


def test_other_hands_make_the_same_gradient_and_a_pass_costs_what_its_layers_say() -> None:
    images, labels = gradient.batch_of(2)
    ways = gradient.ways("resnet18", images, labels)  # which compares the maps
    assert len(ways) >= 6
    forward = gradient.operations(ways["sensloc, forward pass only"], 2)
    assert forward == pytest.approx(2 * 1.814e9, rel=1e-3)  # its multiplications are well known
    assert gradient.operations(ways[gradient.OURS], 2) == pytest.approx(2 * forward, rel=1e-6)
    assert forward < gradient.operations(ways["sensloc, foreground"], 2) < 2 * forward


def test_another_map_is_not_taken_for_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gradient.SAME, "wrong", lambda net, images, labels: images.abs().amax(1))
    with pytest.raises(AssertionError, match="wrong of resnet18 gives another map"):
        gradient.ways("resnet18", *gradient.batch_of(1))


def test_version_0_1_makes_the_same_gradient_in_a_process_of_its_own(tmp_path: Path) -> None:
    command = ["git", "archive", "00fdcd1", "sensloc"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip(f"no version 0.1.0 in this checkout: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "x", "-C", tmp_path], input=archive.stdout, check=True)
    first, *ours = since.measured(tmp_path, "resnet18", n=1, rounds=1)  # which compares the maps
    assert first.way == since.BEFORE
    assert [time.way for time in ours] == ["sensloc, gradient", "sensloc, foreground"]


def test_pixels_are_within_a_grey_level_of_pillows() -> None:
    for data in decode.embedded():
        ours = decode.decode(data, decode.SIZE).pixels.astype(int)
        assert np.abs(ours - decode.pillow(data)).max() <= 1
        assert decode.usual(data).shape == (3, decode.SIZE, decode.SIZE)
        assert np.abs(ours - decode.by_simplejpeg(data)).max() <= 1


def test_sums_from_parquet_are_the_ridge_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.parquet"
    fit.make(file, values=9, rows=fit.PART + 5)
    for way in fit.WAYS:
        fit.alone(way, file, tmp_path / f"{way}.npy")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line["seconds"] > 0 and line["mib"] >= 0 for line in said)
    ours, ridge, plain = (np.load(tmp_path / f"{way}.npy") for way in fit.WAYS)
    assert np.abs(ours - ridge).max() < 1e-10
    assert np.abs(plain - ridge).max() > 1e-4, "the penalty is felt"


def test_a_plain_loop_makes_the_rows_of_the_stage(small_run: RunDir, tmp_path: Path) -> None:
    copy = shutil.copytree(small_run.url, tmp_path / "run")
    threads = torch.get_num_threads()
    for part in range(2):
        pipeline.loop(str(copy), part, 2)
    torch.set_num_threads(threads)
    stage, by_loop = (pq.read_table(copy / name) for name in ("sensitivity", pipeline.LOOP))
    assert by_loop.sort_by("image_id").equals(stage.sort_by("image_id"))


def test_actors_are_busy_from_the_first_to_the_last_map() -> None:
    looks = [
        *((0.0, 1, "ray::Holder.call", 1.0), (0.0, 2, "ray::_decode", 1.0)),
        *((1.0, 1, "ray::Holder.work", 2.0), (1.0, 2, "ray::_decode", 2.0)),
        *((2.0, 1, "ray::Holder.work", 3.0), (1.0, 3, "ray::Holder", 1.0)),
        *((3.0, 1, "ray::Holder", 4.0), (3.0, 3, "ray::Holder.work", 2.5), (3.0, 4, None, 9.0)),
        *((4.0, 1, "ray::Holder", 4.25), (4.0, 3, "ray::Holder", 2.75)),
    ]
    names = ("second", "pid", "title", "cpu")
    rows = [dict(zip(names, look, strict=True)) for look in looks]
    samples = pa.Table.from_pylist(rows, SAMPLES)
    assert (pipeline.begun(samples), pipeline.busy(samples)) == (0.0, 3.5 / 4)
    assert np.isnan(pipeline.busy(samples.slice(len(samples) - 4))), "too short for a look"


def test_what_is_no_pass_is_timed_and_a_row_of_the_papers_table_is_weighed() -> None:
    with parts.stored(images=50) as (reading, size):
        rows = [part.call() for part in reading]
    assert [len(classes) for classes in rows] == [50, 50]
    assert size > 2 * parts.CELLS * 0.8, "float16 values, which are noise"
    assert parts.sums().call().n == parts.BATCH
    right, counted = (part.call() for part in parts.scores(images=40))
    assert right == pc.sum(counted.filter(pc.equal(counted["by"], "all"))["n_correct"]).as_py()


def test_further_images_cost_no_start() -> None:
    rows = [{"images": 10, "stage": 9.0, "loop": 3.0}, {"images": 20, "stage": 12.0, "loop": 6.0}]
    assert [(row["ratio"], row["further"]) for row in pipeline.with_ratios(rows)] == [
        (3.0, None),
        (2.0, 1.0),
    ]


def test_memory_is_that_of_all_processes_at_one_look() -> None:
    looks = [(0.0, 1, 2_000_000_000), (0.0, 2, 500_000_000), (1.0, 1, 1_000_000_000)]
    rows = [{"second": second, "pid": pid, "own": own} for second, pid, own in looks]
    assert together(pa.Table.from_pylist(rows, SAMPLES)) == 2_500_000_000


# --------------------------------------------------------------------------- corrected boxes


def test_what_is_held_out_is_never_learned_from(small_run: RunDir, tmp_path: Path) -> None:
    loop, again = (review.Loop.of(small_run, tmp_path, 5, 10) for _ in range(2))
    held_out = {row["uri"] for row in loop.held_out}
    assert held_out == {row["uri"] for row in again.held_out}
    assert not held_out & loop.pool.keys()
    assert len(loop.held_out) + len(loop.pool) == 400
    assert set(review.by_class(loop.held_out)) == set(review.by_class(loop.pool.values()))


def test_a_corrected_task_has_the_true_boxes(small_run: RunDir, tmp_path: Path) -> None:
    truth = list(review.Loop.of(small_run, tmp_path, 5, 10).pool.values())
    (tmp_path / "x.json").write_text(json.dumps([review.task(row) for row in truth]))
    dataset = LabelStudio(layout="label_studio", root=str(tmp_path), file="x.json")
    found = {row.uri: row for unit in dataset.units() for row in dataset.read(unit)}
    for row in truth:
        read = found.pop(row["uri"])
        assert (read.image_id, read.wnid, read.error) == (row["image_id"], row["wnid"], None)
        boxes = unit_boxes(read.corners, row["width"], row["height"], read.convention)
        np.testing.assert_allclose(boxes, row["boxes"], atol=1e-6)
    assert not found


def test_a_gain_is_the_mean_over_draws_and_images() -> None:
    more = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], float)
    less = np.array([[1, 0, 1, 0], [0, 1, 1, 0]], float)
    value, low, high = review.gain(more, less)
    assert value == pytest.approx(37.5)
    assert low <= value <= high
    assert review.gain(less, more)[0] == -value
    assert review.gain(more, more) == (0, 0, 0)


@pytest.mark.long
def test_a_round_of_corrected_boxes(small_run: RunDir, tmp_path: Path) -> None:
    loop = review.Loop.of(small_run, tmp_path, 10, 20)
    rows = loop.draw(0)
    assert [row["boxes"] for row in rows] == [100, 120, 120]
    lines = review.summary(rows)
    assert len(lines) == 3 * len(review.MEASURES)
    pool = {row["arm"]: np.mean(row["pool"]) for row in rows}
    for row in rows[1:]:
        wrong = 20 * (1 - np.mean(row["right_before"]))
        assert pool[row["arm"]] == pytest.approx(pool[review.FIRST] + wrong / len(loop.pool))
