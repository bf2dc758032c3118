"""A box explained: what is drawn is what the run's own passes say of the image."""

import io
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_cli import sensloc

from sensloc.heatmaps import SECOND, column, region
from sensloc.heatmaps.maker import pool
from sensloc.images.decode import pixels_of, squash
from sensloc.methods import saved
from sensloc.methods.soft_iou import SoftIoUBox
from sensloc.prediction.localizer import Localizer, Prediction
from sensloc.report.explain import Explanation, ShownMap, explain
from sensloc.report.panels import ACROSS, in_words, picture
from sensloc.stages.network import map_maker
from sensloc.store.run import RunDir

pytestmark = pytest.mark.usefixtures("cluster")

INNER = ("inner_2", "inner_4", "inner_8")
"""Of the demo's network."""


@pytest.fixture(scope="module")
def row(small_run: RunDir) -> dict[str, object]:
    """Return the row of a test image whose class the network recognises."""
    rows = pq.read_table(small_run.path("sensitivity")).to_pylist()
    recognised = (row for row in rows if row["predicted_index"] == row["class_index"])
    return next(row for row in recognised if row["split"] == "test")


@pytest.fixture(scope="module")
def explained(small_run: RunDir, row: dict[str, object]) -> Explanation:
    return explain(small_run.url, str(row["uri"]))


def pooled(shown: ShownMap, grid: int) -> npt.NDArray[np.float64]:
    """Return a map as a run keeps it: means over cells; of no share, over the largest of them."""
    means = pool(torch.from_numpy(shown.values.astype(np.float32))[None], grid)[0].numpy()
    return means if shown.share else means / means.max()


def test_what_is_drawn_is_what_the_run_has_of_the_image(
    small_run: RunDir, row: dict[str, object], explained: Explanation
) -> None:
    grid = small_run.config.sensitivity.grid
    assert tuple(explained.maps) == ("gradient", *INNER, "foreground")
    for name in ("gradient", "foreground"):
        known = np.array(row[column(name)]).reshape(grid, grid)
        np.testing.assert_allclose(pooled(explained.maps[name], grid), known, atol=5e-3)
    pixels = squash(explained.pixels, 64)[None]
    seen = map_maker(small_run, INNER, "cpu")(pixels, np.array([row["class_index"]]))
    for name, maps in ((name, seen.maps[name]) for name in INNER):
        known = maps.values.reshape(maps.height, maps.width)
        np.testing.assert_allclose(pooled(explained.maps[name], grid), known, atol=5e-3)


def test_maps_are_as_fine_as_their_layers_and_the_box_is_the_predictions(
    small_run: RunDir, row: dict[str, object], explained: Explanation
) -> None:
    sides = [shown.values.shape for shown in explained.maps.values()]
    assert sides == [(64, 64), (32, 32), (16, 16), (8, 8), (8, 8)]
    assert explained.strides == (2, 4, 8)
    assert [explained.prediction] == Localizer.load(small_run.url).predict([str(row["uri"])])
    assert [name for name, shown in explained.maps.items() if shown.read] == ["foreground"]
    np.testing.assert_array_equal(explained.pixels, pixels_of(Path(str(row["uri"])).read_bytes()))


def with_method(small_run: RunDir, folder: Path, method: bytes) -> str:
    """Copy the run's localizer, and have it get its boxes by another method."""
    copy = shutil.copytree(small_run.path("localizer"), folder)
    (copy / "method.npz").write_bytes(method)
    return str(copy)


def test_a_second_look_is_drawn_where_it_looked(
    small_run: RunDir, row: dict[str, object], tmp_path: Path
) -> None:
    twice = SoftIoUBox(column(SECOND), 8.0, 1.5, part=True)
    assert region(column(SECOND)) in twice.reads
    copy = with_method(small_run, tmp_path / "copy", saved.pack(twice, {}))
    explanation = explain(copy, str(row["uri"]))
    assert list(explanation.maps)[-2:] == ["foreground", SECOND]
    first, second = (explanation.maps[name] for name in ("foreground", SECOND))
    assert (first.read, second.read) == (False, True)
    assert tuple(first.region) == (0, 0, 1, 1)
    x0, y0, x1, y1 = explanation.prediction.box
    edges = 64 * second.region
    assert edges[0] <= x0 < x1 <= edges[2]
    assert edges[1] <= y0 < y1 <= edges[3]
    assert drawn(picture(explanation)).width > 1000


