"""Places are found by their stride in any network, and what is read there is what runs there."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from sensloc.errors import ClassifierError
from sensloc.heatmaps.foreground import Cells, blocks_at
from sensloc.heatmaps.maker import map_maker, reading
from sensloc.heatmaps.passes import Options, look
from sensloc.heatmaps.readout import CellSums, Readout, covered, quantise
from sensloc.networks.prepare import Prepared, prepare, tapped
from sensloc.networks.python_function import Python
from sensloc.networks.scene_net import scene_net
from sensloc.networks.taps import FEATURES, PIXELS, locate, strides
from sensloc.networks.weights import randomised

SIZE = 64
CONFIG = Python(source="python", function="m:f", classes=tuple("abcde"), input_size=SIZE)


def probe(n: int = 1, size: int = SIZE) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def vit(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=5, **options).eval()


NETWORKS = {
    "resnet18": (torchvision.models.resnet18, {8: "layer2", 16: "layer3", 32: "layer4"}),
    "vgg11": (torchvision.models.vgg11, {8: "features.14", 16: "features.19"}),
    "mobilenet": (
        torchvision.models.mobilenet_v3_small,
        {8: "features.3", 16: "features.8", 32: "features"},
    ),
    "efficientnet_lite0": (
        lambda: timm.create_model("tf_efficientnet_lite0"),
        {8: "blocks.2", 16: "blocks.4", 32: "blocks", FEATURES: "bn2"},
    ),
    "convnext": (
        lambda: timm.create_model("convnext_atto"),
        {8: "stages.1", 16: "stages.2", 32: "stages"},
    ),
    "vit": (vit, {16: "blocks.10", FEATURES: "blocks.10"}),
    "scene_net": (scene_net, {2: "features.0", 4: "features.2", 8: "features"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stride_is_the_last_block_of_that_grid(name: str):
    make, expected = NETWORKS[name]
    torch.manual_seed(0)
    places = locate(make().eval(), probe(), expected).places
    assert {tap: place.module for tap, place in places.items()} == expected
    for tap, place in places.items():
        assert tap == FEATURES or place.height == place.width == SIZE // tap


def test_a_tap_that_the_network_has_not_is_refused_by_name():
    network = scene_net().eval()
    with pytest.raises(
        ClassifierError, match=r"no layer of stride 32; its strides are \[2, 4, 8\]"
    ):
        locate(network, probe(), [32])
    with pytest.raises(ClassifierError, match=r"no layer 'layer4' with places; .*features\.4"):
        locate(network, probe(), ["layer4"])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)).eval()
    with pytest.raises(ClassifierError, match="no layer with places"):
        locate(flat, probe(), [FEATURES])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "vgg11"])
def test_a_folded_network_is_read_where_the_plain_one_is(name: str):
    torch.manual_seed(0)
    make, expected = NETWORKS[name]
    network = make().eval().requires_grad_(False)
    taps = [tap for tap in expected if tap != FEATURES]
    outputs: dict[str, Tensor] = {}
    for tap in taps:
        module = network.get_submodule(expected[tap])
        module.register_forward_hook(lambda _, __, out, tap=tap: outputs.__setitem__(tap, out))
    x, labels = probe(2), torch.tensor([1, 3])
    network(x)
    ready = tapped(network, x, taps)
    seen = look(ready, x, labels, taps)
    for tap in taps:
        wanted = outputs[tap]
        error = (seen.activation(tap) - wanted).norm() / wanted.norm()
        assert error < 1e-3, tap


def test_a_transformers_tokens_are_a_grid_of_its_patches():
    network, x = vit(), probe(2)
    ready = tapped(network.requires_grad_(False), x, (16,))
    seen = look(ready, x, torch.tensor([1, 3]), (16,))
    assert seen.activation(16).shape == seen.sensitivity(16).shape == (2, 192, 4, 4)
    tokens = seen.activations[16]
    assert tokens.shape == (2, 17, 192)
    for row, column in ((0, 0), (2, 3)):
        assert torch.equal(seen.activation(16)[:, :, row, column], tokens[:, 1 + 4 * row + column])


NAMES = ("gradient", "random", "gradcam", "inner_16", "layercam_16")


def test_every_heat_map_of_a_transformer_depends_on_every_part_of_the_image():
    """At the patch convolution, or behind the last attention, Grad-CAM would be flat or zero."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    make = map_maker(
        vit,
        lambda network, taps: prepare(network, CONFIG, taps=taps),
        NAMES,
        Options(),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        batch_size=2,
        grid=4,
    )
    seen = make(pixels, np.array([1, 3]))
    for name in NAMES:
        maps = seen.maps[name]
        assert (maps.height, maps.width) == (4, 4)
        assert np.isfinite(maps.scale).all(), name
        assert (maps.scale > 0).all(), name
        assert not np.array_equal(maps.values[0], maps.values[1]), name
    with pytest.raises(ClassifierError, match="CAM needs a network"):
        map_maker(
            vit,
            lambda network, taps: prepare(network, CONFIG, taps=taps),
            ["cam"],
            Options(),
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
            batch_size=2,
        )(pixels, np.array([1, 3]))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_foreground_is_learned_from_any_network_and_read_again(name: str):
    """By the blocks that are found in it: with weights enough, it is what it was taught."""
    torch.manual_seed(0)
    network = NETWORKS[name][0]().eval()
    blocks, grid = blocks_at(*strides(network, probe())), 4
    cells = Cells.of(blocks, grid, Options())
    x, labels = torch.cat([probe(), 1 - probe().flip(3)]), torch.tensor([1, 3])
    passed = look(
        tapped(network.requires_grad_(False), x, cells.taps), x, labels, cells.taps, cells.backward
    )
    values, widths = cells(passed), cells.widths(passed)
    assert values.shape == (2, grid**2, sum(widths.values()))
    assert values.isfinite().all()
    boxes = np.array([[0, 0, 0.5, 0.6], [0.3, 0.2, 1, 1]])
    sums = CellSums.from_batch(quantise(values.numpy()), quantise(covered(boxes, grid)))
    moments = sums.about(sums.means)
    small = np.full(sum(widths.values()), 1e-6)
    weights = moments.shared(moments.deviations, small)
    means = (sums.means.x.astype(np.float32), sums.means.y.astype(np.float32))
    readout = Readout(
        cells.blocks, grid, *means, weights[None].astype(np.float32), np.zeros(0, int)
    )
    made = reading("foreground", Options(readouts={"foreground": (readout,)})).read(passed)
    taught = covered(boxes, grid).reshape(2, grid, grid)
    error, before = (made.numpy() - taught), (taught - taught.mean(0))
    assert np.square(error).mean() < 0.5 * np.square(before).mean()


