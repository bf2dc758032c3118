"""Version 0.1.0's map of a batch, whenever it is asked for: what ``benchmarks.since`` starts.

It runs as a file, with a checkout of that version first on the module path, so that it imports
nothing of this one.
"""

import sys
from importlib import import_module

import torch


def main(batch: str) -> None:
    """Make the maps once for each line of the standard input, and answer with a line.

    Args:
        batch: Of ``torch.save``: a network, its normalised images [n, 3, S, S], and their
            classes [n]. A line that is not empty is the file to which the maps [n, S, S] go.
    """
    classifiers, sensitivity = map(import_module, ("sensloc.classifiers", "sensloc.sensitivity"))
    network, images, labels = torch.load(batch, weights_only=False)
    network = classifiers.fold(network.requires_grad_(False), images[:1])
    network = network.to(memory_format=torch.channels_last)
    pixels = images.contiguous(memory_format=torch.channels_last)
    for line in sys.stdin:
        slopes, _ = sensitivity.class_score_gradient(network, pixels, labels)
        maps = sensitivity.sensitivity_map(slopes, "max")
        if file := line.strip():
            torch.save(maps, file)
        print("made", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
