"""``report.html``: what a run found, on one page that needs no network and no server."""
