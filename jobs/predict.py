"""Boxes for images that nobody annotated: a finished run, and a folder of photographs.

Writes boxes/*.parquet (class, box in pixels, confidence) and coco.json. The same command goes on
where it was stopped.
"""

from sensloc.cli import alone, predict

if __name__ == "__main__":
    alone(predict, __doc__)
