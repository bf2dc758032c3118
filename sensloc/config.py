"""One TOML file per named run, parsed to frozen values. An unknown key stops the run.

Every section but two is part of the run's identity: ``Config.fingerprint`` is a hash of them,
written into every table. ``[resources]`` says how fast a run is, and ``[compare]`` is made of a
run and has an identity of its own. The keys of ``[dataset]`` stand with the layouts in
``sensloc/datasets``, those of ``[classifier]`` with the sources in ``sensloc/networks``.
"""

import hashlib
import os
import tomllib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import fsspec
from pydantic import AfterValidator, Field, ValidationError, model_validator

from sensloc import heatmaps
from sensloc.datasets import AnyDataset
from sensloc.errors import SenslocError
from sensloc.methods import catalogue
from sensloc.networks import AnyClassifier
from sensloc.sections import Above, NotNegative, Positive, Section, Share

NO_IDENTITY = {"compare", "resources", "output", "name"}
"""Keys that decide no row of the run's tables."""


class ConfigError(SenslocError):
    """A config file that cannot be used: names the file, the key and what was expected."""


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


def _a_heat_map(name: str) -> str:
    if heatmaps.has_channels(name):
        raise ValueError(f"{name} has many values at each place: it is no heat map")
    if name in (heatmaps.FOREGROUND, heatmaps.SECOND):
        raise ValueError("the foreground is made by the section [foreground]")
    return name


HeatMapName = Annotated[str, AfterValidator(_a_heat_map)]
"""The name of a heat map, see ``sensloc.heatmaps``."""


class Sensitivity(Section):
    """How heat maps are made: the paper's eq. 1 first of all, from one backward pass."""

    maps: Annotated[tuple[HeatMapName, ...], Field(min_length=1)] = (heatmaps.MAIN,)
    """The heat maps of the table: "gradient", the paper's, and any other beside it."""
    label: Literal["truth", "predicted"] = "truth"
    """Whose score is differentiated: the annotated class's (GT-known) or the predicted one's."""
    channels: Literal["max", "l2", "sum"] = "max"
    """How the three colour channels' absolute derivatives become one."""
    grid: Positive = 14
    """Maps are area-pooled to ``grid`` x ``grid``."""
    precision: Literal["float32", "bfloat16"] = "float32"
    batch_size: Positive = 32
    """It is here and not in [resources]: kernels round differently at another batch size."""


def _a_reading(name: str) -> str:
    heatmaps.kind_and_stride(name)
    if name in (heatmaps.FOREGROUND, heatmaps.SECOND):
        raise ValueError("the foreground cannot be read from itself")
    return name


class Foreground(Section):
    """How the foreground is learned: from what one pass says of each cell, see METHOD."""

    looks: Literal[0, 1, 2] = 1
    """2: the part around the first box is looked at once more, at full resolution, of every image
    that nothing is learned from; 0: no foreground."""
    images: Positive = 20_000
    """Train images, drawn, that it is learned from; all of them where there are fewer."""
    blocks: (
        Annotated[tuple[Annotated[str, AfterValidator(_a_reading)], ...], Field(min_length=1)]
        | None
    ) = None
    """What is read: heat maps by name, and "activation_<stride or module>"; by default inner
    sensitivities and LayerCAM at the network's three coarsest strides, and at the coarsest HiResCAM
    and the activations, and CAM."""
    penalties: Annotated[tuple[Above, ...], Field(min_length=1)] = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    """Candidates, ascending, of the penalty on activations; that on heat maps is fixed."""
    shrinkages: Annotated[tuple[Above, ...], Field(min_length=1)] = (5, 15, 50, 150, 500, 5000)
    """Candidates of how many images' worth of evidence moves a class away from what all share."""
    tolerance: NotNegative = 0.03
    """A larger penalty is taken where its error is at most this share above the least."""
    seed: int = 0
    """Seed of the draw."""


class Fit(Section):
    """How the linear map is learned and calibrated."""

    maps: Annotated[tuple[HeatMapName, ...], Field(min_length=1)] = (heatmaps.MAIN,)
    """What it reads, side by side: heat maps that ``sensitivity.maps`` names too."""
    normalise: Literal["l2", "sum", "max"] = "l2"
    """What each image's map is divided by before the linear map sees it."""
    ridges: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (
        1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 1e-1,
    )  # fmt: skip
    """Candidates, as a penalty per image (scikit-learn's ``alpha`` is this times n)."""
    size_factors: Annotated[tuple[Above, ...], Field(min_length=1)] = (
        0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.4, 1.5, 1.6,
    )  # fmt: skip
    """Candidates for the two factors of the size calibration."""


if TYPE_CHECKING:
    RunMethod = str
else:
    RunMethod = Literal[("best", *catalogue.PREDICTING)]


class Localizer(Section):
    """By which method a finished run predicts the boxes of other images."""

    method: RunMethod = "best"
    """A method of the run, or "best": the one that gets most validation images right."""


