"""The job on real files in rising numbers, with a tiny network: seconds per row, memory, disk."""

import argparse
import logging
import sys
from pathlib import Path

from sensloc.errors import SenslocError
from sensloc.rehearsal import rehearse

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help="conf/rehearsal.toml")
    parser.add_argument("--data", required=True, help="Tiny ImageNet, whose images are copied")
    parser.add_argument("--output", required=True, type=Path, help="folder for data sets and runs")
    parser.add_argument("--rows", type=int, nargs="+", default=[3000, 30000, 300916])
    parser.add_argument("--only-make", action="store_true", help="make the data sets, run no job")
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        job = Path(__file__).with_name("localize.py")
        print(rehearse(job, a.config, a.data, a.output, a.rows, a.only_make) or "made")
    except SenslocError as error:
        sys.exit(f"error: {error}")
