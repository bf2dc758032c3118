"""A config for a folder of one's own photographs and boxes, by looking at it."""
