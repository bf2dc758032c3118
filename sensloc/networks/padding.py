"""A padding that is larger on one side, folded into the kernel of the convolution behind it.

TensorFlow pads a strided convolution's input by one more at the right and at the bottom ("SAME"),
which a convolution of torch cannot: networks that come from there copy the input into a larger one
first. A kernel with a row and a column of zeros before its own, over an input that is padded alike
on all sides, computes the same sums, and of a depthwise convolution in half the time.
"""

import torch
from torch import nn
from torch.nn.functional import pad


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how much TensorFlow's "SAME" pads before and behind a side of so many pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def padding_itself(convolution: nn.Conv2d, height: int, width: int) -> nn.Conv2d | None:
    """Return a depthwise convolution that pads its input itself; None where it is none of these.

    Args:
        convolution: Of a class of its own, which pads its input as "SAME" does.
        height: Of its input.
        width: Of its input.

    Returns:
        A plain convolution that was seen to compute the same.
    """
    channels = convolution.in_channels
    depthwise = convolution.groups == channels == convolution.out_channels
    if type(convolution) is nn.Conv2d or not depthwise or set(convolution.dilation) != {1}:
        return None
    kernel, (down, across) = convolution.kernel_size, convolution.stride
    top, bottom = same_padding(height, kernel[0], down)
    left, right = same_padding(width, kernel[1], across)
    weight = pad(convolution.weight, (right - left, 0, bottom - top, 0))
    plain = nn.Conv2d(
        channels, channels, (weight.shape[2], weight.shape[3]), (down, across),
        padding=(bottom, right), groups=channels, bias=convolution.bias is not None,
        dtype=weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        plain.weight.copy_(weight)
        if convolution.bias is not None and plain.bias is not None:
            plain.bias.copy_(convolution.bias)
        noise = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
        probe = noise.to(weight.dtype)
        wanted, found = convolution(probe), plain(probe)
    same = found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return plain if same else None
