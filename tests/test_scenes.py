"""The embedded data set is exact and repeatable, and its network sees labels only."""

import inspect
import io
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sensloc.boxes import iou, unit_boxes
from sensloc.datasets.annotation import Annotation
from sensloc.datasets.scenes import DIGIT, SIZE, Scenes, layers, render
from sensloc.networks.scene_net import scene_net, train

NORMALISATION = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def test_a_scene_is_a_function_of_its_seed_and_index():
    pixels, digit, corners = render(3, 7)
    again = render(3, 7)
    assert np.array_equal(pixels, again[0])
    assert (digit, corners) == again[1:]
    assert pixels.shape == (SIZE, SIZE, 3)
    assert pixels.dtype == np.uint8
    different = {render(seed, index)[0].tobytes() for seed in range(3) for index in range(50)}
    assert len(different) == 150


def test_the_corners_are_exactly_the_box_of_the_pixels_that_the_digit_changes():
    for index in range(300):
        pixels, digit, (x0, y0, x1, y1) = render(0, index)
        background, opacity, _, drawn = layers(0, index)
        changed = (pixels != np.rint(background)).all(axis=2)
        assert np.array_equal(changed, opacity > 0)
        rows, columns = np.nonzero(changed)
        assert (x0, y0) == (columns.min(), rows.min())
        assert (x1, y1) == (columns.max() + 1, rows.max() + 1)
        assert x1 - x0 <= DIGIT[1]
        assert y1 - y0 <= DIGIT[1]
        assert digit == drawn


def test_a_constant_box_finds_few_of_the_digits():
    scenes = [render(0, index) for index in range(300)]
    boxes = np.array([corners for _, _, corners in scenes]) / SIZE
    assert np.mean(iou(boxes.mean(axis=0), boxes) >= 0.5) < 0.3
    assert {digit for _, digit, _ in scenes} == set(range(10))


def contents(uri: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        return file.read()


def everything(root: str, count: int) -> list[tuple[Annotation, bytes]]:
    reader = Scenes(layout="scenes", root=root, count=count)
    found = [annotation for unit in reader.units() for annotation in reader.read(unit)]
    return [(annotation, contents(annotation.uri)) for annotation in found]


def test_reading_twice_gives_the_same_annotations_and_bytes(tmp_path: Path):
    first = everything(str(tmp_path / "scenes"), 20)
    assert everything(str(tmp_path / "scenes"), 20) == first
    assert len(list(tmp_path.rglob("*.png"))) == 20


def test_the_files_are_the_scenes_and_the_boxes_are_valid(tmp_path: Path):
    for index, (annotation, data) in enumerate(everything(f"{tmp_path}/", 20)):
        pixels, digit, corners = render(0, index)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
        assert annotation == Annotation(
            image_id=f"scene_{index:06d}",
            uri=f"{tmp_path}/{digit}/scene_{index:06d}.png",
            wnid=str(digit),
            corners=[list(corners)],
            source="scenes",
            size=(64, 64),
        )
        unit = unit_boxes(annotation.corners, *annotation.size, annotation.convention)
        assert np.array_equal(unit * 64, [corners])


def test_the_scenes_go_to_any_filesystem(tmp_path: Path):
    local, remote = everything(str(tmp_path), 3), everything("memory://a-bucket/scenes", 3)
    assert [data for _, data in local] == [data for _, data in remote]


@pytest.mark.parametrize("count", [1, 255, 256, 257, 8000])
def test_the_units_cover_every_index_once(count: int):
    units = Scenes(layout="scenes", root="unused", count=count).units()
    assert [i for unit in units for i in range(unit["start"], unit["stop"])] == list(range(count))


@pytest.fixture(scope="module")
def few() -> tuple[Tensor, Tensor]:
    """64 scenes: uint8 [64, 3, 64, 64], int64 [64]."""
    pixels, digits, _ = zip(*(render(0, index) for index in range(64)), strict=True)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), torch.tensor(digits)


def test_equal_seeds_train_to_equal_bits(few: tuple[Tensor, Tensor]):
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    first = train(*few, **NORMALISATION, epochs=2, seed=5)
    assert torch.equal(torch.get_rng_state(), random_state)
    torch.manual_seed(99)
    torch.set_num_threads(1)
    again = train(*few, **NORMALISATION, epochs=2, seed=5)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = train(*few, **NORMALISATION, epochs=2, seed=6)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_training_learns_the_labels(few: tuple[Tensor, Tensor]):
    pixels, labels = few
    network = scene_net()
    network.load_state_dict(train(pixels, labels, **NORMALISATION, epochs=30, seed=0))
    network.eval()
    with torch.no_grad():
        predicted = network((pixels / 255 - 0.5) / 0.25).argmax(1)
    assert torch.equal(predicted, labels)


def test_training_sees_labels_only():
    assert list(inspect.signature(train).parameters) == [
        "pixels", "labels", "mean", "std", "epochs", "seed"
    ]  # fmt: skip
