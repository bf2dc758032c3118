"""Pack the annotated images of any layout into tar shards, for the layout "webdataset".

A run on the shards gives the same tables as one on the files, with far fewer requests.
"""

from sensloc.cli import alone, pack

if __name__ == "__main__":
    alone(pack, __doc__)
