"""The command line that every job shares: one TOML file, and where data and output are."""

import argparse
import logging
import sys
from collections.abc import Callable
from typing import Any

from sensloc.config import load_config
from sensloc.errors import SenslocError
from sensloc.run import RunDir
from sensloc.stages.ray_data import connect

JOB_COPY = "/runtime_resources/working_dir_files/"
"""In the path of the folder that `ray job submit --working-dir` makes on the cluster."""

log = logging.getLogger(__name__)


def main(job: Callable[[RunDir], Any], description: str) -> None:
    """Parse, load, connect, call; a known error is one message and exit code 1."""
    parser = argparse.ArgumentParser(description=description)
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
        connect()
        said = job(run)
    except SenslocError as error:
        # Ray raises a worker's error again as a subclass whose text is the worker's traceback,
        # and adds advice on retries
        message = str(getattr(error, "cause", error)).partition("\nFailed to apply UDF")[0]
        sys.exit(f"error: {message}")
    if said is not None:
        print(said)
