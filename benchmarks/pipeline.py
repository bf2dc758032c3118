"""The stage `sensitivity` under Ray beside a plain loop of the same functions, on the same cores.

The loop is what one would write without Ray: a process for each core, each reads its share of the
units, decodes, makes the maps and writes the files, with nothing that is resumed, checked or
spread over machines.
"""

import json
import multiprocessing
import os
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import typer

from benchmarks.scale.measure import run_job
from benchmarks.start import ended
from benchmarks.turns import as_workers_run, save
from sensloc.arguments import Changes, Data, Toml
from sensloc.config import absolute
from sensloc.engine import units
from sensloc.report.text import Columns, aligned, number, table_lines
from sensloc.stages.sensitivity import chain
from sensloc.store.run import RunDir

COUNTS = (300, 3000)

ACTOR, WORKS = "ray::Holder", "ray::Holder.work"
"""Titles of an actor's process: how it begins, and what it has from its first unit's begin to that
unit's end."""

LOOP = "work/loop"
"""Where the loops write."""


def loop(url: str, part: int, parts: int) -> None:
    """Make every ``parts``-th unit of a run's sensitivity table elsewhere, with one thread."""
    torch.set_num_threads(1)
    run = RunDir.found(url)
    own = chain(run)
    elsewhere, worker = replace(own, stage=LOOP), own.worker("cpu")
    for unit in units.names(run, "manifest")[part::parts]:
        elsewhere.write(unit, own.table(worker, own.images(unit, isolated=False)))


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


def begun(samples: pa.Table) -> float:
    """Return the second of the first look at which a job's actor has work."""
    work = samples.filter(pc.starts_with(pc.fill_null(samples["title"], ""), f"{ACTOR}."))
    return float(pc.min(work["second"]).as_py())


def busy(samples: pa.Table) -> float:
    """Return the share of a core that actors take, of one thread each, from their first map on.

    Until the last look at which one of them has taken more than half of a core; nan: there is none.

    Args:
        samples: Of a job, see ``SAMPLES``: the title of an actor's process says that it has begun.
    """
    looks: dict[int, list[tuple[float, float]]] = {}
    began = np.inf
    for row in samples.sort_by("second").to_pylist():
        if (row["title"] or "").startswith(ACTOR):
            looks.setdefault(row["pid"], []).append((row["second"], row["cpu"]))
        if row["title"] == WORKS:
            began = min(began, row["second"])
    pairs = [pair for of_actor in looks.values() for pair in pairwise(of_actor)]
    spans = np.array([(first, last, cpu - before) for (first, before), (last, cpu) in pairs])
    spans = spans.reshape(-1, 3)
    spans = spans[spans[:, 0] >= began]
    lengths = spans[:, 1] - spans[:, 0]
    until = spans[spans[:, 2] > lengths / 2, 1].max(initial=-np.inf)
    during = spans[:, 1] <= until
    return float(spans[during, 2].sum() / lengths[during].sum()) if during.any() else np.nan


def sent(url: str) -> float:
    """Return the bytes that go through Ray's object store for an image of a run's first unit."""
    own = chain(RunDir.found(url))
    images = own.images(units.names(own.run, "manifest")[0], isolated=False)
    return len(pickle.dumps(images, protocol=5)) / len(images.rows)


def figures_of(job: Sequence[str], run: str, rounds: int, processes: int) -> dict[str, float]:
    """Return the median seconds of the stage, of its whole command, and of plain loops, in turn.

    The stage's are from when an actor is asked about the network, which it imports and loads, as
    the loops do; so from when Ray has started. And the share of a core that each actor takes, and
    the bytes of an image sent to them.

    Args:
        job: The config and the options of the run.
        run: Its directory.
        rounds: How often each is done.
        processes: Of the plain loops.
    """
    log, sensloc = Path(f"{run}.log"), [sys.executable, "-m", "sensloc"]
    for stage in ("manifest", "classifier"):
        ended(run_job([*sensloc, stage, *job], log), log)
    figures: dict[str, list[float]] = {"stage": [], "command": [], "loop": [], "busy": []}
    for _ in range(rounds):
        started = time.time()
        whole = ended(run_job([*sensloc, "sensitivity", *job], log), log)
        stage = json.loads(Path(f"{run}/run.json").read_text())["stages"]["sensitivity"]
        finished = datetime.fromisoformat(stage["finished"]).timestamp()
        figures["stage"].append(finished - started - begun(whole.samples))
        figures["command"].append(whole.seconds)
        figures["busy"].append(busy(whole.samples))
        figures["loop"].append(by_loop(run, processes))
        RunDir.found(run).remove(LOOP)
    return {"sent": sent(run)} | {name: median(values) for name, values in figures.items()}


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
    """Print the seconds of the stage and of plain loops, on drawn images of a data set.

    The loops have one thread each and keep the memory they free, as the product's workers do.
    """
    as_workers_run()
    processes = os.cpu_count() or 1
    given = [f"--data={absolute(data)}"] if data else []
    given += [f"--set={change}" for change in [*(changes or ()), "foreground.looks=0"]]
    rows = []
    for count in sorted(counts or COUNTS):
        with TemporaryDirectory() as folder:
            run = f"{folder}/run"
            job = [config, *given, f"--output={run}", f"--set=dataset.n_images={count}"]
            rows.append({"images": count} | figures_of(job, run, rounds, processes))
    rows = with_ratios(rows)
    columns: Columns = {
        "images": lambda row: f"{row['images']:,}",
        "the command, s": number("command"),
        "its stage, s": number("stage"),
        f"{processes} loops, s": number("loop"),
        "stage / loops": number("ratio", 2),
        "for further images": number("further", 2),
        "actors busy": lambda row: "" if np.isnan(row["busy"]) else f"{row['busy']:.0%}",
        "KB sent per image": lambda row: f"{row['sent'] / 1000:,.0f}",
    }
    print(aligned(table_lines(columns, rows)))
    print(save(output, config=config, rounds=rounds, processes=processes, rows=rows))


if __name__ == "__main__":
    typer.run(main)
