"""Model Stock: the mean of fine-tuned models, pulled back to their base as far as the angle between them says.

Source: Jang et al. 2024, arXiv 2403.19522: t = k·cos θ/(1 + (k − 1)·cos θ) for k models.
"""

from __future__ import annotations

import torch

from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.combination import Coefficients, Combination, norms
from mergetool.ops.gram import Groups

_SMALL = 1e-6  # a product of norms, or 1 + (k − 1)·cos θ, below which mergekit takes none of the models


class ModelStock(Combination):
    """t · mean of the deltas, t from the mean cosine of every two deltas: of tensors, or of rows (`filter_wise`)."""

    def groups(self, inputs: WholeInputs) -> Groups:
        """As `Combination.groups`."""
        return Groups.along(inputs.shape, -1) if inputs.options["filter_wise"] else Groups.whole(inputs.shape)

    def coefficients(self, gram: torch.Tensor, inputs: WholeInputs) -> torch.Tensor:
        """As `Combination.coefficients`."""
        count, lengths = gram.shape[1], norms(gram)
        first, second = torch.triu_indices(count, count, offset=1)
        cosines = gram[:, first, second] / (lengths[:, first] * lengths[:, second]).clamp_min(_SMALL)
        cosine = cosines.clamp(-1.0, 1.0).mean(1)
        divisor = 1.0 + (count - 1) * cosine
        singular = divisor.abs() < _SMALL
        t = torch.where(singular, 0.0, count * cosine / torch.where(singular, 1.0, divisor))
        return (t / count).unsqueeze(1).expand(-1, count).contiguous()

    def share(self, statistic: Coefficients) -> float:
        """As `Consensus.share`: t, over all vectors."""
        return float(statistic.values.sum(1).mean())


CONSENSUS = ModelStock()
