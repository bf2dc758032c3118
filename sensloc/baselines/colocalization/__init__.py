"""Co-localization: of each image's candidate boxes, the one that the class has in common.

The box model of Tang, Joulin, Li and Fei-Fei (CVPR 2014). No box annotation is read, only that
all images show one class. With n images, their N boxes in all, and z the indicator of the chosen
boxes, relaxed to the product of the images' simplices::

    minimise  f(z) = 1/2 z^T (L + mu A) z + lam c^T z      z >= 0, sums to 1 over each image

- L (``similarity``), the normalised Laplacian of the boxes' similarities: alike boxes are chosen
  together.
- A (``clustering``), discriminative clustering: z^T A z is what the best ridge regression from the
  features cannot explain of z, so the chosen boxes can be told from the others.
- c, minus the log of each box's prior (objectness or saliency).

L and A are positive semidefinite, scaled to trace 1; c is scaled to sum 1. So f is convex, and
Frank-Wolfe (Joulin, Tang, Fei-Fei, ECCV 2014; ``program``) finds its minimum with a certificate,
the duality gap. The paper's second model, which may leave noisy images out, is not here: every
image of an annotated class shows it.

Memory, in bytes, for N <= n m boxes of d features: the kernel and L take 16 N^2 while they are
made and 8 N^2 after (N = 6,300: 635 MB and 318 MB). A is never formed: its factor takes
8 N min(N, d'), where d' features feed it, and three times that while it is made. Features are
copied once as they come and once as float32; chi2 works in another 12 N d at most (in proportion
to the share of bins that are not empty).
"""

from sensloc.baselines.colocalization.model import Colocalization

__all__ = ["Colocalization"]
