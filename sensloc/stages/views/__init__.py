"""The stages that show what a run holds or write it otherwise: no row of a table is made here."""
