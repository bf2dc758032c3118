"""Localizers by others, written from the equations of their papers, that the comparison judges."""