class Shift(nn.Module):
    """Learns something of every kind that is no layer of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 1, 8), 3.0))
        self.gain = nn.Parameter(torch.full((8,), 3.0))
        self.bias = nn.Parameter(torch.full((8,), 3.0))


@pytest.mark.parametrize(
    "make",
    [
        scene_net,
        vit,
        Shift,
        lambda: torchvision.models.vit_b_16(image_size=32, num_classes=5),
        lambda: timm.create_model("convnext_atto", num_classes=5),
    ],
    ids=["scene_net", "vit", "others", "packed projections", "layer scales"],
)
def test_a_randomised_network_keeps_nothing_that_was_learned(make):
    """Class token, position embedding and packed projections too."""
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    randomised(network, 0)
    for name, parameter in network.named_parameters():
        assert (parameter != 7).all(), name
        assert parameter.isfinite().all()
    first = {name: value.clone() for name, value in network.state_dict().items()}
    again, other = randomised(make(), 0).state_dict(), randomised(make(), 1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in dict(network.named_parameters()))
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_network_that_cannot_be_traced_is_read_through_hooks():
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
            self.head = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            if float(x.sum()) > 1e9:
                return self.head(x.mean((2, 3))[:, :1].expand(-1, 4))
            return self.head(self.features(x).mean((2, 3)))

    network, x = Untraceable().eval().requires_grad_(False), probe(2)
    ready: Prepared = tapped(network, x, (2, PIXELS))
    seen = look(ready, x, torch.tensor([0, 1]), (PIXELS, 2))
    assert torch.equal(seen.activation(2), network.features(x))
    assert seen.sensitivity(PIXELS).abs().sum() > 0
