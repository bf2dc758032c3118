"""A finished run, or a copy of its localizer, that another run directory takes over."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec.core

from sensloc.config import Config, absolute, load_config
from sensloc.heatmaps import FOREGROUND
from sensloc.methods import catalogue, saved
from sensloc.methods.constant import ConstantBox
from sensloc.networks.scenes import SceneNet
from sensloc.prediction.facts import READOUT, LocalizerError, LocalizerFacts, read_facts, read_file
from sensloc.stages import readout_file
from sensloc.store.run import RunDir

OWN = ("name", "output", "dataset", "resources")
"""What a config for other data says itself: everything else is the fitted run's."""


@dataclass(frozen=True)
class FittedRun:
    """What a run has fitted, in memory: some megabytes.

    Attributes:
        url: Of the run, or of the copy of its localizer.
        facts: The localizer's.
        sections: Those of the run's config, as JSON has them, but ``OWN``.
        constant: The constant box that was tuned on its train images.
        files: Its methods, read-out and trained network, by their places in a run directory.
    """

    url: str
    facts: LocalizerFacts
    sections: Mapping[str, Any]
    constant: tuple[float, ...]
    files: Mapping[str, bytes]

    @classmethod
    def read(cls, url: str) -> "FittedRun":
        """Read a fitted run.

        Args:
            url: Folder of a finished run, or of a copy of its ``localizer``.

        Raises:
            LocalizerError: There is none, one of another version, or half of one.
            RunError: The run is of another version, or not finished.
            MethodError: A file is damaged.
        """
        url = absolute(url.rstrip("/"))
        folder, facts = read_facts(url)
        run = RunDir.found(url) if _is_run(url) else None
        if run:
            run.require("localizer")
        base = url if run else folder
        names = catalogue.of_run(run.config.maps) if run else facts.methods
        if not names:
            raise LocalizerError(
                f"{folder}: an earlier version of sensloc wrote it, with the method that predicts "
                "alone: name its run instead, or let this version write it anew"
            )
        files = {place: read_file(f"{base}/{place}") for place in map(saved.place, names)}
        methods = {name: saved.loads(files[saved.place(name)], base).method for name in names}
        if FOREGROUND in names:
            place = readout_file.place(readout_file.FOLDER)
            readouts, _ = saved.unpack(read_file(f"{base}/{place if run else READOUT}"), base)
            files[place] = saved.pack(readouts[:1], {})
        if isinstance(facts.classifier, SceneNet):
            files["classifier.pt"] = read_file(f"{base}/classifier.pt")
        constant = methods[catalogue.TUNED_BOX]
        assert isinstance(constant, ConstantBox)
        config = run.config.model_dump(mode="json") if run else _config_of(facts, names)
        sections = {name: value for name, value in config.items() if name not in OWN}
        return cls(url, facts, sections, constant.box, files)

    @property
    def of(self) -> dict[str, str]:
        """What rows that are made by it are made of."""
        digest = hashlib.blake2b(self.facts.model_dump_json().encode(), digest_size=16)
        for place in sorted(self.files):
            digest.update(self.files[place])
        return {"fitted run": digest.hexdigest()}

    @property
    def source(self) -> dict[str, Any]:
        """What ``run.json`` says of it, see ``sensloc.report.text.taken_from``."""
        return {
            "run": self.facts.run,
            "url": self.url,
            "config_hash": self.facts.config_hash,
            "label": self.facts.sensitivity.label,
            "constant": self.constant,
        }

    def config_on(
        self, path: str, data: str | None, output: str, changes: Sequence[str] = ()
    ) -> Config:
        """Return the config of a run directory that judges it on all images of a data set.

        The maps of its table are of the predicted class, which every image has.

        Args:
            path: A TOML file, of which ``OWN`` is taken.
            data: Replaces ``dataset.root``.
            output: The run directory.
            changes: Of the file, see ``load_config``.

        Raises:
            ConfigError: The file is missing or wrong, or a change is of what is the run's.
        """
        fixed = {
            **self.sections,
            "sensitivity": self.facts.sensitivity.model_dump(mode="json") | {"label": "predicted"},
            "split": {"train": 0, "validation": 0, "test": 1},
        }
        config = load_config(path, data=data, output=output, changes=changes, fixed=fixed)
        return config.model_copy(update={"name": f"{self.facts.run}_on_{config.name}"})

    def write(self, run: RunDir, folder: str) -> None:
        """Write its files whose places begin so into a run directory."""
        for place, data in self.files.items():
            if place.startswith(folder):
                run.write(place, data)


def _is_run(url: str) -> bool:
    files, path = fsspec.core.url_to_fs(url)
    return bool(files.exists(f"{path}/run.json"))


def _config_of(facts: LocalizerFacts, names: Sequence[str]) -> dict[str, Any]:
    """Return the sections of a run's config that its localizer knows; the others are empty."""
    known = facts.model_dump(mode="json")
    return {
        **{name: {} for name in Config.model_fields},
        "classifier": known["classifier"],
        "sensitivity": known["sensitivity"],
        "foreground": {"looks": sum(name in names for name in catalogue.FOREGROUNDS)},
        "evaluate": {"iou": facts.iou},
    }
