"""A fitted method as one file, written whole and read back: the only way to put one together.

The file is an ``.npz`` that ``numpy.load`` opens: its arrays, by their place in the method, and
``method.json``, the method's kind and numbers, its facts, and which run made it. It holds no
pickles, so that reading it runs nothing.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from sensloc.errors import SenslocError
from sensloc.methods import Fitted, Method, OfMaps

FOLDER = "methods"
"""The folder of a run directory that holds the methods that the run itself has fitted."""

KINDS: Mapping[str, str] = {
    "constant box": "sensloc.methods.constant.ConstantBox",
    "box per class": "sensloc.methods.constant.ClassBox",
    "linear box": "sensloc.methods.linear.LinearBox",
    "linear map": "sensloc.methods.least_squares.LinearMap",
    "threshold": "sensloc.methods.threshold.ThresholdBox",
    "mass": "sensloc.methods.threshold.MassBox",
    "soft IoU": "sensloc.methods.soft_iou.SoftIoUBox",
    "read-out": "sensloc.heatmaps.readout.Readout",
    "first proposal": "sensloc.methods.proposal.FirstProposal",
    "random proposal": "sensloc.methods.proposal.RandomProposal",
    "best proposal": "sensloc.methods.proposal.BestProposal",
    "chosen proposal": "sensloc.methods.proposal.ChosenProposal",
}
"""What a file may hold, by the name that stands in it: frozen dataclasses, and linear maps. Each is
imported when it is met: a worker that reads a read-out needs no scikit-learn, which takes as long
to import as half of torch."""

_NAMES = {place: name for name, place in KINDS.items()}


class MethodError(SenslocError):
    """A file that holds no method of this version; the message names the file."""


def place(name: str, folder: str = FOLDER) -> str:
    """Return the path of a method's file in its run directory.

    Args:
        name: The method's name in the catalogue, or that of its calibrated twin.
        folder: The folder that holds it.
    """
    return f"{folder}/{name}.npz"


def dumps(fitted: Fitted, **made_by: Any) -> bytes:
    """Return a fitted method as the bytes of its file; the same method gives the same bytes.

    Args:
        fitted: The method.
        made_by: What made it, such as a config's hash: plain values, for JSON.

    Raises:
        TypeError: It, or a part of it, is of no known kind.
    """
    return pack(fitted.method, fitted.facts, **made_by)


def loads(data: bytes, where: str) -> Fitted:
    """Return the fitted method that ``dumps`` wrote.

    Args:
        data: The bytes of its file.
        where: The file's path or URL, for the message of an error.

    Raises:
        MethodError: The file is damaged, holds pickles, or is of another version.
    """
    return Fitted(*unpack(data, where))


def pack(value: Any, facts: Mapping[str, Any], **made_by: Any) -> bytes:
    """Return a value of ``KINDS``, or a tuple of such, as the bytes of a file: see ``dumps``."""
    arrays: dict[str, Any] = {}
    document = {
        "method": _plain(value, "", arrays),
        "facts": dict(facts),
        "made_by": made_by,
    }
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as archive:  # an entry's time is 1980: no file has its own
        archive.writestr(ZipInfo("method.json"), json.dumps(document, indent=2))
        for name, array in arrays.items():
            with archive.open(ZipInfo(f"{name}.npy"), "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return buffer.getvalue()


def unpack(data: bytes, where: str) -> tuple[Any, dict[str, Any]]:
    """Return the value and the facts that ``pack`` wrote: see ``loads``."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            document = json.loads(archive.zip.read("method.json"))
            arrays = {name: archive[name] for name in archive.files if name != "method.json"}
        return _value(document["method"], arrays), document["facts"]
    except (ValueError, LookupError, TypeError, AttributeError, EOFError, BadZipFile) as error:
        raise MethodError(f"{where}: not a method of this version of sensloc: {error}") from error


def of_maps(method: Method) -> OfMaps:
    """Return the method if it needs nothing but heat maps.

    Raises:
        MethodError: It needs something else.
    """
    if not isinstance(method, OfMaps):
        raise MethodError(f"a {_name(method)} cannot get a box from heat maps alone")
    return method


def kind(name: str) -> Any:
    """Return the class of one of ``KINDS``."""
    module, _, called = KINDS[name].rpartition(".")
    return getattr(import_module(module), called)


def _name(value: Any) -> str | None:
    """Return which of ``KINDS`` a value is, or None."""
    return _NAMES.get(f"{type(value).__module__}.{type(value).__qualname__}")


def _plain(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Return a value as JSON holds it; its arrays go to ``arrays``, by their path in it."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"array": path}
    if kind_of := _name(value):
        state = {
            name: _plain(part, f"{path}.{name}".lstrip("."), arrays)
            for name, part in _state(value).items()
        }
        return {"kind": kind_of, **state}
    if isinstance(value, Mapping):
        return {"mapping": [[key, _plain(v, f"{path}.{key}", arrays)] for key, v in value.items()]}
    if isinstance(value, tuple | list):
        return [_plain(part, f"{path}.{i}", arrays) for i, part in enumerate(value)]
    return value


def _value(plain: Any, arrays: Mapping[str, Any]) -> Any:
    """Return the value that ``_plain`` wrote."""
    if isinstance(plain, list):
        return tuple(_value(part, arrays) for part in plain)
    if not isinstance(plain, dict):
        return plain
    if "kind" in plain:
        state = {name: _value(part, arrays) for name, part in plain.items() if name != "kind"}
        return _made(kind(plain["kind"]), state)
    if "array" in plain:
        return arrays[plain["array"]]
    return {key: _value(part, arrays) for key, part in plain["mapping"]}


def _state(value: Any) -> dict[str, Any]:
    if not is_dataclass(value):  # a linear map: the sums behind it stay behind, it predicts
        return {name: part for name, part in vars(value).items() if name != "sums_"}
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _made(kind_of: Callable[..., Any], state: dict[str, Any]) -> Any:
    if is_dataclass(kind_of):
        return kind_of(**state)
    linear = kind_of()
    linear.__dict__.update(state)
    return linear
