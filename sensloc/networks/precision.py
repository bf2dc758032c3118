"""The arithmetic of a network's passes: float32, or on a device that has them tf32 or bfloat16.

torch only. By default torch lets convolutions on an NVIDIA GPU round their inputs to tf32, 10 bits
of 23: here float32 is float32, and tf32 is what a config asks for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from sensloc.errors import ClassifierError

Precision = Literal["float32", "tf32", "bfloat16"]

TF32_CAPABILITY = (8, 0)
"""The first NVIDIA GPUs whose matrix units have tf32: Ampere."""


def require(precision: Precision, device: str) -> None:
    """Make sure that a device has an arithmetic.

    Args:
        precision: The arithmetic.
        device: The name of a torch device.

    Raises:
        ClassifierError: It has no tf32.
    """
    if precision != "tf32":
        return
    name, fits = "the CPU", False
    if torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
        fits = torch.cuda.get_device_capability(device) >= TF32_CAPABILITY
    if not fits:
        raise ClassifierError(
            f"sensitivity.precision = 'tf32': {name} has no tf32; NVIDIA GPUs of compute "
            f"capability {TF32_CAPABILITY[0]}.{TF32_CAPABILITY[1]} or above have it"
        )


def there(device: str) -> tuple[Precision, ...]:
    """Return the arithmetics that a device has, float32 first."""
    try:
        require("tf32", device)
    except ClassifierError:
        return ("float32", "bfloat16")
    return ("float32", "tf32", "bfloat16")


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Have a GPU's convolutions and matrix products of float32 values be exact, or tf32.

    That is a setting of the process, which is put back. A CPU does not look at it. In bfloat16 it
    is for what autocast leaves in float32.
    """
    backends: Any = torch.backends
    places = (backends.cudnn.conv, backends.cuda.matmul)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for place, setting in zip(places, before, strict=True):
            place.fp32_precision = setting
