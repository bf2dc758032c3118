"""What a running job tells Ray's dashboard and Prometheus, by run and stage."""

from ray.util.metrics import Counter, Gauge

from sensloc.store.run import RunDir

KEYS = ("run", "stage")

LEFT = Gauge("sensloc_units_left", "units of the stage that are to be made", KEYS)
"""The queue; the driver sets it."""

ROWS = Counter("sensloc_rows", "rows that were written: their rate is images per second", KEYS)
ERRORS = Counter("sensloc_errors", "rows with an error among them", KEYS)


def tags(run: RunDir, stage: str) -> dict[str, str]:
    """Return the tags of a stage's metrics."""
    return {"run": run.config.name, "stage": stage}


def count(run: RunDir, stage: str, rows: int, errors: int) -> None:
    """Add the rows of a unit, where it is written."""
    for counter, number in ((ROWS, rows), (ERRORS, errors)):
        if number:  # a counter refuses 0
            counter.inc(number, tags(run, stage))
