"""The stage that learns the foreground, on a real Ray: exact, resumable, nothing lost."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import copied, small_config

from sensloc.boxes import iou
from sensloc.comparison.foregrounds import blocks_of, learn_once
from sensloc.engine import units
from sensloc.heatmaps import PREDICTED
from sensloc.images.decode import crop, pixels_of, squash
from sensloc.methods import catalogue, saved
from sensloc.prediction.localizer import Localizer
from sensloc.rows import vectors
from sensloc.stages.cell_sums import merged, sums_in, sums_of
from sensloc.stages.evaluate import evaluate
from sensloc.stages.fit import fit, fitted_methods
from sensloc.stages.foreground import drawn, foreground
from sensloc.stages.learner import part_of
from sensloc.stages.localizer import localizer, method_of
from sensloc.stages.network import looker
from sensloc.stages.readout_file import FOLDER, place, readouts_of
from sensloc.stages.sensitivity import sensitivity
from sensloc.store.run import RunDir, RunError

pytestmark = pytest.mark.usefixtures("cluster")

SUMS, READOUT = sums_in(FOLDER), place(FOLDER)


def table(run: RunDir, stage: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in run.files(stage)])


def again(run: RunDir, folder: Path, rows_per_block: int, **changes: object) -> RunDir:
    """Begin another run on the same images with the same network, up to the foreground."""
    config = small_config(folder, rows_per_block=rows_per_block)
    section = config.foreground.model_copy(update=changes)
    other = RunDir.open(
        config.model_copy(update={"dataset": run.config.dataset, "foreground": section})
    )
    for name in ("manifest", "classifier"):
        with other.stage(name):
            pass
    other.write("classifier.pt", run.read("classifier.pt"))
    for file in run.files("manifest"):
        other.write(f"manifest/{Path(file).name}", Path(file).read_bytes())
    return other


@pytest.fixture(scope="module")
def twice(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Look twice: the small run's images, network and splits."""
    run = again(small_run, tmp_path_factory.mktemp("twice"), 64, looks=2)
    for stage in (foreground, sensitivity, fit, evaluate, localizer):
        stage(run)
    return run


# --------------------------------------------------------------------------- sums


def test_read_outs_are_equal_to_the_bit_however_the_images_are_cut(
    small_run: RunDir, tmp_path: Path
) -> None:
    other = again(small_run, tmp_path, rows_per_block=23)
    foreground(other)
    assert len(other.files(SUMS)) > len(small_run.files(SUMS)) > 1

    def whole(run: RunDir) -> list[np.ndarray]:
        with np.load(io.BytesIO(run.read(READOUT))) as file:
            return [file[name] for name in file.files if name != "method.json"]

    assert all(map(np.array_equal, whole(small_run), whole(other)))


def test_learned_from_all_without_halves_it_is_the_runs_own(
    small_run: RunDir, tmp_path: Path
) -> None:
    """As the comparison learns read-outs from less, and from other blocks."""
    run = copied(small_run, tmp_path / "run")
    (images,) = drawn(run)
    learn_once(run, "all", images, blocks_of(run, "foreground"))
    (whole,) = readouts_of(run, "all")
    own, *_ = readouts_of(run)
    assert all(np.array_equal(getattr(whole, name), getattr(own, name)) for name in vars(own))
    assert not run.files("compare/readouts/all/sums"), "sums are deleted when they are solved"
    (sensitivities,) = [blocks_of(run, "foreground_sensitivities")]
    assert sensitivities == {"gradient": 1, "inner_4": 1, "inner_8": 1}
    forward = blocks_of(run, "foreground_forward")
    assert set(forward) == {"cam", "activation_4", "activation_8"}
    assert forward["activation_8"] > 1


