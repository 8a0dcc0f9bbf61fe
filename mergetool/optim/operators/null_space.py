"""OnNullSpace: what calibration rows would see is taken from the update.

Source: NSPO, arXiv 2512.11391, for the projection onto a null space; its soft form is `mergetool.ops.projection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from mergetool.ops.blocks import spans
from mergetool.ops.projection import rule_of
from mergetool.ops.projector import Projector, block_rows
from mergetool.optim.deltas import Delta, block_size
from mergetool.optim.job import Merge, Operator
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.sharding import Shard


class Projection(NamedTuple):
    """F_P of one tensor: the projector, and its pass over all rows where P mixes rows."""

    projector: Projector
    swept: list[torch.Tensor]


class NullSpace(Operator):
    """F is Δ·P; nothing is added."""

    name = "null_space"
    whole_rows = True

    def is_the_step(self, group: Mapping[str, Any]) -> bool:
        """As `Operator.is_the_step`: where P = I, and where the gradient has been projected already."""
        return rule_of(group).identity or group["project"] == "gradient"

    def before_step(self, part: AdamPart) -> None:
        """As `Operator.before_step`."""
        if part.group["project"] != "gradient" or rule_of(part.group).identity:
            return
        project_flat_(part.grad, part.binding)

    def blocks(self, shard: Shard, device: torch.device) -> Iterator[tuple[int, int]]:
        """As `Operator.blocks`: whole rows, cut where the whole tensor is cut, so that products are of whole blocks."""
        width = shard.shape[-1] if len(shard.shape) > 1 else 1
        first, rows, step = shard.first // width, shard.held // width, block_rows(device, width)
        step *= max(1, block_size(device) // (width * step))
        for start, stop in spans(first % step + rows, step):
            if start or stop > first % step:
                yield max(start - first % step, 0) * width, (stop - first % step) * width

    def statistic(self, delta: Delta, role: str, merge: Merge, binding: Binding) -> Projection:
        """As `Operator.statistic`."""
        projector, shard = projector_of(binding), binding.shard
        if not projector.sweeps:
            return Projection(projector, [])
        swept, width = projector.sweep(), projector.width
        for start, stop in self.blocks(shard, swept[0].device):
            projector.sweep_(swept, delta.block(start, stop).view(-1, width), (shard.first + start) // width)
        for group in shard.groups:
            for part in swept:
                dist.all_reduce(part, group=group)
        return Projection(projector, swept)

    def reads_once(self, part: AdamPart) -> bool:
        """As `Operator.reads_once`: where P mixes the rows they are all read beforehand."""
        return not projector_of(part.binding).sweeps

    def sparsified(
        self, delta: Delta, statistic: Projection, key: int, merge: Merge, shard: Shard, start: int, stop: int
    ) -> torch.Tensor:
        """As `Operator.sparsified`."""
        x = delta.block(start, stop)
        rows = (x if delta.owned else x.clone()).view(-1, statistic.projector.width)
        first = (shard.first + start) // statistic.projector.width
        return statistic.projector.project_(rows, first, statistic.swept).view(-1)

    def combine(self, merge: Merge, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> torch.Tensor:
        """As `Operator.combine`."""
        return delta


def projector_of(binding: Binding) -> Projector:
    """The parameter's."""
    assert binding.projector is not None  # the optimizer looks it up before it merges
    return binding.projector


def project_flat_(x: torch.Tensor, binding: Binding) -> None:
    """F_P of this rank's part of a tensor, in place.

    Args:
        x: flat; any floating type.
    """
    read = x.to(torch.float32, copy=True)
    delta = Delta(x.numel(), lambda start, stop: read[start:stop], lambda index: read[index])
    statistic = OPERATOR.statistic(delta, "", None, binding)  # type: ignore[arg-type]
    for start, stop in OPERATOR.blocks(binding.shard, x.device):
        done = OPERATOR.sparsified(delta, statistic, 0, None, binding.shard, start, stop)  # type: ignore[arg-type]
        x[start:stop] = done.to(x.dtype)


OPERATOR = NullSpace()
