"""Images per second of fetching: single files against tar shards, on any storage.

Writes the first images of a data set both ways to --output, and reads them in turn.
"""

from sensloc.cli import alone, storage

if __name__ == "__main__":
    alone(storage, __doc__)
