"""The whole run: manifest, sensitivity maps, linear map, CorLoc table, localizer, report.html.

Stages that the run directory already holds complete are not run again.
"""

from sensloc.cli import localized, main

if __name__ == "__main__":
    main(localized, __doc__)