class Evaluate(Section):
    """How CorLoc is counted."""

    iou: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A box is right when its IoU with any box of the image is at least this."""
    bootstrap: Positive = 10_000
    """Resamplings behind each 95 % interval."""
    seed: int = 0


if TYPE_CHECKING:
    MethodName = str
else:
    MethodName = Literal[tuple(catalogue.METHODS)]


class Compare(Section):
    """The methods that ``sensloc compare`` runs on a finished run: see ``sensloc/methods``.

    They are no part of ``Config.fingerprint``: a comparison is made of a run, and leaves it as it
    is.
    """

    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] = tuple(catalogue.NAMED)
    train: Positive = 2000
    """Train images, drawn, that the methods learn from which need more than sensitivity maps."""
    validation: Positive = 1000
    """Validation images, drawn, by which they are chosen."""
    seed: int = 0
    """Seed of the draws."""
    shrinkages: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (
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
    lams: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (
        0, 0.001, 0.01, 0.1, 1.0,
    )  # fmt: skip
    """Candidates of co-localization's weights: of the clustering and of the prior."""
    gradcam_layer: str | None = None
    """Grad-CAM's layer, the name of one of the network's modules; None: the last features, as for
    CAM."""
    smoothgrad_samples: Positive = 4
    smoothgrad_level: Above = 0.15
    """Standard deviation of the noise, as a share of the image's range."""
    integrated_steps: Positive = 8
    label_counts: tuple[Positive, ...] = (1, 5, 10, 50)
    """Boxed images per class of the label-efficiency curve; all of them are its last point."""
    label_draws: Positive = 5
    """How often each number of images is drawn."""
    speed_images: Positive = 32
    """Test images that every method is timed on."""
    speed_rounds: Positive = 3
    """Rounds, in each of which every method takes its turn; medians are reported."""

    @property
    def identity(self) -> dict[str, Any]:
        """The values that two comparisons must share to give equal results."""
        return self.model_dump(mode="json", exclude={"speed_images", "speed_rounds"})


class Resources(Section):
    """How fast a run is, and on which device.

    No number here changes a result, but for one choice: whether ``gpus_per_actor`` is above 0
    decides the device, and on another device, or another kind of GPU, maps differ by rounding. A
    run records its device, and its maps are not gone on with on another. That and the CPU's
    capability are looked at where the work is done, see ``sensloc.store.provenance``.
    """

    actors: Positive = 2
    """Networks held at once, one per actor."""
    cpus_per_actor: Above = 0.5
    gpus_per_actor: NotNegative = 0
    """Above 0: networks run on a GPU, whose kernels round otherwise than a CPU's."""
    cpus_per_task: Above = 0.25
    """CPUs of a fetching and decoding task. actors * cpus_per_actor must leave room for some."""
    rows_per_block: Positive = 256
    """Rows of one block: the unit of scheduling and of a Parquet file."""
    connections: Positive = 8
    """Images that one task fetches at once."""


class Config(Section):
    """A run: what it is made of, and where it goes."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]
    output: str
    """Run directory: folder or fsspec URL."""
    dataset: AnyDataset
    split: Split = Split()
    classifier: AnyClassifier
    foreground: Foreground = Foreground()
    sensitivity: Sensitivity = Sensitivity()
    fit: Fit = Fit()
    evaluate: Evaluate = Evaluate()
    localizer: Localizer = Localizer()
    compare: Compare = Compare()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _maps_are_there(self) -> Self:
        made = self.sensitivity.maps
        lacking = [name for name in (heatmaps.MAIN, *self.fit.maps) if name not in made]
        if lacking:
            raise ValueError(f"sensitivity.maps lacks {', '.join(lacking)}")
        return self

    @model_validator(mode="after")
    def _foreground_is_there(self) -> Self:
        made = {heatmaps.column(name) for name in self.maps}
        lacking = {heatmaps.column(name) for name in (heatmaps.FOREGROUND, heatmaps.SECOND)} - made

        def has_all(name: str) -> bool:
            return lacking.isdisjoint(catalogue.entry(name).columns)

        predicts, named = self.localizer.method, self.compare.methods
        if predicts != "best" and not has_all(predicts):
            raise ValueError(f"localizer.method is {predicts}: foreground.looks is too small")
        left = tuple(filter(has_all, named))
        if "methods" in self.compare.model_fields_set and left != named:
            missing = ", ".join(name for name in named if name not in left)
            raise ValueError(f"compare.methods has {missing}: foreground.looks is too small")
        section = self.compare.model_copy(update={"methods": left})
        object.__setattr__(self, "compare", section)
        return self

    @property
    def maps(self) -> tuple[str, ...]:
        """The heat maps of the sensitivity table, by name."""
        learned = (heatmaps.FOREGROUND, heatmaps.SECOND)[: self.foreground.looks]
        return (*self.sensitivity.maps, *learned)

    @property
    def identity(self) -> dict[str, Any]:
        """The values that two configs must share to give equal results."""
        return self.model_dump(mode="json", exclude=NO_IDENTITY)

    @property
    def fingerprint(self) -> str:
        """A hash of ``identity``, 16 hex digits."""
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
        path: the TOML file.
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
    """Set a value that the command line gives, in place.

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
    """Return a TOML key such as ``dataset.root`` from pydantic's, which names the branch too."""
    section, *inner = location
    if section in ("dataset", "classifier"):
        inner = inner[1:]
    return ".".join(str(part) for part in (section, *inner) if not _is_type(part))


def _is_type(part: int | str) -> bool:
    """Tell whether a part is pydantic's name of a type of ``classes``, rather than a key."""
    return part == "str" or str(part).startswith("tuple[")


def absolute(url: str) -> str:
    """Return a local path made absolute; a URL as it is."""
    return url if "://" in url or "::" in url else os.path.abspath(os.path.expanduser(url))