def test_every_drawn_image_is_in_one_sum(small_run: RunDir) -> None:
    sums = merged(part for file in small_run.files(SUMS) for part in sums_of(pq.read_table(file)))
    manifest = table(small_run, "manifest")
    for part, split in ((0, "validation"), (1, "train"), (2, "train")):
        rows = manifest.filter(pc.equal(manifest["split"], split))
        mine = rows.filter(pa.array(part_of(rows, small_run.config.foreground.seed) == part))
        wanted = {
            row["values"]: row["counts"] for row in mine["class_index"].value_counts().to_pylist()
        }
        assert {label: total.n for (label, p), total in sums.items() if p == part} == wanted
    facts = small_run.stages()["foreground"]
    assert facts["n_train"] == 299
    assert facts["n_validation"] == 51


def test_a_unit_that_is_missing_is_made_again_and_no_other(
    small_run: RunDir, tmp_path: Path
) -> None:
    run = copied(small_run, tmp_path / "run")
    lost, *kept = run.files(SUMS)
    before = {file: Path(file).stat().st_mtime_ns for file in kept}
    Path(lost).unlink()
    record = run.facts()
    del record["stages"]["foreground"]["finished"]
    run._record(record)
    foreground(run)
    assert pq.read_table(lost).equals(pq.read_table(small_run.files(SUMS)[0]))
    assert {file: Path(file).stat().st_mtime_ns for file in kept} == before
    assert run.read(READOUT) == small_run.read(READOUT)


def test_an_image_that_cannot_be_read_is_a_row_with_its_reason(
    small_run: RunDir, tmp_path: Path
) -> None:
    run = again(small_run, tmp_path, rows_per_block=200)
    rows = table(run, "manifest")
    train = rows["split"].to_pylist().index("train")
    uris = rows["uri"].to_pylist()
    uris[train] = str(tmp_path / "gone.png")
    unit = rows.set_column(rows.schema.get_field_index("uri"), "uri", pa.array(uris))
    for file in run.files("manifest"):
        Path(file).unlink()
    units.write(run, "manifest", "000000", unit)
    foreground(run)
    made = table(run, SUMS)
    bad = made.filter(pc.is_valid(made["error"])).to_pylist()
    assert [row["image_id"] for row in bad] == [rows["image_id"][train].as_py()]
    assert bad[0]["error"].startswith(uris[train])
    assert run.stages()["foreground"]["n_train"] == 298


def test_without_validation_images_there_is_nothing_to_choose_by(
    small_run: RunDir, tmp_path: Path
) -> None:
    run = again(small_run, tmp_path, rows_per_block=400)
    rows = table(run, "manifest")
    others = rows.filter(pc.not_equal(rows["split"], "validation"))
    for file in run.files("manifest"):
        Path(file).unlink()
    units.write(run, "manifest", "000000", others)
    with pytest.raises(RunError, match="no validation image without an error"):
        foreground(run)


# --------------------------------------------------------------------------- the map


def test_a_train_image_is_read_by_what_was_not_learned_from_it(small_run: RunDir) -> None:
    rows = table(small_run, "sensitivity")
    rows = rows.filter(pc.is_null(rows["error"]))
    seed, whole = small_run.config.foreground.seed, readouts_of(small_run)
    assert len(whole) == 3
    fold = part_of(rows, seed)
    assert set(fold[np.array(rows["split"].to_pylist()) != "train"]) == {0}
    make = looker(small_run, ("gradient", "foreground"), "cpu").first
    for wanted in (0, 1, 2):
        some = rows.take(pa.array(np.flatnonzero(fold == wanted)[:4]))
        pixels = np.stack(
            [squash(pixels_of(Path(uri).read_bytes()), 64) for uri in some["uri"].to_pylist()]
        )
        labels = np.asarray(some["class_index"])
        seen = make(pixels, labels, np.full(len(some), wanted))
        np.testing.assert_allclose(
            vectors(some, "map_foreground"), seen.maps["foreground"].values, atol=2e-3
        )


def test_where_nothing_is_wanted_nothing_is_made(small_run: RunDir, tmp_path: Path) -> None:
    run = again(small_run, tmp_path, rows_per_block=64, looks=0)
    foreground(run)
    sensitivity(run)
    fit(run)
    assert not run.exists("foreground")
    assert "map_foreground" not in table(run, "sensitivity").column_names
    assert tuple(fitted_methods(run)) == catalogue.of_run(["gradient"])
    assert table(run, "sensitivity")["map"].equals(table(small_run, "sensitivity")["map"])


