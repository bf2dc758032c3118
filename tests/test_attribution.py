"""Every attribution is captum's, is known by hand on a small network, and minds its own image."""

from collections.abc import Callable, Iterator
from dataclasses import fields

import captum.attr
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from sensloc.errors import ClassifierError
from sensloc.heatmaps.gradient import Gradient, MapMaker, class_score_gradient
from sensloc.heatmaps.layers import (
    ActivationMaker,
    Activations,
    IntegratedGradients,
    SmoothGrad,
    class_activation,
    gradient_activation,
    pooled_features,
)
from sensloc.networks.efficientnet_lite0 import EfficientNetLite0
from sensloc.networks.prepare import prepare
from sensloc.networks.python_function import Python
from sensloc.networks.scene_net import scene_net
from sensloc.networks.weights import randomised

SIZE, CLASSES = 12, 5
LABELS = torch.tensor([1, 4, 0, 2])


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def linear() -> nn.Module:
    """Its gradient is its weights, everywhere."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES)).double()


def convolutional(inplace: bool = False) -> nn.Module:
    """Ends in 24 features on 5 x 5 places, their mean, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(inplace),
        nn.Conv2d(16, 24, 3, stride=2),
        nn.ReLU(inplace),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, CLASSES),
    ).double()


def images(n: int = len(LABELS), size: int = SIZE) -> Tensor:
    return torch.randn(n, 3, size, size, dtype=torch.float64)


def weights_of(network: nn.Module) -> Tensor:
    """Of ``linear``, for the labels: [n, 3, S, S]."""
    return network[1].weight.detach()[LABELS].reshape(-1, 3, SIZE, SIZE)


def close(a: Tensor, b: Tensor) -> bool:
    """To the rounding of float32, which the results are in, relative to the largest value."""
    a, b = a.detach().double(), b.detach().double()
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-6 * b.abs().max())


GRADIENTS: list[Gradient] = [
    class_score_gradient,
    SmoothGrad(samples=3, level=0.2, seed=5),
    IntegratedGradients(steps=4),
]


# ------------------------------------------------------------------------------- captum


