"""Work that is cut into units, each a Parquet file: what is written is never done again."""

import io
import logging
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
from ray.data import ActorPoolStrategy

from sensloc.run import RunDir
from sensloc.stages import ray_data

log = logging.getLogger(__name__)

Worker = Callable[[str], pa.Table]
"""From a unit's name to its rows; made once per actor."""


def each(
    run: RunDir,
    stage: str,
    units: Sequence[str],
    make: Callable[..., Worker],
    *args: Any,
    cpus: float = 1.0,
    gpus: float = 0.0,
    actors: int | None = None,
) -> None:
    """Write ``<stage>/<unit>.parquet`` for every unit that has none yet, in an actor pool.

    A file appears whole or not at all, so a run that was killed goes on where it was.

    Args:
        run: where to.
        stage: folder of the run directory.
        units: names, good as file names.
        make: ``make(run, *args)``, called once in each actor, gives the worker.
        args: for ``make``.
        cpus: of an actor.
        gpus: of an actor.
        actors: at most so many; None: as many as there is room for.
    """
    done = {PurePosixPath(file).stem for file in run.files(stage)}
    todo = [{"unit": unit} for unit in units if unit not in done]
    if not todo:
        return
    log.info("%s: %d of %d units to do", stage, len(todo), len(units))
    most = min(actors or len(todo), len(todo))
    at_once = min(ray_data.room(cpus, gpus), most)  # autoscaling may add more
    results = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
        _Unit,  # type: ignore[arg-type]
        fn_constructor_args=(run, stage, make, [ray.put(args)]),  # in a list: fetched, not copied
        compute=ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_once),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    for _ in results.iter_rows():  # Ray says how far it is
        pass


def parquet(table: pa.Table, stamp: dict[str, str]) -> bytes:
    """A table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(stamp), buffer, compression="zstd")
    return buffer.getvalue()


class _Unit:
    """An actor: one worker, its results to files."""

    def __init__(
        self, run: RunDir, stage: str, make: Callable[..., Worker], args: list[Any]
    ) -> None:
        self.run, self.stage = run, stage
        self.work = make(run, *ray.get(args[0]))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        table = self.work(row["unit"])
        self.run.write(
            f"{self.stage}/{row['unit']}.parquet", parquet(table, ray_data.stamp(self.run))
        )
        return {"unit": row["unit"], "rows": len(table)}
