"""Every heat map is captum's, is known by hand on a small network, and minds its own image."""

from collections.abc import Iterator

import captum.attr
import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from sensloc.errors import ClassifierError
from sensloc.heatmaps import KINDS, column, kind_and_stride, title
from sensloc.heatmaps.cam import class_activation_map, weighted
from sensloc.heatmaps.gradcam import gradient_activation
from sensloc.heatmaps.integrated import integrated_gradients
from sensloc.heatmaps.maker import reading, taps_of
from sensloc.heatmaps.passes import Options, Pass, look
from sensloc.heatmaps.readout import Readout
from sensloc.heatmaps.regions import pooled_features
from sensloc.heatmaps.smoothgrad import smooth_gradient
from sensloc.networks.efficientnet_lite0 import EfficientNetLite0
from sensloc.networks.prepare import Prepared, prepare, tapped
from sensloc.networks.scene_net import scene_net
from sensloc.networks.taps import FEATURES, PIXELS

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


def prepared(network: nn.Module, x: Tensor, *taps: int | str) -> Prepared:
    return tapped(network.eval().requires_grad_(False), x, taps)


def passed(network: nn.Module, x: Tensor, *taps: int | str, labels: Tensor = LABELS) -> Pass:
    return look(prepared(network, x, *taps), x, labels[: len(x)], taps)


def gradient(network: nn.Module, x: Tensor) -> Tensor:
    return passed(network, x, PIXELS).sensitivity(PIXELS)


def smooth(network: nn.Module, x: Tensor, **options: float) -> Tensor:
    return smooth_gradient(passed(network, x), Options(**options))


def integrated(network: nn.Module, x: Tensor, steps: int) -> Tensor:
    return integrated_gradients(passed(network, x), Options(steps=steps))


def grad_cam(network: nn.Module, x: Tensor, layer: str = FEATURES) -> Tensor:
    seen = passed(network, x, layer)
    return gradient_activation(seen.activation(layer), seen.sensitivity(layer))


def cam(network: nn.Module, x: Tensor) -> Tensor:
    return class_activation_map(passed(network, x, FEATURES))


def map_of(name: str, network: nn.Module, x: Tensor, options: Options | None = None) -> Tensor:
    """A heat map by its name: [n, h, w]."""
    made = reading(name, options or Options())
    return made.read(passed(network, x, *made.taps))


GRADIENTS = [
    gradient,
    lambda network, x: smooth(network, x, samples=3, level=0.2, seed=5),
    lambda network, x: integrated(network, x, 4),
]

# ------------------------------------------------------------------------------- the registry


def test_a_name_is_its_file_and_for_inner_layers_a_stride():
    assert kind_and_stride("gradient") == ("gradient", None)
    assert kind_and_stride("layercam_16") == ("layercam", 16)
    assert title("layercam_16") == "LayerCAM at stride 16"
    assert (column("gradient"), column("layercam_16")) == ("map", "map_layercam_16")
    for name in ("layercam", "gradient_8", "layercam_0", "layercam_x", "map", ""):
        with pytest.raises(ValueError, match=r"there are .*layercam_<stride>"):
            kind_and_stride(name)


def some_readout() -> Readout:
    """Of a network's features at stride 2, by random weights."""
    rng, blocks = np.random.default_rng(0), ("inner_2", "activation_4")
    values = 1 + scene_net(CLASSES).features[2][0].out_channels
    return Readout(
        blocks,
        grid=8,
        means_x=np.zeros((64, values), np.float32),
        means_y=np.full(64, 0.5, np.float32),
        weights=rng.normal(0, 0.1, (2, values)).astype(np.float32),
        classes=np.array([1]),
    )


MADE = [kind for kind, entry in KINDS.items() if not (entry.channels or entry.part)]


