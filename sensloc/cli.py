"""The command lines of the jobs: one TOML file, and where data and output are."""

import argparse
import logging
import re
import sys
from collections.abc import Callable
from typing import Any

from sensloc.config import absolute, load_config
from sensloc.errors import SenslocError
from sensloc.run import RunDir
from sensloc.status import status

JOB_COPY = "/runtime_resources/working_dir_files/"
"""In the path of the folder that `ray job submit --working-dir` makes on the cluster."""

log = logging.getLogger(__name__)


def main(job: Callable[[RunDir], Any], description: str) -> None:
    """Parse, load, connect, call; a known error is one message and exit code 1."""
    from sensloc.stages.ray_data import connected

    parser = _parser(description)
    parser.add_argument("config", help="the run's TOML file: path or URL, see conf/")
    parser.add_argument("--data", help="folder or URL of the data set, instead of dataset.root")
    parser.add_argument("--output", help="run directory: folder or URL, instead of the file's")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        run = RunDir.open(
            load_config(arguments.config, data=arguments.data, output=arguments.output)
        )
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
    except KeyboardInterrupt:
        sys.exit("stopped: the same command goes on from here")
    if said is not None:
        print(said)


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
