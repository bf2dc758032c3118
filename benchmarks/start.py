"""What a job's start costs: the demo stage by stage, and a prediction of twenty images."""

import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks.scale.measure import Job, run_job, together
from benchmarks.turns import save
from sensloc.report.text import Columns, aligned, number, table_lines

IMAGES = "0/scene_00??[0-4]?.png"
"""Some twenty of the demo's images."""


def ended(job: Job, log: Path) -> Job:
    """Return a job that has succeeded.

    Raises:
        SystemExit: It has not; with the end of its log.
    """
    if job.code:
        sys.exit(f"the job failed:\n{log.read_text(errors='replace')[-2000:]}")
    return job


def main(
    config: Annotated[str, typer.Argument(help="Of a run on the embedded set.")] = "conf/demo.toml",
    output: Path = Path("runs/bench/start.json"),
) -> None:
    """Print the seconds of the whole demo by stage, and of a prediction from the command on."""
    sensloc = [sys.executable, "-m", "sensloc"]
    with TemporaryDirectory() as folder:
        data, run, boxes, log = (Path(folder) / name for name in ("data", "run", "boxes", "log"))
        whole = ended(
            run_job([*sensloc, "run", config, f"--data={data}", f"--output={run}"], log), log
        )
        stages = json.loads((run / "run.json").read_text())["stages"]
        began = time.time()
        predict = [*sensloc, "predict", str(run), f"{data}/{IMAGES}", f"--output={boxes}"]
        prediction = ended(run_job(predict, log), log)
        first = min(file.stat().st_mtime for file in (boxes / "boxes").glob("*.parquet")) - began
    rows: list[dict[str, Any]] = [
        {"part": name, "seconds": stage["seconds"], "gb": None} for name, stage in stages.items()
    ]
    inside = sum(row["seconds"] for row in rows)
    rows.append({"part": "start and end", "seconds": whole.seconds - inside, "gb": None})
    rows.append({"part": config, "seconds": whole.seconds, "gb": together(whole.samples) / 1e9})
    rows.append({"part": "prediction, to the first boxes", "seconds": first, "gb": None})
    all_of_it = {"part": "prediction, to its end", "seconds": prediction.seconds}
    rows.append(all_of_it | {"gb": together(prediction.samples) / 1e9})
    columns: Columns = {
        "": lambda row: row["part"],
        "seconds": number("seconds"),
        "GB, all processes": number("gb"),
    }
    print(aligned(table_lines(columns, rows)))
    print(save(output, parts=rows))


if __name__ == "__main__":
    typer.run(main)