@pytest.mark.parametrize("kind", MADE)
def test_every_heat_map_is_one_number_per_place_of_each_image(kind: str):
    name = f"{kind}_2" if KINDS[kind].inner else kind
    x = images(size=64)
    options = Options(samples=2, steps=2, readouts={kind: (some_readout(),)})
    found = map_of(name, scene_net(CLASSES).double(), x, options)
    assert found.ndim == 3
    assert found.shape[0] == len(x)
    assert found.isfinite().all()
    how = reading(name, options)
    assert how.signed or how.share or (found >= 0).all()


# ------------------------------------------------------------------------------- captum


def saliency(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """The derivative, with its sign."""
    explained = captum.attr.Saliency(network)
    return explained.attribute(x.clone().requires_grad_(), labels, abs=False)


def test_the_gradient_is_captums_saliency():
    network, x = convolutional(), images()
    seen = passed(network, x, PIXELS)
    assert close(seen.sensitivity(PIXELS), saliency(network, x, LABELS))
    assert close(seen.logits, network(x))


@pytest.mark.parametrize("steps", [2, 4, 9])
def test_integrated_gradients_are_captums(steps: int):
    network, x = convolutional(), images()
    theirs = captum.attr.IntegratedGradients(network).attribute(
        x, 0, LABELS, n_steps=steps, method="riemann_middle"
    )
    assert close(integrated(network, x, steps), theirs)


def test_smoothgrad_is_the_mean_of_captums_saliency_over_the_noisy_images():
    network, x = convolutional(), images()
    noise = torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    span = (x.flatten(1).max(1).values - x.flatten(1).min(1).values).reshape(-1, 1, 1, 1)
    noisy = [x + 0.15 * span * sample for sample in noise]
    ours = smooth(network, x, samples=6, level=0.15, seed=7)
    assert close(ours, torch.stack([saliency(network, one, LABELS) for one in noisy]).mean(0))


def captums_grad_cam(network: nn.Module, layer: str, x: Tensor, labels: Tensor) -> Tensor:
    explained = captum.attr.LayerGradCam(network, network.get_submodule(layer))
    return explained.attribute(x, labels, relu_attributions=True)[:, 0].detach()


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_grad_cam_is_captums_at_every_layer(layer: str):
    network, x = convolutional(), images()
    found = grad_cam(network, x, layer)
    assert found.max() > 0
    assert close(found, captums_grad_cam(network, layer, x, LABELS))


@pytest.mark.parametrize("layer", ["layer4", "layer4.1.relu", FEATURES])
def test_a_layer_that_is_called_twice_is_read_at_its_last_call(layer: str):
    network, x = torchvision.models.resnet18(num_classes=CLASSES).double().eval(), images(2, 64)
    expected = captums_grad_cam(network, "layer4", x, LABELS[:2])
    assert close(grad_cam(network, x, layer), expected)


@pytest.fixture(scope="module")
def lite0() -> Prepared:
    config = EfficientNetLite0(source="efficientnet_lite0")
    return prepare(config.load(), config, taps=(FEATURES,))


def test_real_weights_agree_with_captum(lite0: Prepared):
    x, labels = torch.randn(2, 3, 224, 224), torch.tensor([207, 3])
    seen = look(lite0, x, labels, (PIXELS, FEATURES))
    theirs = saliency(lite0.network, x, labels)
    largest = float(theirs.abs().max())
    assert torch.allclose(seen.sensitivity(PIXELS), theirs, rtol=1e-3, atol=1e-5 * largest)
    assert seen.activation(FEATURES).shape == (2, 1280, 7, 7)
    found = gradient_activation(seen.activation(FEATURES), seen.sensitivity(FEATURES))
    expected = class_activation_map(seen).clamp(min=0) / 49
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))


# ------------------------------------------------------------------------------- per pixel


def test_a_linear_networks_smoothgrad_is_its_weights():
    network = linear()
    assert close(smooth(network, images(), samples=5), weights_of(network))


def test_a_linear_networks_integrated_gradients_are_pixel_times_weight_and_complete():
    network, x = linear(), images()
    found = integrated(network, x, 3)
    assert close(found, x * weights_of(network))
    change = network(x) - network(torch.zeros_like(x))
    assert close(found.sum((1, 2, 3)), change.gather(1, LABELS[:, None])[:, 0])


