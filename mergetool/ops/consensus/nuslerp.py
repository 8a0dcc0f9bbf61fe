"""The arc between two models or their task vectors, by weights: of whole tensors, of their rows, or of their columns.

Source: mergekit 0.1.5's nuslerp; Shoemake 1985.
"""

from __future__ import annotations

import torch

from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.combination import Combination, norms
from mergetool.ops.gram import Groups

_STRAIGHT = 1e-7  # sin² of an angle below which an fp32 vector lies in the line of another
_NO_WEIGHT, _NO_LENGTH = 1e-6, 1e-7


class NuSlerp(Combination):
    """sin((1 − t)·Ω)/sin Ω · a + sin(t·Ω)/sin Ω · b with t = w_b/(w_a + w_b); a straight line where Ω is 0 or π."""

    def groups(self, inputs: WholeInputs) -> Groups:
        """As `Combination.groups`. mergekit's word `nuslerp_row_wise` takes the vectors along the first axis."""
        if inputs.options["nuslerp_flatten"]:
            return Groups.whole(inputs.shape)
        return Groups.along(inputs.shape, 0 if inputs.options["nuslerp_row_wise"] else -1)

    def coefficients(self, gram: torch.Tensor, inputs: WholeInputs) -> torch.Tensor:
        """As `Combination.coefficients`."""
        first, second = inputs.weights
        total = first + second
        t = 0.5 if abs(total) < _NO_WEIGHT else second / total
        lengths = norms(gram).clamp_min(_NO_LENGTH)
        cosine = (gram[:, 0, 1] / (lengths[:, 0] * lengths[:, 1])).clamp(-1.0, 1.0)
        straight = 1.0 - cosine.square() <= _STRAIGHT
        angle = torch.acos(torch.where(straight, 0.0, cosine))
        sine = torch.where(straight, 1.0, torch.sin(angle))
        a = torch.where(straight, 1.0 - t, torch.sin((1.0 - t) * angle) / sine)
        b = torch.where(straight, t, torch.sin(t * angle) / sine)
        return torch.stack([a, b], dim=1)


CONSENSUS = NuSlerp()
