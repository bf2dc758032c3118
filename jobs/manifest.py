"""One stage of a run: manifest. The stages before it must be complete."""

from sensloc.cli import main
from sensloc.stages.manifest import manifest

if __name__ == "__main__":
    main(manifest, __doc__)