def test_integrated_gradients_sum_to_the_change_of_the_score():
    network, x = convolutional(), images()
    with torch.no_grad():
        change = (network(x) - network(torch.zeros_like(x))).gather(1, LABELS[:, None])[:, 0]

    def error(steps: int) -> float:
        found = integrated(network, x, steps)
        return float((found.sum((1, 2, 3)) - change).abs().max() / change.abs().max())

    assert error(64) < 0.01 < error(2)


def test_an_image_of_one_value_meets_no_noise():
    network, x = convolutional(), torch.full((1, 3, SIZE, SIZE), 0.3, dtype=torch.float64)
    assert close(smooth(network, x, samples=3), gradient(network, x))


def test_the_noise_is_that_of_the_seed_and_the_callers_dice_are_left():
    network, x = convolutional(), images()
    before = torch.random.get_rng_state()
    first, again, other = (smooth(network, x, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, rtol=1e-3)


NAMES = ("gradient", "smoothgrad", "integrated", "cam", "gradcam", "inner_2", "layercam_2")


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_a_loop(name: str):
    network, x = scene_net(CLASSES).double().eval(), images(size=16)
    x = x * torch.tensor([1.0, 2, 0.1, 5]).reshape(4, 1, 1, 1)
    together = map_of(name, network, x)
    assert together.dtype == torch.float32
    made, ready = reading(name, Options()), prepared(network, x, *reading(name, Options()).taps)
    for i in range(4):
        alone = made.read(look(ready, x[i : i + 1], LABELS[i : i + 1], made.taps))
        assert close(alone[0], together[i])


# ------------------------------------------------------------------------------- CAM, by hand


def test_weighted_channels_by_hand():
    features = torch.tensor([[[[1.0, 2]], [[3, 4]]], [[[1, 0]], [[0, 1]]]])  # [2, 2, 1, 2]
    weights = torch.tensor([[1.0, -1], [2, 10]])
    assert torch.equal(weighted(features, weights), torch.tensor([[[-2.0, -2]], [[2, 10]]]))


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
    for c, (down, across) in enumerate([(0, 0), (2, 5), (7, 3)]):
        x[0, c, down, across] = 1
    seen = passed(colours(), x, FEATURES, labels=torch.tensor([colour]))
    expected = 2 * x[0, colour] - x[0].sum(0)
    assert torch.equal(class_activation_map(seen)[0], expected)
    found = gradient_activation(seen.activation(FEATURES), seen.sensitivity(FEATURES))
    assert torch.equal(found[0], expected.clamp(min=0) / 64)
    assert torch.equal(seen.activation(FEATURES), x)


@pytest.mark.parametrize("size", [12, 16])
def test_the_mean_of_cam_is_the_score_and_its_positive_part_is_grad_cam(size: int):
    network, x = convolutional(), images(size=size)
    found = cam(network, x)
    score = network(x).gather(1, LABELS[:, None])[:, 0]
    assert close(found.mean((1, 2)) + network[-1].bias[LABELS], score)
    assert close(found.clamp(min=0), found[0].numel() * grad_cam(network, x))


def test_where_a_layer_feeds_the_head_alone_layercam_is_the_positive_part_of_each_channel():
    """There each place's derivative is the class's weight over the number of places."""
    network, x = scene_net(CLASSES).double().eval(), images(size=16)
    mean_pooled = nn.Sequential(
        network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), network.head
    )
    seen = passed(mean_pooled, x, 8)
    weights = network.head.weight[LABELS] / 4
    assert close(seen.sensitivity(8), weights[:, :, None, None].expand(4, -1, 2, 2))
    by_hand = (seen.activation(8) * weights.clamp(min=0)[:, :, None, None]).sum(1)
    assert close(map_of("layercam_8", mean_pooled, x), by_hand)
    moved = weights.abs().sum(1)[:, None, None].expand(4, 2, 2)
    assert close(map_of("inner_8", mean_pooled, x), moved)


