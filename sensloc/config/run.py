"""A run's whole config, and what of it decides rows."""

import hashlib
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from sensloc import heatmaps
from sensloc.config.sections import (
    Compare,
    Evaluate,
    Fit,
    Foreground,
    Localizer,
    Resources,
    Sensitivity,
    Split,
)
from sensloc.datasets import AnyDataset
from sensloc.methods import catalogue
from sensloc.networks.sources import AnyClassifier
from sensloc.sections import Section

NO_IDENTITY = {"compare", "resources", "output", "name"}
"""Keys that decide no row of the run's tables."""


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
        named = {
            "localizer.method": (self.localizer.method,),
            "compare.methods": self.compare.methods,
            "compare.also": self.compare.also,
        }
        for key, methods in named.items():
            lacking = [name for name in methods or () if name != "best" and not self._makes(name)]
            if lacking:
                raise ValueError(f"{key} has {', '.join(lacking)}: foreground.looks is too small")
        return self

    def _makes(self, method: str) -> bool:
        """Tell whether the run makes the foregrounds that a method reads."""
        names = heatmaps.names_of(catalogue.entry(method).columns)
        needed = {
            heatmaps.SECOND if name == heatmaps.SECOND else heatmaps.FOREGROUND
            for name in names
            if heatmaps.is_learned(name)
        }
        return needed <= set(self.maps)

    @property
    def compared(self) -> tuple[str, ...]:
        """The methods of the comparison: those that are named, or all whose maps the run makes, and
        what comes beside, heat maps of others last.
        """
        named = self.compare.methods or tuple(filter(self._makes, catalogue.NAMED))
        given = (method for name in self.compare.maps for method in catalogue.of_given(name))
        return tuple(dict.fromkeys((*named, *self.compare.also, *given)))

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
