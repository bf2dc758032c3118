"""The whole run: manifest, sensitivity maps, linear map, CorLoc table and figure.

Stages that the run directory already holds complete are not run again.
"""

from sensloc.cli import main
from sensloc.stages.localize import localize

if __name__ == "__main__":
    main(localize, __doc__)
