"""One TOML file per named run, parsed to frozen values. An unknown key stops the run.

Every section but two is part of the run's identity: ``Config.fingerprint`` is a hash of them,
written into every table. ``[resources]`` says how fast a run is, and ``[compare]`` is made of a
run and has an identity of its own. The keys of ``[dataset]`` stand with the layouts in
``sensloc/datasets``, those of ``[classifier]`` with the sources in ``sensloc/networks``.
"""

from sensloc.config.file import ConfigError, absolute, load_config, read_config
from sensloc.config.named import first_lines
from sensloc.config.run import NO_IDENTITY, Config
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

__all__ = [
    "NO_IDENTITY",
    "Compare",
    "Config",
    "ConfigError",
    "Evaluate",
    "Fit",
    "Foreground",
    "Localizer",
    "Resources",
    "Sensitivity",
    "Split",
    "absolute",
    "first_lines",
    "load_config",
    "read_config",
]
