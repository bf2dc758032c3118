"""Between the host and a device: batches there, arrays back. torch and numpy only.

A GPU's copies are of pinned memory, go on while the host does something else, and are in turn with
the passes before and after them: so a second batch can be begun before the first one's arrays are
waited for. On the CPU the same code copies at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def sent(values: npt.NDArray[Any], rows: int, device: str) -> Tensor:
    """Return an array [n, ...] as [rows, ...] on a device, zeros behind."""
    pinned = torch.device(device).type == "cuda"
    kind = torch.from_numpy(np.empty(0, values.dtype)).dtype
    host = torch.zeros(rows, *values.shape[1:], dtype=kind, pin_memory=pinned)
    host.numpy()[: len(values)] = values
    return host.to(device, non_blocking=pinned)


@dataclass(frozen=True)
class Arriving:
    """Arrays that are on their way to the host, all in one copy.

    Attributes:
        packed: uint8 [n, bytes of a row], on the host; not whole before the event.
        shapes: Of each array by name, its type and its shape without n, in their order.
        event: A GPU's event behind the copy; None on the CPU.
    """

    packed: Tensor
    shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
    event: Any

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Arriving":
        """Send tensors [n, ...], by name, to the host.

        Args:
            tensors: At least one; all of the same n, on one device.
        """
        there = torch.cat([_bytes(tensor) for tensor in tensors.values()], 1)
        shapes = {
            name: (np.dtype(str(tensor.dtype).removeprefix("torch.")), tuple(tensor.shape[1:]))
            for name, tensor in tensors.items()
        }
        if not there.is_cuda:
            return cls(there, shapes, None)
        packed = torch.empty(there.shape, dtype=torch.uint8, pin_memory=True)
        packed.copy_(there, non_blocking=True)
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return cls(packed, shapes, event)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Wait for the arrays, and return them by name: [n, ...] each."""
        if self.event is not None:
            self.event.synchronize()
        bytes_, start, arrays = self.packed.numpy(), 0, {}
        for name, (kind, shape) in self.shapes.items():
            end = start + kind.itemsize * prod(shape)
            part = np.ascontiguousarray(bytes_[:, start:end]).view(kind)
            arrays[name], start = part.reshape(len(bytes_), *shape), end
        return arrays


def _bytes(tensor: Tensor) -> Tensor:
    """Return a tensor [n, ...] as uint8 [n, bytes of a row]."""
    flat = tensor.detach().reshape(len(tensor), prod(tensor.shape[1:]))
    return flat.contiguous().view(torch.uint8)
