"""The sections of a config that say how the stages work, with their defaults."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sensloc import heatmaps
from sensloc.methods import catalogue
from sensloc.sections import Above, NotNegative, Positive, Section, Share

BATCH = 32
"""Images of a pass, where nothing else is said."""

IMAGE_ID = "{image_id}"
"""Stands for the id of an image in the name of a file."""


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
    if heatmaps.is_learned(name):
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
    precision: Literal["float32", "tf32", "bfloat16", "fastest"] = "float32"
    """The arithmetic of the passes; an NVIDIA GPU has "tf32". "fastest" is what a short measurement
    says, of this network where the run begins, and stays that of the run."""
    max_deviation: Above = 0.25
    """The most that maps in another arithmetic may be from float32's: the relative L2 distance, the
    mean of a few of the run's images, which is looked at before any map is made."""
    batch_size: Positive | Literal["fastest"] = BATCH
    """Images of a pass, or "fastest", as for ``precision``: as many as make an image's time less,
    and the device's memory holds. It is here and not in [resources]: kernels round differently at
    another batch size."""

    @property
    def nominal_batch(self) -> int:
        """Images of a pass, where the fastest is not measured yet; units are multiples of it."""
        return BATCH if self.batch_size == "fastest" else self.batch_size


def _a_reading(name: str) -> str:
    if heatmaps.is_learned(name):
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
    sensitivities, LayerCAM and activations at the network's two coarsest strides, HiResCAM at the
    coarsest, and CAM."""
    penalties: Annotated[tuple[Above, ...], Field(min_length=1)] = (0.1, 0.3, 1.0, 3.0)
    """Candidates, ascending, of the penalty on activations; that on heat maps is fixed."""
    shrinkages: Annotated[tuple[Above, ...], Field(min_length=1)] = (5, 15, 50, 150, 500, 5000)
    """Candidates of how many images' worth of evidence moves a class away from what all share."""
    tolerance: NotNegative = 0.1
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


def _a_place(place: str) -> str:
    files = IMAGE_ID in place
    if place.endswith(".npy") != files:
        raise ValueError(f"files of one map each are named like 'maps/{IMAGE_ID}.npy'")
    return place


MapName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
"""A name for heat maps of others: it becomes a part of names of columns and methods."""

MapPlace = Annotated[str, AfterValidator(_a_place)]
"""Where heat maps of others are: NumPy's files, one for each image id, or a Parquet table."""


class Compare(Section):
    """The methods that ``sensloc compare`` runs on a finished run: see ``sensloc/methods``.

    They are no part of ``Config.fingerprint``: a comparison is made of a run, and leaves it as it
    is.
    """

    methods: Annotated[tuple[MethodName, ...], Field(min_length=1)] | None = None
    """None: all that have a name of their own in the catalogue and whose maps the run makes."""
    also: tuple[MethodName, ...] = ()
    """Further methods, beside those of ``methods``."""
    maps: dict[MapName, MapPlace] = Field(default_factory=dict)
    """Heat maps that others made of the same images, by a name: "maps/{image_id}.npy", an array
    [h, w] for each image, or a Parquet file or folder with the columns image_id, map (row by row),
    height and width. Each gets a box by threshold, central mass, soft IoU and a linear map."""
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
    label_counts: tuple[Positive, ...] = (1, 2, 5, 10, 20, 50)
    """Boxed images per class of the label-efficiency curve; all of them are its last point."""
    label_draws: Positive = 3
    """How often each number of images is drawn."""
    unseen: tuple[str, ...] | None = None
    """Wnids of the first group of classes, for learning on one group and testing on the other;
    None: half of the classes, drawn."""
    speed_images: Positive = 32
    """Test images that every method is timed on."""
    speed_rounds: Annotated[int, Field(ge=0)] = 3
    """Rounds, in each of which every method takes its turn; medians are reported. With 0 no method
    is timed."""

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
    cpus_per_task: Above = 0.5
    """CPUs of a fetching and decoding task. actors * cpus_per_actor must leave room for some."""
    rows_per_block: Positive = 256
    """Rows of one block at most: the unit of scheduling and of a Parquet file. Blocks are whole
    batches, as many for one actor as for another."""
    connections: Positive = 8
    """Images that one task fetches at once."""

    @property
    def device(self) -> str:
        """Where networks run: the name of a torch device."""
        return "cuda" if self.gpus_per_actor else "cpu"

    @property
    def spare(self) -> float:
        """CPUs that actors leave to others: to two tasks."""
        return 2 * self.cpus_per_task
