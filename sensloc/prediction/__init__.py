"""A fitted run as one small folder: boxes, confidence, exports."""
