"""Heat maps: what a classifier says about each place of an image."""
