"""JPEGs decoded on a device, beside the CPU: images per second, and how far apart pixels are."""

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

SIZE = 224


def photographs(n: int) -> list[bytes]:
    """Return n JPEGs [375, 500] of smooth colours under noise, of quality 90 as ImageNet's are."""
    from PIL import Image

    rng, files = np.random.default_rng(0), []
    for _ in range(n):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC), np.float64)
        noisy = np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def squashed(image: Tensor) -> Tensor:
    """Return an image uint8 [3, h, w] squashed to uint8 [3, SIZE, SIZE], where it is.

    A GPU has no antialiased resize of integers: there it is of float32, rounded.
    """
    whole = image[None] if image.device.type == "cpu" else image[None].float()
    small = interpolate(whole, (SIZE, SIZE), mode="bilinear", antialias=True)[0]
    return small if small.dtype == torch.uint8 else small.round().clamp(0, 255).byte()


def apart(images: Sequence[Tensor], others: Sequence[Tensor]) -> dict[str, float]:
    """Return the largest and the mean difference of two lists of images, in grey levels."""
    differences = [
        (image.cpu().int() - other.cpu().int()).abs().flatten().float()
        for image, other in zip(images, others, strict=True)
    ]
    return {
        "largest": float(max(values.max() for values in differences)),
        "mean": float(torch.cat(differences).mean()),
    }


def decoding(device: str, n: int) -> dict[str, Any]:
    """Return images per second and differences; ``left_out`` says why there are none of a device.

    Args:
        device: "cuda", or "cpu", which has no decoder of its own.
        n: Images of a batch.
    """
    try:
        from torchcodec.decoders import decode_jpeg

        files = photographs(n)
    except (ImportError, RuntimeError, OSError) as error:  # torchcodec's libraries may not load
        return {"left_out": f"{type(error).__name__}: {error}".partition("\n")[0]}
    sources: list[Any] = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]

    def on(place: str) -> list[Tensor]:
        images = decode_jpeg(sources, mode="RGB", device=place)
        assert isinstance(images, list)
        return images

    here, rate = _timed(lambda: on("cpu"), n)
    found: dict[str, Any] = {"images": n, "cpu_images_per_second": rate}
    print(f"decoding on the CPU, one thread: {rate:,.0f} images/s")
    if device == "cpu":
        return found | {"left_out": "the CPU decodes for itself"}
    try:
        there, rate = _timed(lambda: on(device), n)
    except RuntimeError as error:
        return found | {"left_out": str(error).partition("\n")[0]}
    found |= {
        "device_images_per_second": rate,
        "grey_levels": apart(there, here),
        "grey_levels_squashed": apart([*map(squashed, there)], [*map(squashed, here)]),
    }
    print(f"decoding on the device: {rate:,.0f} images/s; {found['grey_levels']} grey levels off")
    return found


def _timed(call: Callable[[], list[Tensor]], n: int) -> tuple[list[Tensor], float]:
    """Return what a warm call returns, and items per second."""
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    images = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return images, n / (time.perf_counter() - began)
