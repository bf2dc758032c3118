"""The images of a table's rows, always read under the run's protection. No Ray."""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from sensloc.config import Config
from sensloc.images import isolation
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Decoded


def images_of(
    rows: pa.Table,
    size: int,
    config: Config,
    isolated: bool = False,
    connections: int | None = None,
    keep: bool = False,
) -> list[Decoded | ImageError]:
    """Fetch, check and decode the image of every row, in order.

    An image of more than ``dataset.max_pixels`` pixels is an error, and so is one whose bytes are
    not those that the manifest saw, where the rows have their hash.

    Args:
        rows: A table with the column ``uri``, and ``content`` where the hash is known.
        size: S, the side of the squashed images in pixels.
        config: The run's config.
        isolated: Whether each image is decoded in a child process, so that one that kills its
            decoder is an error and costs no other.
        connections: Requests at a time; None for ``resources.connections``.
        keep: Whether the files' bytes are kept beside the pixels.

    Returns:
        The image or the reason why there is none, for each row.

    Raises:
        StorageError: The storage does not answer, or refuses.
    """
    uris = rows["uri"].to_pylist()
    known = "content" in rows.column_names
    contents = rows["content"].to_pylist() if known else [None] * len(uris)
    reading = partial(
        _read,
        size=size,
        connections=connections or config.resources.connections,
        max_pixels=config.dataset.max_pixels,
        keep=keep,
    )
    pairs = list(zip(uris, contents, strict=True))
    return isolation.images(reading, pairs, uris) if isolated else reading(pairs)


def _read(
    pairs: Sequence[tuple[str, str | None]],
    size: int,
    connections: int,
    max_pixels: int,
    keep: bool,
) -> list[Decoded | ImageError]:
    """Read images that are given as pairs of uri and content hash; a child process imports it."""
    from sensloc.images.decode import read

    uris, contents = [uri for uri, _ in pairs], [content for _, content in pairs]
    return read(uris, size, connections, max_pixels, contents, keep)
