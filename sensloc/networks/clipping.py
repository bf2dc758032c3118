"""A ReLU6 that overwrites its input and asks for its own result afterwards.

torch's asks for its input, which it has overwritten: so autograd keeps a copy of that, and copies
are a part of a pass of the networks that are made of it. What lies between the bounds is the same
before and behind it, and nothing else has a derivative.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


class Clip(nn.Module):
    """[...] -> its values, no less than ``low`` and no more than ``high``, in the same memory."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Return x, clipped."""
        clipped: Tensor = _Clipped.apply(x, self.low, self.high)
        return clipped


class _Clipped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.bounds = low, high
        clipped = x.clamp_(low, high)
        ctx.save_for_backward(clipped)
        return clipped

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        (clipped,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(slopes[0], clipped, *ctx.bounds), None, None


def clipping(module: nn.Module) -> Clip | None:
    """Return what does as a ReLU6 or Hardtanh that writes in place; None: it is none of these."""
    if isinstance(module, nn.Hardtanh) and type(module) in (nn.ReLU6, nn.Hardtanh):
        return Clip(module.min_val, module.max_val) if module.inplace else None
    return None
