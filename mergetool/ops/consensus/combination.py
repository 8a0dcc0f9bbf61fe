"""Combinations of whole vectors: Σ cᵢ·xᵢ, where the coefficients follow from the lengths of the inputs and their angles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mergetool.ops.consensus import Buffer, Consensus, WholeInputs, alone
from mergetool.ops.consensus.linear import blend
from mergetool.ops.gram import Groups, gram_matrices


class Coefficients(NamedTuple):
    """The coefficient of each input in each vector: fp64, shape (vectors, inputs), and which entries a vector has."""

    groups: Groups
    values: torch.Tensor


class Combination(Consensus):
    """The protocol for what interpolates on a sphere: a file says how vectors lie and what the coefficients are."""

    def groups(self, inputs: WholeInputs) -> Groups:
        """The vectors: the whole tensor, unless the method has it otherwise."""
        return Groups.whole(inputs.shape)

    def coefficients(self, gram: torch.Tensor, inputs: WholeInputs) -> torch.Tensor:
        """The coefficients.

        Args:
            gram: fp64, shape (vectors, inputs, inputs): inner products.
            inputs: weights and options.

        Returns:
            fp64, shape (vectors, inputs).
        """
        raise NotImplementedError

    def statistic(self, inputs: WholeInputs) -> Coefficients:
        """One reading of all inputs."""
        groups = self.groups(inputs)
        return Coefficients(groups, self.coefficients(gram_matrices(inputs.reads, groups), inputs))

    def at(self, statistic: Coefficients, start: int, stop: int) -> list[float] | torch.Tensor:
        """As `Consensus.at`: a coefficient for each input, or fp64 of shape (inputs, entries)."""
        if statistic.groups.count == 1:
            return statistic.values[0].tolist()
        return statistic.values.T[:, statistic.groups.of(start, stop, torch.device("cpu"))]

    def combine(self, parts: Sequence[torch.Tensor], statistic: list[float] | torch.Tensor, buffer: Buffer) -> torch.Tensor:
        """As `Consensus.combine`."""
        out = buffer("mixed")
        if isinstance(statistic, list):
            only = alone(statistic)
            return blend(parts, statistic, out) if only is None else parts[only]
        # as `blend`: written around one input, so that inputs that are equal come back bit for bit
        total = statistic.sum(0)
        total[(total - 1.0).abs() < 1e-12] = 1.0
        out.zero_()
        for part, coefficients in zip(parts[1:], statistic[1:], strict=True):
            out.addcmul_(parts[0] - part, coefficients.to(out.device, torch.float32))
        return torch.sub(parts[0] * total.to(out.device, torch.float32), out, out=out)


def norms(gram: torch.Tensor) -> torch.Tensor:
    """The Euclidean norm of each vector of each input; fp64, shape (vectors, inputs)."""
    return gram.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
