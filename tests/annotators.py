"""What other people's programs make of the files: run by their own Python, see test_localizer.py.

``python annotators.py FOLDER``: the folder has coco.json, label_studio.json and label_studio.xml as
``sensloc predict`` writes them, and project.json, an export of Label Studio's. What was read is
printed as JSON, and what the programs write is in the folder.
"""

import json
import sys
from pathlib import Path

from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
from label_studio_sdk._extensions.label_studio_tools.core.utils.io import (
    local_files_resolver,
    resolve_local_storage_file,
)
from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface


def label_studio(folder: Path) -> dict[str, object]:
    """The labels of the config, what is wrong with each prediction, and the files of the images."""
    interface = LabelInterface((folder / "label_studio.xml").read_text())
    interface.validate()
    tasks = json.loads((folder / "label_studio.json").read_text())
    return {
        "labels": interface.get_control("label").labels,
        "errors": [
            error
            for task in tasks
            for prediction in task["predictions"]
            for error in interface.validate_prediction(prediction, return_errors=True)
        ],
        "files": [resolve_local_storage_file(task["data"]["image"]) for task in tasks],
    }


def converted(folder: Path) -> None:
    """Label Studio's own conversion of its export to COCO: label_studio/result.json."""
    converter = Converter((folder / "label_studio.xml").read_text(), project_dir=str(folder))
    place = str(folder / "label_studio")
    converter.convert_to_coco(str(folder / "project.json"), place, is_dir=False)


def cvat(folder: Path) -> list[dict[str, object]]:
    """The boxes that CVAT's import reads, and its export: cvat/annotations/instances_default.json.

    Both are datumaro's, of which CVAT has a fork.
    """
    found = Dataset.import_from(str(folder / "coco.json"), "coco_instances")
    labels = found.categories()[AnnotationType.label]
    for item in found:
        for box in item.annotations:
            box.attributes |= {"occluded": False, "rotation": 0.0}  # as CVAT's own
    found.export(str(folder / "cvat"), "coco_instances")
    return [
        {"id": item.id, "label": labels[box.label].name, "bbox": box.get_bbox()}
        for item in found
        for box in item.annotations
    ]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with local_files_resolver(lambda path: f"/{path}"):  # the server's own default
        converted(place)
        print(json.dumps({"label studio": label_studio(place), "cvat": cvat(place)}))