def saliency(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The derivative, with its sign."""
    made = captum.attr.Saliency(network)
    return made.attribute(x.clone().requires_grad_(), labels, abs=False)


def test_the_gradient_is_captums_saliency():
    network, x = convolutional(), images()
    ours, logits = class_score_gradient(network, x, LABELS)
    assert close(ours, saliency(network, x, LABELS))
    assert close(logits, network(x))


@pytest.mark.parametrize("steps", [2, 4, 9])
def test_integrated_gradients_are_captums(steps: int):
    network, x = convolutional(), images()
    theirs = captum.attr.IntegratedGradients(network).attribute(
        x, 0, LABELS, n_steps=steps, method="riemann_middle"
    )
    ours, _ = IntegratedGradients(steps)(network, x, LABELS)
    assert close(ours, theirs)


def test_smoothgrad_is_the_mean_of_captums_saliency_over_the_noisy_images():
    network, x = convolutional(), images()
    noise = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    span = (x.flatten(1).max(1).values - x.flatten(1).min(1).values).reshape(-1, 1, 1, 1)
    noisy = [x + 0.15 * span * one for one in noise]
    ours, logits = SmoothGrad(samples=6, level=0.15, seed=7)(network, x, LABELS)
    assert close(ours, torch.stack([saliency(network, one, LABELS) for one in noisy]).mean(0))
    assert close(logits, torch.stack([network(one) for one in noisy]).mean(0))


def captums_grad_cam(network: nn.Module, layer: str, x: Tensor, labels: Tensor) -> Tensor:
    made = captum.attr.LayerGradCam(network, network.get_submodule(layer))
    return made.attribute(x, labels, relu_attributions=True)[:, 0].detach()


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_grad_cam_is_captums_at_every_layer(layer: str):
    network, x = convolutional(), images()
    found = ActivationMaker.of(network, x, layer)(x, LABELS)
    assert found.grad_cam.max() > 0
    assert close(found.grad_cam, captums_grad_cam(network, layer, x, LABELS))


def test_grad_cam_of_a_layer_that_is_called_twice_is_that_of_its_last_call():
    network = torchvision.models.resnet18(num_classes=CLASSES).double().eval()
    x = images(2, 64)
    maker = ActivationMaker.of(network, x)
    assert maker.layer == "layer4.1.relu"  # after each of the block's convolutions
    found = maker(x, LABELS[:2])
    assert close(found.grad_cam, captums_grad_cam(network, "layer4", x, LABELS[:2]))


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    config = EfficientNetLite0(source="efficientnet_lite0")
    return prepare(config.load(), config)


def test_real_weights_agree_with_captum(lite0: nn.Module):
    x, labels = torch.randn(2, 3, 224, 224), torch.tensor([207, 3])
    ours, _ = class_score_gradient(lite0, x, labels)
    theirs = saliency(lite0, x, labels)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))
    maker = ActivationMaker.of(lite0, x)
    found, expected = maker(x, labels), captums_grad_cam(lite0, maker.layer, x, labels)
    assert torch.allclose(found.grad_cam, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    assert found.features.shape == (2, 1280, 7, 7)
    atol = 1e-5 * float(found.cam.abs().max())
    assert torch.allclose(found.cam.clamp(min=0), 49 * found.grad_cam, rtol=1e-3, atol=atol)


# ------------------------------------------------------------------------------- per pixel


def test_a_linear_networks_smoothgrad_is_its_weights():
    network = linear()
    found, _ = SmoothGrad(samples=5)(network, images(), LABELS)
    assert close(found, weights_of(network))


def test_a_linear_networks_integrated_gradients_are_pixel_times_weight_and_complete():
    network, x = linear(), images()
    found, _ = IntegratedGradients(steps=3)(network, x, LABELS)
    assert close(found, x * weights_of(network))
    change = network(x) - network(torch.zeros_like(x))
    assert close(found.sum((1, 2, 3)), change.gather(1, LABELS[:, None])[:, 0])


def test_integrated_gradients_sum_to_the_change_of_the_score():
    network, x = convolutional(), images()
    with torch.no_grad():
        change = (network(x) - network(torch.zeros_like(x))).gather(1, LABELS[:, None])[:, 0]

    def error(steps: int) -> float:
        found, _ = IntegratedGradients(steps)(network, x, LABELS)
        return float((found.sum((1, 2, 3)) - change).abs().max() / change.abs().max())

    assert error(64) < 0.01 < error(2)


def test_an_image_of_one_value_meets_no_noise():
    network, x = convolutional(), torch.full((1, 3, SIZE, SIZE), 0.3, dtype=torch.float64)
    smooth, _ = SmoothGrad(samples=3)(network, x, LABELS[:1])
    assert close(smooth, class_score_gradient(network, x, LABELS[:1])[0])


def test_the_noise_is_that_of_the_seed_and_the_callers_dice_are_left():
    network, x = convolutional(), images()
    before = torch.random.get_rng_state()
    first, again, other = (SmoothGrad(seed=s)(network, x, LABELS)[0] for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=lambda g: getattr(g, "__name__", repr(g)))
def test_a_batch_is_a_loop(gradient: Gradient):
    network, x = convolutional(), images() * torch.tensor([1.0, 2, 0.1, 5]).reshape(4, 1, 1, 1)
    together = gradient(network, x, LABELS)
    for i in range(4):
        alone = gradient(network, x[i : i + 1], LABELS[i : i + 1])
        for a, b in zip(alone, together, strict=True):
            assert a.dtype == torch.float32
            assert close(a[0], b[i])


@pytest.mark.parametrize("gradient", GRADIENTS[1:], ids=repr)
@pytest.mark.parametrize("n", [1, 3])
def test_a_map_maker_takes_any_of_them(gradient: Gradient, n: int):
    """Its batch is padded: the images behind change nothing."""
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
    config = Python(source="python", function="m:f", classes=tuple("abcde"), input_size=SIZE)
    network = prepare(convolutional().float(), config)
    maker = MapMaker(network, mean, std, batch_size=8, grid=6, gradient=gradient)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(8) % CLASSES
    full, some = maker(pixels, labels), maker(pixels[:n], labels[:n])
    assert np.array_equal(some.map, full.map[:n])
    assert np.array_equal(some.scale, full.scale[:n])
    x = maker.normalise(torch.from_numpy(pixels[:n]))
    found, _ = gradient(network, x, torch.from_numpy(labels[:n]))
    raw = found.abs().amax(1).reshape(n, 6, 2, 6, 2).mean((2, 4)).flatten(1).numpy()
    assert np.allclose(some.scale, raw.max(1), rtol=1e-5)
    assert np.allclose(some.map, raw / raw.max(1, keepdims=True), atol=1e-3)


# ------------------------------------------------------------------------------- CAM, by hand


def test_class_activation_by_hand():
    features = torch.tensor([[[[1.0, 2]], [[3, 4]]], [[[1, 0]], [[0, 1]]]])  # [2, 2, 1, 2]
    weights = torch.tensor([[1.0, -1], [2, 10]])
    assert torch.equal(class_activation(features, weights), torch.tensor([[[-2.0, -2]], [[2, 10]]]))


def test_gradient_activation_by_hand():
    activation = torch.tensor([[[[1.0, -1]], [[0, 2]]]])
    gradient = torch.tensor([[[[1.0, 3]], [[-1, -1]]]])  # means 2 and -1
    found = gradient_activation(activation, gradient)
    assert torch.equal(found, torch.tensor([[[2.0, 0]]]))  # 2 * 1 - 0, and -2 - 2 cut to 0


def colours() -> nn.Module:
    """Class c is the mean of colour c less that of the others: three 1 x 1 filters."""
    network = nn.Sequential(
        nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
    )
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(3).reshape(3, 3, 1, 1))
        network[3].weight.copy_(2 * torch.eye(3) - 1)
        network[3].bias.zero_()
    return network


@pytest.mark.parametrize("colour", [0, 1, 2])
def test_the_map_of_a_colour_is_where_that_colour_is(colour: int):
    x = torch.zeros(1, 3, 8, 8)
    for c, (row, column) in enumerate([(0, 0), (2, 5), (7, 3)]):
        x[0, c, row, column] = 1
    found = ActivationMaker.of(colours(), x)(x, torch.tensor([colour]))
    expected = 2 * x[0, colour] - x[0].sum(0)
    assert torch.equal(found.cam[0], expected)
    assert torch.equal(found.grad_cam[0], expected.clamp(min=0) / 64)
    assert torch.equal(found.features, x)


@pytest.mark.parametrize("size", [12, 16])
def test_the_mean_of_cam_is_the_score_and_its_positive_part_is_grad_cam(size: int):
    network, x = convolutional(), images(size=size)
    found = ActivationMaker.of(network, x)(x, LABELS)
    score = network(x).gather(1, LABELS[:, None])[:, 0]
    assert close(found.cam.mean((1, 2)) + network[-1].bias[LABELS], score)
    places = found.cam[0].numel()
    assert close(found.cam.clamp(min=0), places * found.grad_cam)


def test_a_network_that_ends_in_a_maximum():
    network, x = scene_net().double().eval().requires_grad_(False), images(2, 64)
    maker = ActivationMaker.of(network, x)
    found = maker(x, LABELS[:2])
    assert found.cam.shape == found.grad_cam.shape == (2, 8, 8)
    assert close(found.grad_cam, captums_grad_cam(network, maker.layer, x, LABELS[:2]))
    best = (found.features.double().amax((2, 3)) * network.head.weight[LABELS[:2]]).sum(1)
    score = network(x).gather(1, LABELS[:2, None])[:, 0]
    assert close(best + network.head.bias[LABELS[:2]], score)


# ------------------------------------------------------------------------------- CAM, laws


def same(a: Activations, b: Activations) -> bool:
    return all(close(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def test_the_activations_of_a_batch_are_those_of_a_loop():
    network, x = convolutional(), images()
    maker = ActivationMaker.of(network, x, "1")
    together = maker(x, LABELS)
    for i in range(4):
        alone = maker(x[i : i + 1], LABELS[i : i + 1])
        one = Activations(**{f.name: getattr(together, f.name)[i : i + 1] for f in fields(alone)})
        assert same(alone, one)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_a_layer_whose_output_is_then_changed_in_place(layer: str):
    changed, plain = convolutional(inplace=True), convolutional()
    changed.load_state_dict(plain.state_dict())
    x = images()
    assert same(
        ActivationMaker.of(changed, x, layer)(x, LABELS),
        ActivationMaker.of(plain, x, layer)(x, LABELS),
    )


class FunctionalReLU(nn.Module):
    """The features are those after an activation that is no module, as in DenseNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.relu(self.conv(x), inplace=True).mean((2, 3)))


