"""The job on real files in rising numbers, with a tiny network: seconds per row, memory, disk."""

from sensloc.cli import alone, scale

if __name__ == "__main__":
    alone(scale, __doc__)
