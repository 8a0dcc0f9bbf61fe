"""The Karcher mean of models: the direction from which the sum of squared angles to theirs is least, at their mean length.

Every step of the descent stays in the span of the inputs, so that it is carried out on coefficients.

Source: Karcher 1977; for models arXiv 2603.04972; mergekit 0.1.5's karcher.
"""

from __future__ import annotations

import numpy as np
import torch

from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.combination import Combination, norms


class Karcher(Combination):
    """The Karcher mean of the directions on the unit sphere times the mean of the norms."""

    def coefficients(self, gram: torch.Tensor, inputs: WholeInputs) -> torch.Tensor:
        """As `Combination.coefficients`."""
        lengths, tol = norms(gram)[0].numpy(), inputs.options["tol"]
        used = np.flatnonzero(lengths > tol)
        found = np.zeros_like(lengths)
        with np.errstate(invalid="ignore"):  # an Inf in an input is seen in the result
            products = gram[0].numpy()[np.ix_(used, used)] / np.outer(lengths[used], lengths[used])
            if used.size:
                found[used] = lengths.mean() * mean_direction(products, inputs.options["max_iter"], tol) / lengths[used]
        return torch.from_numpy(found).unsqueeze(0)


def mean_direction(products: np.ndarray, max_iter: int, tol: float) -> np.ndarray:
    """The Karcher mean of unit vectors, all of one weight, as coefficients of them.

    Args:
        products: fp64, their inner products, shape (vectors, vectors).
        max_iter: steps of the descent, at most.
        tol: the descent ends where a step is shorter, in radians; a vector that is nearer than this pulls no more.
    """
    count = len(products)

    def norm(vector: np.ndarray) -> float:
        return float(np.sqrt(max(vector @ products @ vector, 0.0)))

    mean = np.full(count, 1.0 / count)
    length = norm(mean)
    if length < tol:  # they cancel out
        mean, length = np.eye(count)[0], 1.0
    mean = mean / length
    for _ in range(max_iter):
        cosines = np.clip(products @ mean, -1.0, 1.0)
        angles = np.arccos(cosines)
        pulling = (angles >= tol) & (np.sin(angles) > 0.0)
        pulls = np.where(pulling, angles / np.where(pulling, np.sin(angles), 1.0), 0.0) / count
        tangent = pulls - (pulls @ cosines) * mean
        step = norm(tangent)
        if not tol <= step < np.inf:
            break
        mean = np.cos(step) * mean + np.sin(step) * tangent / step
        mean = mean / norm(mean)
    return mean


CONSENSUS = Karcher()