def test_where_the_box_needs_no_foreground_there_is_none(
    small_run: RunDir, row: dict[str, object], tmp_path: Path
) -> None:
    method = small_run.read("localizer/methods/sensitivity.npz")
    explanation = explain(with_method(small_run, tmp_path / "copy", method), str(row["uri"]))
    assert tuple(explanation.maps) == ("gradient", *INNER)
    assert explanation.maps["gradient"].read


# --------------------------------------------------------------------------- the picture


def drawn(data: bytes) -> Image.Image:
    """Open a picture, all of it."""
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "PNG"
    return image


def made_up(layers: int, width: int, height: int, class_name: str) -> Explanation:
    rng = np.random.default_rng(0)
    shown = ShownMap(
        rng.random((7, 7)).astype(np.float16), False, np.array([0.0, 0.0, 1.0, 1.0]), False
    )
    strides = (8, 16, 32)[:layers]
    return Explanation(
        pixels=rng.integers(0, 256, (height, width, 3), np.uint8),
        prediction=Prediction("n1", class_name, 0.5, (1, 1, width - 1, height - 1), 0.25),
        maps={"gradient": shown} | {f"inner_{stride}": shown for stride in strides},
        strides=strides,
    )


@pytest.mark.parametrize("shape", [(1, 900), (60, 40), (900, 1)])
def test_any_shape_and_any_name_has_its_picture(shape: tuple[int, int]) -> None:
    """A ``$`` is no formula, and a long name does not make the picture wider."""
    usual = drawn(picture(made_up(2, *shape, "tench")))
    odd = drawn(picture(made_up(2, *shape, "a $very$ long name, " * 9)))
    assert usual.size == odd.size
    assert usual.width < 1600


def test_a_network_of_fewer_layers_has_fewer_panels_and_says_so() -> None:
    assert "inner layers" not in in_words(made_up(3, 60, 40, "tench, Tinca tinca"))
    assert in_words(made_up(3, 60, 40, "tench, Tinca tinca")).startswith("tench (50 %), box 1, 1,")
    assert in_words(made_up(2, 60, 40, "")).endswith("network has: of stride 8 and 16")
    assert in_words(made_up(0, 60, 40, "")).endswith("network has: none")
    one, two = (drawn(picture(made_up(n, 60, 40, ""))) for n in (ACROSS - 3, ACROSS - 1))
    assert one.width == two.width
    assert one.height < two.height


# --------------------------------------------------------------------------- the command


def test_the_command_draws_from_a_copy_of_the_localizer(
    small_run: RunDir, row: dict[str, object], explained: Explanation, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_run.path("localizer"), tmp_path / "copy")
    target = tmp_path / "new" / "idea.png"
    done = sensloc("explain", str(copy), str(row["uri"]), "--output", str(target))
    assert done.exit_code == 0
    assert done.output == f"{in_words(explained)}\nopen {target}\n"
    assert drawn(target.read_bytes()).width > 1000


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_explained_is_one_line(
    small_run: RunDir, row: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    Image.new("1", (10_001, 10_001)).save(tmp_path / "large.png")
    run, image, target = small_run.url, str(row["uri"]), f"{tmp_path}/idea.png"
    for arguments, reason in {
        (str(tmp_path), image, target): f"{tmp_path}: no localizer there: finish that run",
        (run, f"{tmp_path}/none.jpg", target): f"cannot read {tmp_path}/none.jpg: FileNotFound",
        (run, str(tmp_path), target): f"cannot read {tmp_path}: OSError: not a regular file",
        (run, f"{tmp_path}/text.png", target): f"{tmp_path}/text.png: not an image: none of JPEG",
        (run, f"{tmp_path}/large.png", target): "10001 x 10001 is over 100,000,000 pixels",
        (run, image, f"{tmp_path}/idea.jpg"): "idea.jpg: the picture is a PNG: name a file *.png",
        (run, image, "/sys/idea.png"): "choose a folder that you may read and write: --output",
    }.items():
        done = sensloc("explain", *arguments[:2], "--output", arguments[2])
        assert done.exit_code == 1
        assert done.output.startswith("error: ")
        assert reason in done.output
        assert done.output.count("\n") == 1
    assert not Path(target).exists()
