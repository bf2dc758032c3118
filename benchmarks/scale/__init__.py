"""The scale rehearsal: the real job on as many real files as a real run has, with a tiny network.

It measures the job and not the method: files read, rows moved, memory held, seconds per row. The
boxes that come out mean nothing.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from benchmarks.scale import figures
from benchmarks.scale.dataset import RehearsalError, make_dataset
from benchmarks.scale.measure import run_job

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SIZES = (3_000, 30_000, 300_916)
"""Numbers of images; the last is as many as ImageNet's classes of the paper have."""

TAIL = 2000
"""Characters of a failed job's log that the error shows."""


def tiny_network() -> "nn.Module":
    """Return a stand-in for a classifier: [n, 3, 32, 32] -> logits [n, 1000].

    Its weights are random and fixed. It is as cheap as a gradient can be, so that the seconds of a
    rehearsal are the job's own.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8 * 8, 1000)
        )


def rehearse(
    config: str, source: str, output: Path, sizes: Sequence[int], only_make: bool = False
) -> str | None:
    """Make the data sets, run the job on each, and measure it.

    In ``output``: ``data-<rows>``, ``run-<rows>`` and its log, ``memory-<rows>.parquet``, and
    ``rehearsal.md`` and ``.parquet``, which grow with every size.

    Args:
        config: path of its TOML file.
        source: root of Tiny ImageNet.
        output: folder for all of it.
        sizes: numbers of images.
        only_make: make the data sets and stop.

    Returns:
        ``rehearsal.md``; None where no job was run.

    Raises:
        RehearsalError: an earlier run is in the way, or the job fails; its log says why.
        DatasetError: ``source`` has no Tiny ImageNet.
    """
    output = output.absolute()
    if not only_make:
        _require_fresh([output / f"run-{rows}" for rows in sizes])
    for rows in sizes:
        make_dataset(source, output / f"data-{rows}", rows)
    measured: list[figures.Figure] = []
    for rows in [] if only_make else sorted(sizes):
        measured += _measure(config, output, rows)
        pq.write_table(figures.table(measured), output / "rehearsal.parquet")
        (output / "rehearsal.md").write_text(figures.markdown(measured))
    return figures.markdown(measured) if measured else None


def _require_fresh(runs: Sequence[Path]) -> None:
    """Stop where a run would only go on, and be measured in part."""
    if old := [str(run) for run in runs if run.exists()]:
        raise RehearsalError(
            f"{', '.join(old)}: an earlier rehearsal: delete it, or choose another --output"
        )


def _measure(config: str, output: Path, rows: int) -> list[figures.Figure]:
    """Run the job on the data set of so many rows, and return its figures."""
    run, text = output / f"run-{rows}", output / f"run-{rows}.log"
    log.info("%d rows: see %s", rows, text)
    data = str(output / f"data-{rows}")
    command = [sys.executable, "-m", "sensloc", "run", config, "--data", data, "--output", str(run)]
    job = run_job(command, text)
    pq.write_table(job.samples, output / f"memory-{rows}.parquet")
    if job.code:
        tail = text.read_text(errors="replace")[-TAIL:]
        raise RehearsalError(f"the job on {rows} rows fails, code {job.code}: {text}\n{tail}")
    log.info("%d rows: %.0f s", rows, job.seconds)
    return figures.figures(rows, job, run)