def test_features_that_are_rectified_in_place_by_a_function():
    network, x = FunctionalReLU().double(), images()
    found = ActivationMaker.of(network, x)(x, LABELS)
    assert close(found.features, network.conv(x).relu())
    score = network(x).gather(1, LABELS[:, None])[:, 0]
    assert close(found.cam.mean((1, 2)) + network.head.bias[LABELS], score)


@pytest.mark.parametrize("frozen", [True, False])
def test_no_parameter_receives_a_gradient(frozen: bool):
    network, x = convolutional().requires_grad_(not frozen), images()
    with torch.no_grad():  # a caller's mode does not matter
        for gradient in GRADIENTS:
            gradient(network, x, LABELS)
        found = ActivationMaker.of(network, x)(x, LABELS)
    assert all(p.grad is None for p in network.parameters())
    assert x.grad is None
    assert not x.requires_grad
    assert not any(getattr(found, f.name).requires_grad for f in fields(found))


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_no_hook_is_left_behind():
    network, x = convolutional(), images()
    maker = ActivationMaker.of(network, x)
    maker(x, LABELS)
    assert hooks(network) == 0
    for fails in (lambda: ActivationMaker.of(network, x[:, :2]), lambda: maker(x[:, :2], LABELS)):
        with pytest.raises(RuntimeError):
            fails()
        assert hooks(network) == 0


