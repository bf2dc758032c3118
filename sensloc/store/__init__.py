"""The run directory: its files, tables, lock and provenance."""
