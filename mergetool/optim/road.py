"""Which of the roads a tensor takes through a step. Nothing else decides it.

every = 1    [AdamW's moments] → Δθ is computed from them → merged with τ_s → θ
every = K    [AdamW's own step], and at every K-th step Δ = θ − anchor → merged with τ_s → θ
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from mergetool.ops.masks import SPARSE_BELOW
from mergetool.ops.rescale import reads_norms
from mergetool.optim.job import Operator
from mergetool.optim.parts import AdamPart
from mergetool.optim.rounded import COARSE
from mergetool.optim.sharding import Shard


class Road(Enum):
    """How a tensor makes a step."""

    PLAIN = "AdamW's own step: no merge is due, or merging would change nothing"
    MOMENTS = "the moments alone: a step at lr 0 where every step is merged"
    TOWARD = "AdamW's own step, then a share of the way to θ_s"
    ENTRIES = "the kept entries alone"
    ONE_PASS = "one compiled pass over memory"
    BLOCKS = "block by block"


class OwnStep(Enum):
    """How AdamW's own step is made."""

    FUSED = "torch's fused kernel, many tensors at once"
    MOMENTS = "the moments alone: at lr 0 nothing else changes"
    ONE_PASS = "one compiled pass over memory, computed in fp32 and rounded once"
    BLOCKS = "the same block by block"


def road(operator: Operator, group: dict[str, Any], part: AdamPart, *, due: bool, compiles: bool) -> Road:
    """The road of one tensor.

    Args:
        operator: the optimizer's.
        group: its settings.
        part: the tensor.
        due: whether this step is a K-th one, at a learning rate that is not 0.
        compiles: whether the group's merges run compiled.
    """
    if operator.is_the_step(group):
        return Road.TOWARD if due and operator.row.points else Road.PLAIN
    if not due:
        return Road.MOMENTS if group["every"] == 1 else Road.PLAIN
    if by_entries(operator, group["density"]):
        return Road.ENTRIES
    ranked_alone = part.ranking is None  # a kernel sees an entry of Δθ, and nothing else of it
    one_pass = compiles and ranked_alone and not reads_norms(group["rescale"]) and operator.in_one_pass(part.binding.shard)
    return Road.ONE_PASS if one_pass and _for_kernel(part.theta.dtype, part.binding.shard) else Road.BLOCKS


def by_entries(operator: Operator, density: float) -> bool:
    """Whether a merge touches the kept entries alone; else all of the tensor."""
    return operator.by_entries and density < SPARSE_BELOW


def own_step(group: dict[str, Any], part: AdamPart, *, compiles: bool) -> OwnStep:
    """How a tensor makes AdamW's own step.

    Args:
        group: its settings.
        part: the tensor.
        compiles: whether the group's steps run compiled.
    """
    theta = part.theta.dtype
    exact = theta not in COARSE or (group["rounding"] == "nearest" and part.m.dtype == theta)
    if exact:
        return OwnStep.FUSED
    if not part.lr:
        return OwnStep.MOMENTS
    return OwnStep.ONE_PASS if compiles and _for_kernel(theta, part.binding.shard) else OwnStep.BLOCKS


def _for_kernel(dtype: torch.dtype, shard: Shard) -> bool:
    return dtype in (torch.float32, torch.bfloat16) and shard.in_one_run and shard.held > 1
