"""The command lines of the jobs: one TOML file, and where data and output are."""

import argparse
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from sensloc.config import Config, Resources, absolute, load_config
from sensloc.errors import SenslocError
from sensloc.run import RunDir
from sensloc.status import status

JOB_COPY = "/runtime_resources/working_dir_files/"
"""In the path of the folder that `ray job submit --working-dir` makes on the cluster."""

log = logging.getLogger(__name__)


def main(job: Callable[[RunDir], Any], description: str) -> None:
    """Run a job on the run that a TOML file names."""
    parser = _parser(description)
    parser.add_argument("config", help="the run's TOML file: path or URL, see conf/")
    parser.add_argument("--data", help="folder or URL of the data set, instead of dataset.root")
    parser.add_argument("--output", help="run directory: folder or URL, instead of the file's")
    given = parser.parse_args()
    _run(lambda: load_config(given.config, data=given.data, output=given.output), job)


def _run(config: Callable[[], Config], job: Callable[[RunDir], Any]) -> None:
    """Open, lock, connect, call, print; a known error is one message and exit code 1."""
    from sensloc.stages.ray_data import connected

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        run = RunDir.open(config())
        if JOB_COPY in run.url:
            log.warning(
                "%s goes with the submitted job's copy of your files: pass --output", run.url
            )
        with run.alone(), connected():
            said = job(run)
    except SenslocError as error:
        # Ray raises a worker's error again as a subclass whose text is the worker's traceback,
        # and adds advice on retries
        said_by_ray = re.compile(r"(\n|\\n)Failed to apply UDF.*", re.DOTALL)
        sys.exit(f"error: {said_by_ray.sub('', str(getattr(error, 'cause', error)))}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        sys.exit(f"error: {where}: {first['msg']} (got {first['input']!r})")
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
    if said is not None:
        print(said)


def main_predict(description: str) -> None:
    """Predict the boxes of images, with a run that is finished."""
    from sensloc.exports import FORMATS
    from sensloc.stages.predict import predict, prediction

    parser = _parser(description)
    parser.add_argument("run", help="a finished run's directory, or a copy of its localizer/")
    parser.add_argument(
        "images",
        help="folder or URL (any depth), pattern such as 'photos/**/*.jpg', one image, tar shards "
        "such as 's3://b/*.tar', or a .csv or .parquet with a column uri",
    )
    parser.add_argument("--output", required=True, help="folder or URL for the boxes")
    parser.add_argument("--format", nargs="*", choices=FORMATS, default=["coco"], help="beside it")
    parser.add_argument("--actors", type=int, default=2, help="networks held at once")
    parser.add_argument("--cpus-per-actor", type=float, default=0.5)
    parser.add_argument("--gpus-per-actor", type=float, default=0.0)
    given = parser.parse_args()
    where = absolute(given.run)

    def config() -> Config:
        names = ("actors", "cpus_per_actor", "gpus_per_actor")
        resources = Resources(**{name: getattr(given, name) for name in names})
        return prediction(where, given.images, given.output, resources)

    _run(config, lambda run: predict(run, where, given.format))


def main_status(description: str) -> None:
    """Say how far a run is; the exit code says it too, see ``sensloc.status.Code``."""
    parser = _parser(description)
    parser.add_argument("run", help="run directory: folder or URL")
    url = absolute(parser.parse_args().run.rstrip("/"))
    try:
        found = status(RunDir.found(url))
    except SenslocError as error:
        sys.exit(f"error: {error}")
    print(found.text(url))
    sys.exit(found.code)


def _parser(description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
