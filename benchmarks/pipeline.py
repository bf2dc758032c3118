"""The stage `sensitivity` under Ray beside a plain loop of the same functions, on the same cores.

The loop is what one would write without Ray: a process for each core, each reads its share of the
units, decodes, makes the maps and writes the files, with nothing that is resumed, checked or
spread over machines.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer

from benchmarks.scale.measure import run_job
from benchmarks.start import ended
from benchmarks.turns import save
from sensloc.cli import Changes, Data, Toml
from sensloc.config import absolute
from sensloc.engine import units
from sensloc.report.text import Columns, aligned, number, table_lines
from sensloc.stages.sensitivity import chain
from sensloc.store.run import RunDir

COUNTS = (300, 3000)

LOOP = "work/loop"
"""Where the loops write."""


def loop(url: str, part: int, parts: int) -> None:
    """Make every ``parts``-th unit of a run's sensitivity table elsewhere, with one thread."""
    torch.set_num_threads(1)
    run = RunDir.found(url)
    own = chain(run)
    elsewhere, worker = replace(own, stage=LOOP), own.worker("cpu")
    for unit in units.names(run, "manifest")[part::parts]:
        elsewhere.write(worker, unit, own.images(unit, isolated=False))


def by_loop(url: str, processes: int) -> float:
    """Return the seconds of plain loops, from their start to their end."""
    context, began = multiprocessing.get_context("spawn"), time.monotonic()
    loops = [context.Process(target=loop, args=(url, part, processes)) for part in range(processes)]
    for process in loops:
        process.start()
    for process in loops:
        process.join()
    if any(process.exitcode for process in loops):
        sys.exit("a plain loop failed")
    return time.monotonic() - began


def seconds_of(job: Sequence[str], run: str, rounds: int, processes: int) -> dict[str, float]:
    """Return the median seconds of the stage, of its whole command, and of plain loops, in turn.

    Args:
        job: The config and the options of the run.
        run: Its directory.
        rounds: How often each is done.
        processes: Of the plain loops.
    """
    log, sensloc = Path(f"{run}.log"), [sys.executable, "-m", "sensloc"]
    for stage in ("manifest", "classifier"):
        ended(run_job([*sensloc, stage, *job], log), log)
    seconds: dict[str, list[float]] = {"stage": [], "command": [], "loop": []}
    for _ in range(rounds):
        whole = ended(run_job([*sensloc, "sensitivity", *job], log), log)
        stages = json.loads(Path(f"{run}/run.json").read_text())["stages"]
        seconds["stage"].append(stages["sensitivity"]["seconds"])
        seconds["command"].append(whole.seconds)
        seconds["loop"].append(by_loop(run, processes))
        RunDir.found(run).remove(LOOP)
    return {name: median(values) for name, values in seconds.items()}


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows with the stage's time over the loops', of all images and of the further ones.

    Args:
        rows: ``images``, ``stage`` and ``loop``, by ascending images. Images beyond those of the
            row before cost no start.
    """
    further = [_more(less, row, "stage") / _more(less, row, "loop") for less, row in pairwise(rows)]
    return [
        {**row, "ratio": row["stage"] / row["loop"], "further": of_further}
        for row, of_further in zip(rows, [None, *further], strict=True)
    ]


def _more(less: Mapping[str, Any], row: Mapping[str, Any], name: str) -> float:
    return float(row[name] - less[name])


def main(
    config: Toml,
    data: Data = None,
    changes: Changes = None,
    counts: Annotated[list[int] | None, typer.Option("--images", help="How many.")] = None,
    rounds: int = 2,
    output: Path = Path("runs/bench/pipeline.json"),
) -> None:
    """Print the seconds of the stage and of plain loops, on drawn images of a data set."""
    processes = os.cpu_count() or 1
    given = [f"--data={absolute(data)}"] if data else []
    given += [f"--set={change}" for change in [*(changes or ()), "foreground.looks=0"]]
    rows = []
    for count in sorted(counts or COUNTS):
        with TemporaryDirectory() as folder:
            run = f"{folder}/run"
            job = [config, *given, f"--output={run}", f"--set=dataset.n_images={count}"]
            rows.append({"images": count} | seconds_of(job, run, rounds, processes))
    rows = with_ratios(rows)
    columns: Columns = {
        "images": lambda row: f"{row['images']:,}",
        "the command, s": number("command"),
        "its stage, s": number("stage"),
        f"{processes} loops, s": number("loop"),
        "stage / loops": number("ratio", 2),
        "for further images": number("further", 2),
    }
    print(aligned(table_lines(columns, rows)))
    print(save(output, config=config, rounds=rounds, processes=processes, rows=rows))


if __name__ == "__main__":
    typer.run(main)
