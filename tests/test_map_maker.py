"""The map is the derivative of the class score, and depends on nothing but the image."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from sensloc.errors import ClassifierError
from sensloc.heatmaps import PREDICTED
from sensloc.heatmaps.gradient import over_channels
from sensloc.heatmaps.maker import MapMaker, pool, reading
from sensloc.heatmaps.passes import Options, Pass, look
from sensloc.heatmaps.transfer import Arriving, sent
from sensloc.networks.precision import arithmetic
from sensloc.networks.prepare import prepare, tapped
from sensloc.networks.python_function import Python
from sensloc.networks.taps import PIXELS

SIZE, CLASSES = 12, 5
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
CONFIG = Python(source="python", function="m:f", classes=tuple("abcde"), input_size=SIZE)


def linear() -> nn.Module:
    """Its gradient is known: the weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES))


def convolutional() -> nn.Module:
    """A small network with everything in it that batches could leak through."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.BatchNorm2d(24),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(24, CLASSES),
    )
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


@dataclass(frozen=True)
class Result:
    """All that the maker says of a batch, without padding."""

    predicted: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    map: npt.NDArray[np.float16]
    scale: npt.NDArray[np.float32]

    def __getitem__(self, index: object) -> "Result":
        return Result(**{name: values[index] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Maker:
    """A map maker of the gradient alone."""

    make: MapMaker

    def __call__(self, pixels: np.ndarray, labels: np.ndarray) -> Result:
        seen = self.make(pixels, labels)
        maps = seen.maps["gradient"]
        return Result(seen.predicted, seen.score, seen.probability, maps.values, maps.scale)

    @property
    def network(self) -> nn.Module:
        return self.make.networks[0].network


def maker(
    network: nn.Module,
    batch_size: int = 8,
    grid: int = 6,
    channels: str = "max",
    precision: str = "float32",
) -> Maker:
    ready = prepare(network, CONFIG, precision=precision)
    readings = {"gradient": reading("gradient", Options(channels=channels))}
    return Maker(MapMaker((ready,), readings, MEAN, STD, batch_size, grid))


def gradient_and_logits(network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    passed = look(tapped(network, x), x, labels)
    return passed.sensitivity(PIXELS), passed.logits


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([0, 1, 2, 3, 4, 0, PREDICTED, 2])


def same(a: Result, b: Result) -> bool:
    """To the bit."""
    return all(vars(a)[name].tobytes() == vars(b)[name].tobytes() for name in vars(a))


# ------------------------------------------------------------------------------- the gradient


def test_a_linear_classifiers_gradient_is_its_weights():
    network, x = linear(), torch.randn(4, 3, SIZE, SIZE)
    labels = torch.tensor([3, 0, 0, 4])
    gradient, logits = gradient_and_logits(network, x, labels)
    assert torch.equal(gradient, network[1].weight[labels].reshape(4, 3, SIZE, SIZE))
    assert torch.equal(logits, network(x))


def test_a_linear_classifiers_map_is_its_largest_weights(pixels: np.ndarray):
    network, labels = linear(), np.array([3, 0, 0, 4, 1, 2, 2, 2])
    maps = maker(network, grid=SIZE)(pixels, labels)
    weights = network[1].weight.detach()[torch.from_numpy(labels)].reshape(8, 3, SIZE * SIZE)
    expected = weights.abs().amax(1).numpy()
    assert np.array_equal(maps.scale, expected.max(1))
    assert np.array_equal(maps.map, (expected / expected.max(1, keepdims=True)).astype(np.float16))


def test_the_gradient_is_the_slope():
    network, labels = convolutional().double(), torch.tensor([1, 4])
    x, step = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64), 1e-6
    gradient, _ = gradient_and_logits(network, x, labels)
    rng = np.random.default_rng(0)
    for c, i, j in zip(*(rng.integers(0, n, 10) for n in (3, SIZE, SIZE)), strict=True):
        nudge = torch.zeros_like(x)
        nudge[:, c, i, j] = step
        both = network(x + nudge) - network(x - nudge)
        slope = both.gather(1, labels[:, None])[:, 0] / (2 * step)
        assert torch.allclose(gradient[:, c, i, j].double(), slope, rtol=1e-5, atol=1e-7)


def test_a_batch_is_a_loop():
    network, x = convolutional().double(), torch.randn(6, 3, SIZE, SIZE, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 4, PREDICTED])
    together, logits = gradient_and_logits(network, x, labels)
    for i in range(6):
        alone, score = gradient_and_logits(network, x[i : i + 1], labels[i : i + 1])
        assert torch.allclose(together[i], alone[0], rtol=1e-6, atol=1e-9)
        assert torch.allclose(logits[i], score[0], rtol=1e-6)


def test_predicted_is_the_class_of_the_highest_score():
    network, x = convolutional(), torch.randn(6, 3, SIZE, SIZE)
    best = network(x).argmax(1)
    asked, _ = gradient_and_logits(network, x, torch.full((6,), PREDICTED))
    told, _ = gradient_and_logits(network, x, best)
    assert torch.equal(asked, told)


def test_no_parameter_receives_a_gradient(pixels: np.ndarray, labels: np.ndarray):
    make = maker(convolutional())
    with torch.no_grad():  # a caller's mode does not matter
        make(pixels, labels)
    parameters = list(make.network.parameters())
    assert parameters
    assert all(p.grad is None and not p.requires_grad for p in parameters)


# ------------------------------------------------------------------------------- the map


@pytest.mark.parametrize(("channels", "expected"), [("max", 4), ("l2", 5), ("sum", 7)])
@pytest.mark.parametrize("size", [1.0, 2.0**-30])
def test_channels_by_hand(channels: str, expected: float, size: float):
    gradient = torch.tensor([3.0, -4.0, 0.0]).reshape(1, 3, 1, 1).expand(2, 3, 5, 7) * size
    found = over_channels(gradient, channels)
    assert torch.equal(found, torch.full((2, 5, 7), expected * size))


def test_pool_is_the_mean_of_each_cell():
    maps = torch.arange(2 * 6 * 6, dtype=torch.float32).reshape(2, 6, 6)
    by_hand = maps.reshape(2, 3, 2, 3, 2).mean((2, 4))
    assert torch.equal(pool(maps, 3), by_hand)
    assert torch.equal(pool(maps, 6), maps)
    assert torch.equal(pool(maps, 7), maps), "a coarser map stays as it is"
    assert torch.equal(pool(maps, 1)[:, 0, 0], maps.mean((1, 2)))


def test_a_grid_that_does_not_divide_overlaps_its_cells():
    assert torch.equal(
        pool(torch.tensor([[[0.0, 3.0, 6.0]] * 3]), 2)[0, 0], torch.tensor([1.5, 4.5])
    )


def test_the_pixels_are_normalised_per_channel():
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(1, 2, 2, 3)
    x = maker(linear()).make.normalise(pixels)
    assert x.shape == (1, 3, 2, 2)
    expected = [(0 - 0.5) / 0.25, (1 - 0.4) / 0.3, (0.2 - 0.3) / 0.2]
    assert torch.allclose(x[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize("channels", ["max", "l2", "sum"])
def test_everything_that_is_returned_by_hand(pixels: np.ndarray, labels: np.ndarray, channels: str):
    make = maker(convolutional(), channels=channels)
    maps = make(pixels, labels)
    x = make.make.normalise(torch.from_numpy(pixels))
    gradient, logits = gradient_and_logits(make.network, x, torch.from_numpy(labels))
    index = np.where(labels == PREDICTED, logits.argmax(1).numpy(), labels)
    raw = pool(over_channels(gradient, channels), 6).flatten(1).numpy()
    assert np.array_equal(maps.predicted, logits.argmax(1).numpy())
    assert np.allclose(maps.score, logits.numpy()[range(8), index])
    assert np.allclose(maps.probability, logits.softmax(1).numpy()[range(8), index])
    assert np.allclose(maps.scale, raw.max(1))
    assert np.allclose(maps.map, raw / raw.max(1, keepdims=True), atol=2**-11)
    kinds = {name: values.dtype for name, values in vars(maps).items()}
    assert kinds == {
        "predicted": np.int64, "score": np.float32, "probability": np.float32,
        "map": np.float16, "scale": np.float32,
    }  # fmt: skip


def test_maps_are_in_the_unit_interval_and_reach_one(pixels: np.ndarray, labels: np.ndarray):
    maps = maker(convolutional())(pixels, labels)
    assert maps.map.shape == (8, 36)
    assert (maps.map >= 0).all()
    assert (maps.map.max(1) == 1).all()
    assert ((maps.probability > 0) & (maps.probability <= 1)).all()


# ------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("network", [linear, convolutional])
def test_an_images_map_depends_on_nothing_but_the_image(
    network, pixels: np.ndarray, labels: np.ndarray
):
    make, rng = maker(network()), np.random.default_rng(1)
    whole = make(pixels, labels)
    for n in (1, 2, 5, 7, 8):
        chosen = rng.permutation(8)[:n]
        assert same(make(pixels[chosen], labels[chosen]), whole[chosen])
    assert same(make(pixels[:0], labels[:0]), whole[:0])


@pytest.mark.parametrize("memory", ["copied", "reversed", "read-only"])
def test_any_layout_of_the_pixels_will_do(memory: str, pixels: np.ndarray, labels: np.ndarray):
    make = maker(convolutional())
    whole = make(pixels, labels)
    if memory == "read-only":
        pixels.setflags(write=False)
        assert same(make(pixels, labels), whole)
    elif memory == "reversed":
        assert same(make(pixels[::-1], labels[::-1]), whole[::-1])
    else:
        assert same(make(np.asfortranarray(pixels), labels.copy()), whole)


def test_more_images_than_a_batch_are_refused(pixels: np.ndarray, labels: np.ndarray):
    with pytest.raises(ValueError, match="8 images in a batch of at most 7"):
        maker(convolutional(), batch_size=7)(pixels, labels)


# ------------------------------------------------------------------------------- extremes


def scaled(network: nn.Module, factor: float) -> nn.Module:
    """The same network with its scores multiplied."""
    with torch.no_grad():
        for parameter in network[-1].parameters():
            parameter.mul_(factor)
    return network


@pytest.mark.parametrize("factor", [2.0**-24, 2.0**24])
def test_tiny_and_huge_gradients_survive_float16(
    factor: float, pixels: np.ndarray, labels: np.ndarray
):
    plain = maker(convolutional())(pixels, labels)
    made = maker(scaled(convolutional(), factor))(pixels, labels)
    assert np.array_equal(made.map, plain.map)
    assert np.array_equal(made.scale, plain.scale * np.float32(factor))


def test_a_zero_gradient_is_a_map_of_zeros(pixels: np.ndarray, labels: np.ndarray):
    maps = maker(scaled(convolutional(), 0))(pixels, labels)
    assert not maps.map.any()
    assert not maps.scale.any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_shows_in_its_scale(
    value: float, pixels: np.ndarray, labels: np.ndarray
):
    network = linear()
    with torch.no_grad():
        network[1].weight[:] = value
    assert not np.isfinite(maker(network)(pixels, labels).scale).any()


def test_bfloat16_is_close(pixels: np.ndarray, labels: np.ndarray):
    full, half = (
        maker(convolutional(), precision=precision)(pixels, labels)
        for precision in ("float32", "bfloat16")
    )
    assert not np.array_equal(half.map, full.map)
    for name, least in (("map", 0.99), ("score", 0.99), ("scale", 0.99)):
        a, b = (np.atleast_2d(getattr(m, name)).astype(np.float64) for m in (full, half))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() > least, name


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(ClassifierError, match=r"precision = 'tf32': the CPU has no tf32"):
        prepare(convolutional(), CONFIG, precision="tf32")


@pytest.mark.parametrize(("precision", "setting"), [("float32", "ieee"), ("tf32", "tf32")])
def test_a_gpus_float32_is_exact_unless_tf32_is_asked_for(precision: str, setting: str):
    places = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [place.fp32_precision for place in places]
    with arithmetic(precision):
        assert [place.fp32_precision for place in places] == [setting, setting]
    assert [place.fp32_precision for place in places] == before


@pytest.mark.parametrize("rows", [0, 3])
def test_arrays_travel_in_one_copy_and_stay_what_they_are(rows: int):
    rng = np.random.default_rng(0)
    arrays = {
        "half": rng.random((rows, 5)).astype(np.float16),
        "float": rng.random(rows).astype(np.float32),
        "whole": rng.integers(-9, 9, (rows, 2, 3)),
        "byte": rng.integers(0, 255, (rows, 3), np.uint8),
    }
    there = {name: sent(values, 4, "cpu") for name, values in arrays.items()}
    assert all(not tensor[rows:].any() for tensor in there.values())
    back = Arriving.of({name: tensor[:rows] for name, tensor in there.items()}).arrays()
    assert back.keys() == arrays.keys()
    for name, values in arrays.items():
        assert (back[name].dtype, back[name].shape) == (values.dtype, values.shape)
        assert back[name].tobytes() == values.tobytes()


def test_a_batch_that_is_begun_before_another_ends_is_as_alone(
    pixels: np.ndarray, labels: np.ndarray
):
    make = maker(convolutional()).make
    parts = (slice(5), slice(5, 8))
    begun = [make.start(pixels[part], labels[part]) for part in parts]
    for part, started in reversed([*zip(parts, begun, strict=True)]):
        alone, seen = make(pixels[part], labels[part]), started.seen()
        for name in ("values", "scale"):
            a, b = (getattr(of.maps["gradient"], name) for of in (alone, seen))
            assert a.tobytes() == b.tobytes()
        assert seen.score.tobytes() == alone.score.tobytes()


@pytest.mark.parametrize(("room", "fits"), [(3, 2), (0, 0)])
def test_a_batch_that_memory_does_not_hold_is_refused_with_one_that_it_does(
    pixels: np.ndarray, labels: np.ndarray, room: int, fits: int
):
    make = maker(convolutional()).make

    def read(passed: Pass) -> Tensor:
        if len(passed.images) > room:
            raise torch.OutOfMemoryError
        return passed.images[:, 0]

    full = replace(make, readings={"gradient": replace(make.readings["gradient"], read=read)})
    with pytest.raises(ClassifierError, match=rf"batch_size = 8: .* so many images; of {fits} it"):
        full(pixels, labels)


def test_a_signed_map_is_stretched_from_its_minimum_to_its_maximum():
    make = maker(linear()).make
    by_hand = replace(
        make.readings["gradient"],
        read=lambda passed: torch.tensor([[[-3.0, 1.0]], [[5.0, 5.0]]]).repeat(4, 1, 1),
        signed=True,
    )
    make = replace(make, readings={"gradient": by_hand})
    pixels, labels = np.zeros((2, SIZE, SIZE, 3), np.uint8), np.array([0, 1])
    maps = make(pixels, labels).maps["gradient"]
    assert (maps.height, maps.width) == (1, 2)
    assert np.array_equal(maps.values, [[0, 1], [0, 0]])
    assert np.array_equal(maps.scale, [4, 0])


def test_the_gradient_is_float32_whatever_the_network_is():
    network, x = linear().double(), torch.randn(1, 3, SIZE, SIZE, dtype=torch.float64)
    both: tuple[Tensor, Tensor] = gradient_and_logits(network, x, torch.tensor([0]))
    assert [value.dtype for value in both] == [torch.float32] * 2
