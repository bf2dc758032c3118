"""Pack the annotated images of any layout into tar shards, for the layout "webdataset".

A run on the shards gives the same tables as one on the files, with far fewer requests.
"""

from sensloc.cli import main
from sensloc.stages.pack import pack

if __name__ == "__main__":
    main(pack, __doc__)