# --------------------------------------------------------------------------- a second look


def test_the_second_look_is_at_the_part_around_the_first_box(twice: RunDir) -> None:
    rows = table(twice, "sensitivity")
    train = np.array(rows["split"].to_pylist()) == "train"
    assert np.array_equal(np.asarray(pc.is_null(rows["map_foreground_second"])), train)
    held_out = rows.filter(pa.array(~train)).slice(0, 3)
    look = looker(twice, ("gradient", "foreground_second"), "cpu")
    files = [Path(uri).read_bytes() for uri in held_out["uri"].to_pylist()]
    regions = vectors(held_out, "map_foreground_second_region").astype(np.float64)
    for i, (file, region) in enumerate(zip(files, regions, strict=True)):
        part, shown = crop(pixels_of(file), region, 64)
        np.testing.assert_allclose(shown, region, atol=1e-6)
        labels = np.asarray(held_out["class_index"])[i : i + 1]
        alone = look.first(part[None], labels).maps["foreground"].values
        np.testing.assert_allclose(
            alone[0], vectors(held_out, "map_foreground_second")[i], atol=2e-3
        )


def test_a_crop_is_at_full_resolution_and_says_what_it_shows() -> None:
    pixels = np.arange(40 * 80 * 3, dtype=np.uint8).reshape(40, 80, 3)
    part, region = crop(pixels, np.array([0.25, 0.5, 0.75, 1.0]), 20)
    np.testing.assert_allclose(region, [0.25, 0.5, 0.75, 1.0])
    assert part.shape == (20, 20, 3)
    same, _ = crop(pixels, np.array([0.5, 0.5, 0.75, 1.0]), 20)
    np.testing.assert_array_equal(same, pixels[20:40, 40:60])
    _, thin = crop(pixels, np.array([1.0, 0.0, 1.0, 0.0]), 20)
    assert (thin[:2] < thin[2:]).all(), "at least one pixel"


def test_the_localizer_gives_the_boxes_of_the_batch(twice: RunDir) -> None:
    run = RunDir(twice.url, twice.config)
    judged = table(run, "judged")
    rows = table(run, "sensitivity").select(["image_id", "uri"])
    uris = dict(zip(*(rows[name].to_pylist() for name in ("image_id", "uri")), strict=True))
    some = judged.slice(0, 8).to_pylist()
    loaded = Localizer.load(run.url)
    assert loaded.facts.method == method_of(run)
    for row, found in zip(some, loaded.predict([uris[r["image_id"]] for r in some]), strict=True):
        box = np.array(found.box) / 64
        assert iou(box, np.array(row["box"])) > 0.99
        assert found.readout == "class"


def test_the_method_that_predicts_is_the_best_on_validation_or_the_one_that_is_named(
    twice: RunDir, tmp_path: Path
) -> None:
    fitted = fitted_methods(twice)
    assert set(fitted) == set(catalogue.of_run(twice.config.maps))
    right = {
        name: fitted[name].facts["validation_correct"]
        for name in ("sensitivity", "foreground", "foreground_second")
    }
    assert right[method_of(twice)] == max(right.values())
    section = twice.config.localizer.model_copy(update={"method": "foreground"})
    named = RunDir(twice.url, twice.config.model_copy(update={"localizer": section}))
    assert method_of(named) == "foreground"


def test_a_class_without_boxes_takes_the_shared_read_out(twice: RunDir) -> None:
    loaded = Localizer.load(twice.url)
    readout = loaded.readout
    assert readout is not None
    none = saved.pack((readout,), {})
    (copy,), _ = saved.unpack(none, "readout.npz")
    assert copy.row(np.array([PREDICTED, 10_000])).tolist() == [0, 0]
    assert copy.row(readout.classes).tolist() == list(range(1, len(readout.classes) + 1))
