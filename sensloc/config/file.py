"""A run's TOML file."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec
from pydantic import ValidationError

from sensloc.config.named import located, named_configs
from sensloc.config.run import Config
from sensloc.errors import SenslocError


class ConfigError(SenslocError):
    """A config file that cannot be used: names the file, the key and what was expected."""


def load_config(
    path: str,
    *,
    data: str | None = None,
    output: str | None = None,
    changes: Sequence[str] = (),
    fixed: Mapping[str, Any] | None = None,
) -> Config:
    """Read a run's TOML file.

    Args:
        path: path or URL of the file, or the name of a config of ``conf/``.
        data: replaces ``dataset.root``.
        output: replaces ``output``.
        changes: "section.key=value", the value as in TOML; quotes may be left out.
        fixed: sections of a fitted run, which take the place of the file's; no change is of these.

    Returns:
        The config; its local paths are made absolute, since workers run elsewhere.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, missing or wrong.
    """
    try:
        raw = tomllib.loads(read_config(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    if data is not None and isinstance(raw.get("dataset"), dict):
        raw["dataset"]["root"] = data
    if output is not None:
        raw["output"] = output
    for change in changes:
        _change(raw, change)
        if (section := change.partition(".")[0].strip()) in (fixed or {}):
            raise ConfigError(f"--set {change}: [{section}] is that of the fitted run")
    raw |= fixed or {}
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        lines = [_line(e["loc"], e["msg"], e["input"]) for e in error.errors()]
        raise ConfigError("\n".join([f"{path}: {len(lines)} bad value(s)", *lines])) from error
    return _with_absolute_places(config)


def read_config(path: str) -> str:
    """Return the text of a TOML file: see ``load_config``.

    Raises:
        ConfigError: there is no such file, nor a config of that name, or it cannot be read.
    """
    try:
        with fsspec.open(located(path), "rb") as file:
            return str(file.read().decode())
    except FileNotFoundError as error:
        names = ", ".join(named_configs())
        raise ConfigError(f"{path}: no such config file; the named configs are {names}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: a folder, not a TOML file such as those in conf/") from error
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


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


def _with_absolute_places(config: Config) -> Config:
    """Return the config with its local paths made absolute."""
    dataset = config.dataset.model_copy(update={"root": absolute(config.dataset.root)})
    maps = {name: absolute(place) for name, place in config.compare.maps.items()}
    compare = config.compare.model_copy(update={"maps": maps})
    output = absolute(config.output)
    return config.model_copy(update={"dataset": dataset, "compare": compare, "output": output})


def _line(location: tuple[int | str, ...], message: str, given: Any) -> str:
    """Return what a wrong value is; of what is wrong with several keys the message names them."""
    return f"  {_key(location)}: {message} (got {given!r})" if location else f"  {message}"


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
