"""Every method of the config's [compare] on the same test images: compare/table.md, report.html.

What the run directory lacks of the main run is made first; what it holds is not made again.
"""

from sensloc.cli import compared, main

if __name__ == "__main__":
    main(compared, __doc__)
