"""The figures of rehearsals of several sizes, side by side, and a line to a size never tried."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.scale.measure import Job, together
from sensloc.report.text import grid

ALL_IMAGES = 14_197_122
"""Number of images of the whole of ImageNet."""

READS_PER_ROW = 3
"""The annotation once; the image for the manifest, and again for its sensitivity map."""

KINDS = ("driver", "worker", "raylet", "gcs_server", "other")

SCHEMA = pa.schema(
    [
        ("rows", pa.int64()),
        ("figure", pa.string()),
        ("unit", pa.string()),
        ("value", pa.float64()),
        ("grows", pa.bool_()),  # in proportion to the rows, or it has to be shown that it does not
    ]
)

LABELS = {"s": ", s", "B": ", MB", "": ""}

NOTE = """\
*CPU*: seconds of one core, over all processes. *Own memory*: the most that one process would give
back, in looks half a second apart. *With shared pages*: the most that it held, pages of libraries
and of the object store counted for every process that reads them. *Spilled*: the most bytes of
spilled objects on the disk at one look. *Per further row*: the seconds beyond the next smaller
size over the rows beyond it, so without a job's start. *Line*: v2 + max(0, (v2 - v1) / (n2 - n1))
(n - n2) through the two largest sizes, for times, files, reads and the memory of driver and
gcs_server; the other figures must not grow, which the columns show. The network is a tiny stand-in,
the images are 64 pixels a side and lie in the page cache: what a real network, real photographs and
a real store take comes on top."""


@dataclass(frozen=True)
class Figure:
    """One number of a rehearsal.

    Attributes:
        rows: images of the rehearsal.
        figure: its name.
        unit: "s", "B" or "" for a count.
        value: in that unit.
        grows: whether a line through two sizes says what a third would take.
    """

    rows: int
    figure: str
    unit: str
    value: float
    grows: bool = True


def figures(rows: int, job: Job, folder: Path) -> list[Figure]:
    """Return the figures of one rehearsal.

    Args:
        rows: number of images.
        job: its measurements.
        folder: its run directory.
    """
    stages = json.loads((folder / "run.json").read_text())["stages"]
    outputs = dict(_outputs(folder))
    cpu = job.samples.group_by("pid").aggregate([("cpu", "max")])["cpu_max"]
    return [
        *(Figure(rows, name, "s", facts["seconds"]) for name, facts in stages.items()),
        Figure(rows, "the job", "s", job.seconds),
        Figure(rows, "CPU", "s", pc.sum(cpu).as_py()),
        *_memory(rows, job.samples),
        *(
            Figure(rows, f"{name} on disk", "B", sum(file.stat().st_size for file in files))
            for name, files in outputs.items()
        ),
        Figure(rows, "files written", "", sum(map(len, outputs.values()))),
        Figure(rows, "annotations and images read", "", READS_PER_ROW * rows),
    ]


def _memory(rows: int, samples: pa.Table) -> Iterator[Figure]:
    """Yield the peaks: largest process of each kind, all processes together, object store."""
    for kind in KINDS:
        processes = samples.filter(pc.equal(samples["kind"], kind))
        if len(processes):
            grows = kind in ("driver", "gcs_server")
            name = kind if kind == "driver" else f"largest {kind}"
            for column, label in {"own": "own memory", "resident": "with shared pages"}.items():
                peak = pc.max(processes[column]).as_py()
                yield Figure(rows, f"{name}, {label}", "B", peak, grows)
    yield Figure(rows, "all processes, own memory", "B", together(samples), False)
    workers = samples.filter(pc.equal(samples["kind"], "worker")).group_by("second")
    counts = workers.aggregate([("pid", "count")])["pid_count"]
    yield Figure(rows, "workers at once", "", pc.max(counts).as_py() or 0, False)
    for column, name in {"store": "object store touched", "spilled": "spilled"}.items():
        yield Figure(rows, name, "B", pc.max(samples[column]).as_py() or 0, False)


def _outputs(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield the folders of a run directory with their files, then the files beside them."""
    entries = sorted(folder.iterdir())
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield f"{entry.name}/", [file for file in entry.rglob("*") if file.is_file()]
    yield "other files", [entry for entry in entries if entry.is_file()]


def line(sizes: Sequence[Figure], rows: int) -> float | None:
    """Return what a figure would be at another size: on the line through its two largest sizes.

    A figure that shrinks is taken to stay.

    Args:
        sizes: one figure of several rehearsals.
        rows: the other size.

    Returns:
        None: it does not grow with the rows, or was measured at one size only.
    """
    *_, (n1, v1), (n2, v2) = [(0, 0.0), (0, 0.0), *sorted((f.rows, f.value) for f in sizes)]
    if n1 == 0 or not all(figure.grows for figure in sizes):
        return None
    return v2 + max(0.0, (v2 - v1) / (n2 - n1)) * (rows - n2)


def table(measured: Sequence[Figure]) -> pa.Table:
    """Return the table of ``SCHEMA``: one row per size and figure."""
    return pa.Table.from_pylist([vars(figure) for figure in measured], SCHEMA)


def markdown(measured: Sequence[Figure], target: int = ALL_IMAGES) -> str:
    """Return the figures as a table, a column per size, and one for a size that was not tried."""
    sizes = sorted({figure.rows for figure in measured})
    by_name: dict[tuple[str, str], list[Figure]] = {}
    for figure in measured:
        by_name.setdefault((figure.figure, figure.unit), []).append(figure)
    lines = [["", *(f"{n:,}" for n in sizes), f"{target:,} (line)"]]
    for (name, unit), same in by_name.items():
        values = {figure.rows: figure.value for figure in same}
        cells = (_cell(values.get(n), unit) for n in sizes)
        lines.append([name + LABELS[unit], *cells, _cell(line(same, target), unit)])
    for (name, unit), same in by_name.items():
        if unit == "s":
            lines += _per_row(name, {figure.rows: figure.value for figure in same}, sizes)
    seconds = {figure.rows: figure.value for figure in by_name["the job", "s"]}
    lines.append(["rows/s", *(f"{n / seconds[n]:,.0f}" for n in sizes), ""])
    return f"{grid(lines)}\n\n{NOTE}\n"


def _cell(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value / 1e6:,.1f}" if unit == "B" else f"{value:,.1f}" if unit else f"{value:,.0f}"


def _per_row(name: str, seconds: dict[int, float], sizes: Sequence[int]) -> Iterator[list[str]]:
    """Yield two lines: microseconds per row, and per row beyond the next smaller size."""
    known = [n for n in sizes if n in seconds]
    average = {n: seconds[n] / n for n in known}
    further = {b: (seconds[b] - seconds[a]) / (b - a) for a, b in pairwise(known)}
    for label, values in {"µs per row": average, "µs per further row": further}.items():
        if values:
            cells = (f"{1e6 * values[n]:,.0f}" if n in values else "" for n in sizes)
            yield [f"{name}, {label}", *cells, ""]
