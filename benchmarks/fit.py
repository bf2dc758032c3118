"""Least squares from Parquet by sums, beside scikit-learn's in memory: seconds, memory, weights.

Each way learns from the same file in a process of its own, so that its memory is its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.scale.measure import sampled
from benchmarks.turns import Spread, save, spread
from sensloc.methods.least_squares import NormalEquations, quantise
from sensloc.report.text import Columns, aligned, number, table_lines

ROWS, TARGETS, RIDGE = 225_687, 4, 1e-3
"""The rows are three quarters of the paper's images."""

VALUES = (196, 784)
ALL_VALUES = (*VALUES, 3136)
PART = 4096
"""Rows that are read at a time."""

LOOK = 0.02
"""Seconds between two looks at the memory."""

Array = npt.NDArray[np.float64]


def make(file: Path, values: int, rows: int) -> None:
    """Write rows of ``x`` [values], correlated as neighbours of a map are, and ``y`` [TARGETS]."""
    rng = np.random.default_rng(values)
    weights = rng.normal(0, 1 / values, (values, TARGETS))
    schema = pa.schema({"x": pa.list_(pa.float32()), "y": pa.list_(pa.float32())})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, rows, PART):
            n = min(PART, rows - start)
            noise = rng.random((n, values))
            x = quantise((noise + np.roll(noise, 1, 1) + np.roll(noise, 2, 1)) / 3)
            y = quantise(np.clip(x @ weights + 0.5 + rng.normal(0, 0.1, (n, TARGETS)), 0, 1))
            columns = {
                name: pa.array(list(v), pa.list_(pa.float32())) for name, v in (("x", x), ("y", y))
            }
            writer.write_table(pa.table(columns, schema))


def parts(file: Path) -> Iterator[tuple[Array, Array]]:
    """Yield the rows of a file, some at a time: [n, values] and [n, TARGETS]."""
    for batch in pq.ParquetFile(file).iter_batches(PART):
        x, y = (batch.column(name).flatten().to_numpy() for name in ("x", "y"))
        yield x.reshape(len(batch), -1).astype(float), y.reshape(len(batch), -1).astype(float)


def whole(file: Path) -> tuple[Array, Array]:
    """Return all rows of a file."""
    x, y = zip(*parts(file), strict=True)
    return np.concatenate(x), np.concatenate(y)


def sums(file: Path) -> Array:
    """Return the weights [TARGETS, values] by the product's sums."""
    total: NormalEquations | None = None
    for x, y in parts(file):
        some = NormalEquations.from_batch(x, y)
        total = some if total is None else total.merge(some)
    assert total is not None
    return np.asarray(total.solve(RIDGE).coef_)


def ridge(file: Path) -> Array:
    """Return the weights by scikit-learn's Ridge, whose penalty is not per row."""
    from sklearn.linear_model import Ridge

    x, y = whole(file)
    return np.asarray(Ridge(alpha=RIDGE * len(x)).fit(x, y).coef_)


def plain(file: Path) -> Array:
    """Return the weights by scikit-learn's LinearRegression, without a penalty."""
    from sklearn.linear_model import LinearRegression

    x, y = whole(file)
    return np.asarray(LinearRegression().fit(x, y).coef_)


WAYS: dict[str, Callable[[Path], Array]] = {
    "sensloc, sums": sums,
    "scikit-learn Ridge": ridge,
    "scikit-learn LinearRegression": plain,
}


def alone(way: str, file: Path, weights: Path) -> None:
    """Learn one way in this process, write the weights, and print seconds and MiB as JSON."""
    with sampled(os.getpid(), LOOK) as looks:
        began = time.perf_counter()
        learned = WAYS[way](file)
        seconds = time.perf_counter() - began
    np.save(weights, learned)
    held = [row["own"] for row in looks]
    print(json.dumps({"seconds": seconds, "mib": (max(held) - held[0]) / 2**20}))


def measured(file: Path, rounds: int) -> list[dict[str, Any]]:
    """Return for each way its seconds, its memory beside the interpreter's, and its weights' error.

    The error is the largest difference to Ridge's weights, of the two that have a penalty.
    """
    rounds_of: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    weights = {way: file.with_suffix(f".{i}.npy") for i, way in enumerate(WAYS)}
    for _ in range(rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.fit", "--alone", way, str(file)]
            done = subprocess.run(
                [*command, "--weights", str(weights[way])],
                capture_output=True,
                text=True,
                check=True,
            )
            rounds_of[way].append(json.loads(done.stdout.splitlines()[-1]))
    wanted = np.load(weights["scikit-learn Ridge"])
    return [
        {
            "way": way,
            "seconds": vars(Spread.of([of_round["seconds"] for of_round in rounds_of[way]])),
            "mib": max(of_round["mib"] for of_round in rounds_of[way]),
            "error": None
            if way == "scikit-learn LinearRegression"
            else float(np.abs(np.load(weights[way]) - wanted).max()),
        }
        for way in WAYS
    ]


def main(
    everything: Annotated[bool, typer.Option("--all", help="3,136 values too.")] = False,
    rows: int = ROWS,
    rounds: int = 3,
    output: Path = Path("runs/bench/fit.json"),
    alone_: Annotated[str | None, typer.Option("--alone", hidden=True)] = None,
    file: Annotated[Path | None, typer.Argument(hidden=True)] = None,
    weights: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Print seconds and memory of the linear map's fit, from Parquet, beside scikit-learn's."""
    if alone_ and file and weights:
        alone(alone_, file, weights)
        return
    results = {}
    for values in ALL_VALUES if everything else VALUES:
        with TemporaryDirectory() as folder:
            table = Path(folder) / "rows.parquet"
            make(table, values, rows)
            results[values] = measured(table, rounds)
        columns: Columns = {
            f"{rows:,} rows of {values} values": lambda row: row["way"],
            "seconds": spread("seconds", 1),
            "MiB": number("mib", 0),
            "from Ridge's": lambda row: "" if row["error"] is None else f"{row['error']:.0e}",
        }
        print(aligned(table_lines(columns, results[values])), "\n")
    print(save(output, rows=rows, ridge=RIDGE, results=results))


if __name__ == "__main__":
    typer.run(main)
