"""The schemas of a run's tables: Parquet with plain columns, readable by anyone.

Those of paired statistics stand with them in ``sensloc/scoring``.
"""

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sensloc.heatmaps import region

BOX = pa.list_(pa.float32(), 4)
"""xyxy in the unit square of the original image."""

ANNOTATION = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("wnid", pa.string()),
        ("corners", pa.list_(pa.list_(pa.float64()))),
        ("convention", pa.string()),
        ("source", pa.string()),
        ("class_name", pa.string()),
        ("size", pa.list_(pa.int64())),
        ("left_out", pa.string()),
        ("error", pa.string()),
    ]
)
"""One row per ``sensloc.datasets.Annotation``, while a manifest is made."""

MANIFEST = pa.schema(
    [
        ("image_id", pa.string()),  # unique
        ("uri", pa.string()),  # of the image file
        ("wnid", pa.string()),  # the class, as the data set names it
        ("class_index", pa.int64()),  # the classifier's output of that class; null: it has none
        ("class_name", pa.string()),
        ("split", pa.string()),  # train, validation, test; null where error is set
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),  # pixels
        ("boxes", pa.list_(BOX)),  # ground truth, in the data set's order
        ("source", pa.string()),  # layout and part, such as imagenet/train
        ("content", pa.string()),  # hex BLAKE2b-128 of the image file
        ("error", pa.string()),  # why the row takes no part; null when fine
    ]
)
"""One row per annotated image."""


def sensitivity(widths: Mapping[str, int], parts: Collection[str] = ()) -> pa.Schema:
    """Return the manifest's columns and those of heat maps: one row per row of the manifest.

    Args:
        widths: The cells of each heat map, by the column that holds it.
        parts: The columns of maps that show a part of the image.
    """
    fields = [field for field in MANIFEST if field.name != "error"]
    maps = [field for column, width in widths.items() for field in heat_map(column, width)]
    maps += [pa.field(region(column), BOX) for column in parts]  # what the map shows
    return pa.schema(
        [
            *fields,
            ("predicted_index", pa.int64()),  # the classifier's highest score
            ("score", pa.float32()),  # the logit that was differentiated
            ("probability", pa.float32()),  # its softmax
            *maps,
            ("error", pa.string()),
        ]
    )


def heat_map(column: str, width: int) -> list[pa.Field]:
    """Return the columns of a heat map of ``width`` cells."""
    return [
        # row-major, over its scale, in [0, 1]; float16 values (2^-11 steps and finer) in a type
        # that Spark reads too, and no larger on disk
        pa.field(column, pa.list_(pa.float32(), width)),
        pa.field(f"{column}_scale", pa.float32()),  # the map's maximum; less its minimum if signed
        pa.field(f"{column}_height", pa.int32()),  # cells
        pa.field(f"{column}_width", pa.int32()),  # cells
    ]


FOREGROUND_SUMS = pa.schema(
    [
        ("class_index", pa.int64()),  # -1: the classifier has no output of that class
        ("part", pa.int64()),  # 0 validation, 1 and 2 the halves of the train images
        ("n", pa.int64()),  # images; P cells each, of d values
        ("x", pa.list_(pa.float64())),  # [P * d], the sum of the values at each position
        ("y", pa.list_(pa.float64())),  # [P], the sum of the shares that the box covers
        ("xx", pa.list_(pa.float64())),  # [d * (d + 1) / 2], over all cells: the upper triangle
        ("xy", pa.list_(pa.float64())),  # [d]
        ("yy", pa.float64()),
        ("image_id", pa.string()),  # null but for an image with an error
        ("error", pa.string()),
    ]
)
"""One row per class and part of a unit's images, and one per image with an error."""

PREDICTIONS = pa.schema(
    [
        ("image_id", pa.string()),
        ("wnid", pa.string()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("method", pa.string()),
        ("box", BOX),  # null where error is set
        ("iou", pa.float32()),  # best over the image's boxes
        ("iou_largest", pa.float32()),  # with its largest box
        ("n_boxes", pa.int32()),
        ("area", pa.float32()),  # of the largest box, as a share of the image
        ("correct", pa.bool_()),  # iou >= evaluate.iou
        ("recognised", pa.bool_()),  # the classifier's prediction is the annotated class
        ("error", pa.string()),
    ]
)
"""One row per test image and method."""

JUDGED = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),  # validation, test
        ("recognised", pa.bool_()),
        ("box", BOX),  # by the map of the predicted class
        ("iou", pa.float32()),  # best over the image's boxes
        ("evidence", pa.list_(pa.float64(), 5)),  # see sensloc/prediction/confidence.py
        ("correct", pa.bool_()),  # null where error is set
        ("error", pa.string()),
    ]
)
"""One row per image that the confidence is learned from, or judged by."""

CONFIDENCE = pa.schema(
    [
        ("image_id", pa.string()),
        ("split", pa.string()),  # validation: it was learned there; test
        ("recognised", pa.bool_()),
        ("iou", pa.float32()),  # best over the image's boxes, by the map of the predicted class
        ("correct", pa.bool_()),
        ("confidence", pa.float32()),  # the chance of that, as it was promised
    ]
)
"""One row per image of ``JUDGED`` without an error."""

BOXES = pa.schema(
    [
        ("image_id", pa.string()),  # unique
        ("uri", pa.string()),
        ("width", pa.int32()),  # pixels
        ("height", pa.int32()),
        ("wnid", pa.string()),  # the predicted class
        ("class_name", pa.string()),
        ("score", pa.float32()),  # its logit
        ("probability", pa.float32()),  # its softmax
        ("x0", pa.float32()),  # the box in pixels of the image, edges
        ("y0", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("box", BOX),
        ("confidence", pa.float32()),  # the chance that the box is right
        ("readout", pa.string()),  # of a foreground map: "class" the predicted one's, or "shared"
        ("error", pa.string()),  # why there is no box; null when fine
    ]
)
"""One row per image that was predicted."""

PACKED = pa.schema(
    [
        ("image_id", pa.string()),
        ("shard", pa.string()),
        ("uri", pa.string()),  # of the image that was packed
        ("error", pa.string()),  # why there is none in the shard; null when there is
    ]
)
"""One row per packed image."""

CORLOC = pa.schema(
    [
        ("method", pa.string()),
        ("scope", pa.string()),  # class, overall, class mean
        ("wnid", pa.string()),  # null unless scope is class
        ("class_name", pa.string()),
        ("n_images", pa.int64()),  # those that cannot be read are not among them
        ("n_correct", pa.int64()),
        ("corloc", pa.float64()),  # percent
        ("ci_low", pa.float64()),  # percent, 2.5 % of the bootstrap over images
        ("ci_high", pa.float64()),  # percent, 97.5 %
        ("headroom", pa.float64()),  # percent of the way from the tuned constant box to 100
    ]
)
"""One row per method and class, and two summary rows per method."""


def fixed(values: Any, kind: pa.DataType) -> pa.FixedSizeListArray:
    """Make a column of fixed-size lists of an array [n, k], not value by value."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), kind), values.shape[1])


def nullable(values: Any, good: Any, kind: pa.DataType) -> pa.Array:
    """Return an array [n] or [n, k] as a column that is null where ``good`` [n] is false."""
    column = fixed(values, kind) if values.ndim == 2 else pa.array(values, kind)
    return pc.if_else(pa.array(good), column, pa.scalar(None, column.type))