def test_what_cam_cannot_read_is_refused():
    x = images()
    vgg = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 20), nn.Linear(20, 5)
    ).double()
    convolutions = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    hidden = nn.Sequential(  # as many hidden units as channels, and yet no pooling
        *(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2000, 20), nn.ReLU()),
        nn.Linear(20, 5),
    ).double()
    refusals = [
        (hidden, None, "5 reads something else"),
        (convolutions, None, "this one reads something else"),
        (vgg, None, "mean or maximum of its last features over all places; 4 reads something else"),
        (vgg[:4], None, "3 reads something else"),
        (convolutional(), "layer4", "no layer 'layer4' with places; the last ones are 0, 1, 2, 3$"),
        (convolutional(), "4", "compare.gradcam_layer: no layer '4' with places"),
    ]
    for network, layer, words in refusals:
        with pytest.raises(ClassifierError, match=words):
            ActivationMaker.of(network, x, layer)


# ------------------------------------------------------------------------------- box features


def test_boxes_on_features_that_are_the_same_everywhere():
    features = torch.tensor([2.0, -3.0, 0.5]).reshape(1, 3, 1, 1).expand(2, 3, 7, 5)
    boxes = torch.tensor([[[0, 0, 1, 1], [0.1, 0.2, 0.15, 0.9]]] * 2)
    expected = torch.tensor([2.0, -3.0, 0.5]).expand(2, 2, 3)
    assert torch.allclose(pooled_features(features, boxes), expected)


def test_boxes_on_features_of_the_left_half():
    features = torch.zeros(1, 1, 6, 8)
    features[..., :4] = 1
    boxes = torch.tensor([[[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 0.5], [0.25, 0, 0.75, 1]]])
    expected = torch.tensor([1, 0, 0.5, 0.5]).reshape(1, 4, 1)
    assert torch.allclose(pooled_features(features, boxes), expected)


def test_a_box_along_the_cells_has_their_mean_and_each_image_its_own():
    features = torch.randn(3, 4, 6, 8)
    cells = [(0, 0, 8, 6), (1, 2, 4, 3), (5, 1, 8, 6)]
    boxes = torch.tensor([[[x0 / 8, y0 / 6, x1 / 8, y1 / 6] for x0, y0, x1, y1 in cells]] * 3)
    found = pooled_features(features, boxes)
    assert found.shape == (3, 3, 4)
    for j, (x0, y0, x1, y1) in enumerate(cells):
        mean = features[:, :, y0:y1, x0:x1].mean((2, 3))
        assert torch.allclose(found[:, j], mean, atol=1e-5)


# ------------------------------------------------------------------------------- random weights


def random_lite0() -> nn.Module:
    network: nn.Module = EfficientNetLite0(source="efficientnet_lite0").load()
    return network


@pytest.mark.parametrize(
    ("build", "size", "classes"),
    [(scene_net, 64, 10), (random_lite0, 224, 1000)],
    ids=["scene_net", "lite0"],
)
def test_a_random_networks_maps_are_finite_and_not_zero(
    build: Callable[[], nn.Module], size: int, classes: int
):
    names = tuple(map(str, range(classes)))
    config = Python(source="python", function="m:f", classes=names, input_size=size)
    network = prepare(randomised(build(), 3), config)
    maker = MapMaker(network, config.mean, config.std, batch_size=2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    maps = maker(pixels, np.array([1, 5]))
    assert np.isfinite(maps.scale).all()
    assert (maps.scale > 0).all()
    assert (maps.map.max(1) == 1).all()
    assert not np.array_equal(maps.map[0], maps.map[1])


def test_a_vgg_has_grad_cam_and_features_but_no_cam():
    vgg = torchvision.models.vgg11(num_classes=CLASSES).eval()
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maker = ActivationMaker.of(vgg, x[:1], "features.10", cam=False)
    found = maker(x, torch.tensor([0, 1]))
    assert found.cam is None
    assert found.grad_cam.shape == (2, 8, 8)
    assert found.features.shape == (2, 512, 7, 7)
    with pytest.raises(ClassifierError, match=r"classifier\.6 reads something else"):
        ActivationMaker.of(vgg, x[:1])
