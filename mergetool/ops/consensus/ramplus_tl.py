"""RAM+, tensor by tensor: what a model alone has changed counts for more where much else of its change is shared.

Source: arXiv 2601.13572; mergekit 0.1.5's ramplus_tl, whose counts are of a tensor and not of the model.
"""

from __future__ import annotations

import torch

from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.ram import Changes, Ram, changed


class RamPlus(Ram):
    """RAM with the factor 1 + r·min(ρᵢ, α), ρᵢ = shared/unique entries of model i, on its unique entries."""

    def statistic(self, inputs: WholeInputs) -> Changes:
        """One reading of all deltas: how many entries each shares, and how many it has alone."""
        floor, count = inputs.options["epsilon"], len(inputs.reads)
        shared, unique = [0] * count, [0] * count
        for start, stop in inputs.spans():
            deltas = [read(start, stop) for read in inputs.reads]
            masks, models = [torch.empty_like(delta) for delta in deltas], torch.empty_like(deltas[0])
            changed(deltas, floor, masks, models)
            for i, mask in enumerate(masks):
                mine = models[mask.bool()]
                unique[i] += int((mine == 1.0).sum())
                shared[i] += int((mine > 1.0).sum())
        r, alpha = inputs.options["r"], inputs.options["alpha"]
        ratios = [s / u if u else (alpha if s else 0.0) for s, u in zip(shared, unique, strict=True)]
        return Changes(floor, [1.0 + r * min(ratio, alpha) for ratio in ratios])


CONSENSUS = RamPlus()
