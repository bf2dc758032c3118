"""What a localizer says of itself: ``localizer.json``."""

import json
from typing import TYPE_CHECKING, Any

import fsspec
from pydantic import ValidationError

from sensloc.config import Sensitivity
from sensloc.errors import SenslocError, one_line
from sensloc.networks.sources import AnyClassifier
from sensloc.prediction.confidence import Confidence, ConfidenceBin
from sensloc.sections import Section

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.networks.precision import Precision

FORMAT = 3
"""The version of the folder's layout."""

METHOD = "method.npz"
"""The file of the fitted method in the folder."""

READOUT = "readout.npz"
"""The file of the read-out in the folder."""


class LocalizerError(SenslocError):
    """A localizer cannot be loaded; the message says what is missing or differs."""


class HeldOutAccuracy(Section):
    """How right boxes and confidences were on one set of the run, the class predicted too.

    Attributes:
        images: how many there were.
        corloc: percent of the images whose box was right.
        confidence: the mean, in percent.
        calibration_error: the confidence's expected calibration error, in percentage points.
        reliability: the promised beside the kept.
    """

    images: int
    corloc: float
    confidence: float
    calibration_error: float
    reliability: tuple[ConfidenceBin, ...]


class LocalizerFacts(Section):
    """The content of ``localizer.json``.

    Attributes:
        format: version of the folder's layout.
        version: of sensloc.
        run: the run's name.
        config_hash: of the run's config.
        classifier: the network, as the run's config has it.
        weights: hash of the network's weights, see ``sensloc.networks.prepare.weights_hash``.
        wnids: the class of each of the network's outputs.
        names: of these classes, for people.
        sensitivity: how maps are made.
        method: the name of the method in the run's table.
        methods: all that the run has fitted, each a file of the folder ``methods``; none in a
            localizer that was written before there were any.
        looks: how often an image is looked at: 2 with a second look.
        iou: the IoU from which a box was right.
        confidence: the chance that a box is right, from its evidence.
        validation: accuracy on the set that the confidence was learned on.
        test: accuracy on a set that nothing was learned on.
    """

    format: int
    version: str
    run: str
    config_hash: str
    classifier: AnyClassifier
    weights: str
    wnids: tuple[str, ...]
    names: tuple[str, ...]
    sensitivity: Sensitivity
    method: str
    methods: tuple[str, ...] = ()
    looks: int
    iou: float
    confidence: Confidence
    validation: HeldOutAccuracy
    test: HeldOutAccuracy

    @property
    def precision(self) -> "Precision":
        """The arithmetic of the passes: one that is named, as its run has chosen it.

        Raises:
            LocalizerError: None is named.
        """
        if self.sensitivity.precision == "fastest":
            raise LocalizerError("localizer.json: sensitivity.precision: name the run's own")
        return self.sensitivity.precision

    def require_weights(self, weights: str, where: str) -> None:
        """Make sure that a network is the run's.

        Args:
            weights: The hash of its weights.
            where: The localizer, for the message.

        Raises:
            LocalizerError: It is another one.
        """
        if weights != self.weights:
            raise LocalizerError(
                f"{where}: the network's weights are not those of the run (their hash is "
                f"{weights}, not {self.weights}): install the package versions of "
                "localizer.json's run"
            )


def read_file(url: str) -> bytes:
    """Return a file that a localizer, or the run that it is of, must have.

    Raises:
        LocalizerError: It is not there.
    """
    try:
        with fsspec.open(url, "rb") as file:
            return bytes(file.read())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LocalizerError(
            f"{url}: no such file: the folder was copied in part, or is of an earlier version of "
            "sensloc: copy the whole folder localizer/ of the run, or name the run itself"
        ) from error


def read_facts(url: str) -> tuple[str, LocalizerFacts]:
    """Return the folder of a localizer, and its facts.

    Args:
        url: folder of a finished run, or of a copy of its ``localizer``.

    Raises:
        LocalizerError: There is none, or one of another version.
    """
    url = url.rstrip("/")
    for folder in (url, f"{url}/localizer"):
        try:
            with fsspec.open(f"{folder}/localizer.json", "rb") as file:
                content: Any = json.load(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise LocalizerError(f"{folder}/localizer.json: not a JSON file: {error}") from error
        try:
            return folder, LocalizerFacts.model_validate(content)
        except ValidationError as error:
            made_by = content.get("version", "?") if isinstance(content, dict) else "?"
            raise LocalizerError(
                f"{folder}/localizer.json: not of this version of sensloc but of {made_by}: use "
                f"that one, or make the run again with this one ({one_line(str(error))})"
            ) from error
    raise LocalizerError(
        f"{url}: no localizer there: finish that run (see `sensloc status`), or name its folder"
    )