def test_a_network_that_ends_in_a_maximum():
    network, x = scene_net().double().eval(), images(2, 64)
    seen = passed(network, x, FEATURES)
    assert class_activation_map(seen).shape == (2, 8, 8)
    assert close(grad_cam(network, x), captums_grad_cam(network, "features", x, LABELS[:2]))
    best = (seen.activation(FEATURES).double().amax((2, 3)) * network.head.weight[LABELS[:2]]).sum(
        1
    )
    score = network(x).gather(1, LABELS[:2, None])[:, 0]
    assert close(best + network.head.bias[LABELS[:2]], score)


# ------------------------------------------------------------------------------- laws of a pass


def test_the_backward_pass_stops_at_the_earliest_tap():
    """Nothing before it is differentiated: that layer's own derivative cannot be asked for."""
    network, x = convolutional(), images()
    seen = passed(network, x, "3")
    assert set(seen.slopes) == {"3"}
    assert not x.requires_grad
    both = passed(network, x, PIXELS, "1", "3")
    assert torch.equal(both.sensitivity("3"), seen.sensitivity("3"))
    assert close(both.sensitivity(PIXELS), gradient(network, x))


def test_a_forward_pass_alone_keeps_no_derivative():
    network, x = convolutional(), images()
    seen = look(prepared(network, x, FEATURES), x, LABELS, (FEATURES,), backward=False)
    assert not seen.slopes
    assert torch.equal(seen.activation(FEATURES), passed(network, x, FEATURES).activation(FEATURES))


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
def test_a_layer_whose_output_is_then_changed_in_place(layer: str):
    changed, plain = convolutional(inplace=True), convolutional()
    changed.load_state_dict(plain.state_dict())
    x = images()
    first, second = passed(changed, x, layer), passed(plain, x, layer)
    assert close(first.activation(layer), second.activation(layer))
    assert close(first.sensitivity(layer), second.sensitivity(layer))


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
    assert close(passed(network, x, FEATURES).activation(FEATURES), network.conv(x).relu())
    score = network(x).gather(1, LABELS[:, None])[:, 0]
    assert close(cam(network, x).mean((1, 2)) + network.head.bias[LABELS], score)


@pytest.mark.parametrize("frozen", [True, False])
def test_no_parameter_receives_a_gradient_and_no_result_carries_a_graph(frozen: bool):
    network, x = convolutional().requires_grad_(not frozen), images()
    ready = tapped(network, x, (FEATURES,))
    with torch.no_grad():  # a caller's mode does not matter
        seen = look(ready, x, LABELS, (PIXELS, FEATURES))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert x.grad is None
    assert not x.requires_grad
    for tap in (PIXELS, FEATURES):
        assert not seen.activation(tap).requires_grad
        assert not seen.sensitivity(tap).requires_grad


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_no_hook_is_left_behind():
    network, x = scene_net(CLASSES).eval(), images(size=16).float()
    ready = prepared(network, x, FEATURES)
    before = hooks(ready.network)
    look(ready, x, LABELS, (FEATURES,))
    assert hooks(ready.network) == before
    with pytest.raises(RuntimeError):
        look(ready, x[:, :2], LABELS, (FEATURES,))
    assert hooks(ready.network) == before


@pytest.mark.parametrize("layers", ["hidden", "no linear layer", "two linear layers"])
def test_a_network_without_cam_says_why(layers: str):
    network = {
        "hidden": nn.Sequential(  # as many hidden units as channels, and yet no pooling
            *(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2000, 20), nn.ReLU()),
            nn.Linear(20, 5),
        ),
        "no linear layer": nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "two linear layers": nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 20), nn.Linear(20, 5)
        ),
    }[layers].double()
    with pytest.raises(ClassifierError, match="CAM needs a network whose last linear layer reads"):
        cam(network, images())
    assert grad_cam(network, images()).isfinite().all()


def test_the_taps_of_several_readings_are_read_in_one_pass():
    readings = [reading(name, Options()) for name in ("gradient", "cam", "layercam_8")]
    assert taps_of(readings) == {PIXELS, FEATURES, 8}


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
