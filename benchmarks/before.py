"""Version 0.1.0's maps of a batch, whenever they are asked for: what ``benchmarks.since`` starts.

It runs as a file, with a checkout of that version first on the module path, so that it imports
nothing of this one.
"""

import sys
from importlib import import_module

import torch


def main(folder: str) -> None:
    """Make the maps, and once more for each line of the standard input; each time print a line.

    Args:
        folder: Where ``batch.pt`` is, of a network, its normalised images [n, 3, S, S] and their
            classes [n], and ``maps.pt`` will be, the maps [n, S, S].
    """
    classifiers, sensitivity = map(import_module, ("sensloc.classifiers", "sensloc.sensitivity"))
    network, images, labels = torch.load(f"{folder}/batch.pt", weights_only=False)
    network = classifiers.fold(network.requires_grad_(False), images[:1])
    network = network.to(memory_format=torch.channels_last)
    pixels = images.contiguous(memory_format=torch.channels_last)

    def made() -> torch.Tensor:
        slopes, _ = sensitivity.class_score_gradient(network, pixels, labels)
        maps: torch.Tensor = sensitivity.sensitivity_map(slopes, "max")
        return maps

    torch.save(made(), f"{folder}/maps.pt")
    print("made", flush=True)
    for _ in sys.stdin:
        made()
        print("made", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
