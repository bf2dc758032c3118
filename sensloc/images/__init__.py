"""From a URI to pixels: fetch, check, decode."""
