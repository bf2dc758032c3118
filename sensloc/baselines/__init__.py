"""Methods by others, written from their equations: objectness and co-localization."""
