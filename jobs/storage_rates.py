"""Images per second of fetching: single files against tar shards, on any storage.

Writes the first images of a data set both ways to --output, and reads them in turn.
"""

from sensloc.cli import main
from sensloc.stages.storage_rates import storage_rates

if __name__ == "__main__":
    main(storage_rates, __doc__)
