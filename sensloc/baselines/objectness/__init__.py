"""The objectness measure of Alexe, Deselaers and Ferrari (PAMI 2012): likely windows of an image.

Windows are drawn in proportion to their multi-scale saliency, scored by three cues, and the cues
are combined by naive Bayes. No class is known and no network is used. It needs numpy, and
scikit-image for the superpixels and CIELAB.

- **MS**, multi-scale saliency (``saliency``): spectral-residual maps at several scales, of each
  colour channel.
- **CC**, colour contrast (``contrast``): chi-squared distance of the window's CIELAB histogram to
  its surround's.
- **SS**, superpixels straddling (``straddling``): how little superpixels cross the window's edge.

The parameters (``Thetas``) and the likelihoods (``LikelihoodTables``) are learned from images
with boxes, in two passes. Each pass is a sum of integer histograms over images, so its result
does not depend on the order of the images, nor on the number of workers. On one machine::

    thetas = choose_thetas(merged(theta_counts(pixels, truth, seed) for ...))
    model = Objectness(thetas, merged(cue_counts(pixels, truth, seed, thetas) for ...))
    boxes, scores = proposals(pixels, model, 1000, image_seed(image_id))

Pixels are of any size; results and speed here are of images squashed to 128 x 128.

Where this departs from the paper:

- Every cue is a number in [0, 1], so that one binning serves images of any size: MS is divided by
  its map's total and square-rooted, CC is half the usual sum.
- The MS of a window is its largest over scales and channels, and so a function of the window
  alone; windows at scales 48 and 64 have their corners on every second pixel.
- All thetas maximise the log posterior of random windows, theta_MS too (the paper: the IoU of the
  best windows). Photographs of one large object push theta_MS to the lowest candidate.
- A histogram's empty bins get a whole window, not an epsilon.
- No edge density, as in the authors' own default.
"""

from sensloc.baselines.objectness.likelihoods import LikelihoodTables, merged
from sensloc.baselines.objectness.measure import (
    Objectness,
    Thetas,
    choose_thetas,
    cue_counts,
    proposals,
    theta_counts,
)
from sensloc.baselines.objectness.windows import count_found, image_seed

__all__ = [
    "LikelihoodTables",
    "Objectness",
    "Thetas",
    "choose_thetas",
    "count_found",
    "cue_counts",
    "image_seed",
    "merged",
    "proposals",
    "theta_counts",
]
