"""What one merge of one parameter is made of, and what an operator has to say of it.

    θ ← decay·origin + F(Δ) ⊕ F(τ_s)

The operator is F and ⊕; `mergetool/optim/operators` has one file for each. How the tensor is walked (its kept entries
alone, block by block, in one compiled pass) is `road`'s choice and the same for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from mergetool.methods import ONLINE, Online
from mergetool.ops.blocks import spans
from mergetool.ops.noise import stream_key
from mergetool.ops.sparsifiers import row_length
from mergetool.optim.deltas import Delta, block_size
from mergetool.optim.parts import AdamPart, Binding
from mergetool.optim.sharding import Shard
from mergetool.optim.step import Elect

UPDATE, REFERENCE, ROUNDING = "0", "1", "rounding"
"""Roles of the random streams. The first two are the models' positions in the offline recipe that a run with K = T
equals, so that both draw the same entries."""


class Picked(NamedTuple):
    """A sparsified delta by its kept entries: local flat indices (int64, ascending), fp32 values, and their rescaling."""

    index: torch.Tensor
    value: torch.Tensor
    scale: float = 1.0


class Merge(NamedTuple):
    """One merge: the group's settings, the merge's number (from 0) and how sums are rounded."""

    operator: Operator
    density: float
    alpha: float
    rescale: str
    tau_mask: str
    elect: Elect
    clip: float | None
    seed: int
    number: int
    stochastic: bool

    def key(self, role: str, name: str) -> int:
        """The random stream of one delta of this merge."""
        number = 0 if role == REFERENCE and self.tau_mask == "fixed" else self.number
        return stream_key(self.seed, number, role, name)

    def weighed(self, kept: Picked, weight: float) -> Picked:
        """One sparsified delta, rescaled, clipped and times its weight; newly made."""
        value = kept.value * kept.scale  # one product after the other, as the offline engine has it
        if self.clip is not None:
            value.clamp_(-self.clip, self.clip)
        return Picked(kept.index, value.mul_(weight))

    def rescale_and_clip_(self, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> None:
        """Both deltas times the rescaling that is still due, clipped, in place."""
        for x, scale in zip((delta, tau), scales, strict=True):
            if x is not None and scale != 1.0:
                x.mul_(scale)
            if x is not None and self.clip is not None:
                x.clamp_(-self.clip, self.clip)


class Job(NamedTuple):
    """One parameter's part of a merge.

    Args:
        theta: the rank's part of the parameter, flat.
        origin: where the deltas are added: `theta` itself for online merging (K = 1), the anchor for Step-K.
        decay: the weight decay that `origin` has still to suffer, as a factor.
        delta: Δ; read to its end before `theta` changes only in the entries of one block.
        merge: settings.
        binding: the parameter's name, shard and τ_s.
    """

    theta: torch.Tensor
    origin: torch.Tensor
    decay: float
    delta: Delta
    merge: Merge
    binding: Binding

    @property
    def tau(self) -> Delta | None:
        """τ_s, None where none of it is merged."""
        return self.binding.tau if self.merge.alpha else None

    def source(self, role: str) -> Delta:
        """Δ or τ_s, by its role."""
        found = self.delta if role == UPDATE else self.binding.tau
        assert found is not None  # nobody asks for a τ_s that is not merged
        return found

    def key(self, role: str) -> int:
        """The random stream of `role`."""
        return self.merge.key(role, self.binding.name)


class Operator:
    """F and ⊕ of one online method: the protocol. A file's `OPERATOR` is an instance; it holds no state of its own.

    Attributes:
        name: `optimizer.method`; its row is `mergetool.methods.ONLINE[name]`.
        by_entries: whether below density 1/32 it merges the kept entries alone: it then has `pick` and `sums`.
        whole_rows: whether `sparsified` must be given whole rows.
    """

    name: str
    by_entries: bool = False
    whole_rows: bool = False

    @property
    def row(self) -> Online:
        """What the table says of it."""
        return ONLINE[self.name]

    def is_the_step(self, group: Mapping[str, Any]) -> bool:
        """True where merging is the optimizer's own step: everything is kept, and nothing added to it."""
        return self.row.points or (group["density"] >= 1.0 and not group["alpha"] and group["clip"] is None)

    def share(self, group: Mapping[str, Any]) -> float:
        """What F leaves of τ_s, in expectation; an upper bound where the row says so."""
        return 1.0

    def mix(self, theta: torch.Tensor, merge: Merge, binding: Binding) -> None:
        """θ ← a share of the way to θ_s, after the optimizer's own step: where the row says that the reference is points."""
        raise NotImplementedError

    def before_step(self, part: AdamPart) -> None:
        """Changes a gradient, in place, before Adam reads it."""

    # --- block by block -----------------------------------------------------------------------------------------------

    def blocks(self, shard: Shard, device: torch.device) -> Iterator[tuple[int, int]]:
        """(start, stop) of the local blocks that `sparsified` is given, ascending."""
        row = row_length(shard.extent) if self.whole_rows else 1
        return spans(shard.held, max(block_size(device) // row, 1) * row)

    def statistic(self, delta: Delta, role: str, merge: Merge, binding: Binding) -> Any:
        """What F has to know of a whole delta (over all ranks) before any block of it; None for nothing."""
        return None

    def reads_once(self, part: AdamPart) -> bool:
        """True where each block of a part's Δ is read once, ascending, by `sparsified` alone: Δ may be made as it is read."""
        return False

    def sparsified(
        self, delta: Delta, statistic: Any, key: int, merge: Merge, shard: Shard, start: int, stop: int
    ) -> torch.Tensor:
        """F of the local block [start, stop) without its rescaling: fp32, newly made."""
        raise NotImplementedError

    def combine(self, merge: Merge, delta: torch.Tensor, tau: torch.Tensor | None, scales: tuple[float, float]) -> torch.Tensor:
        """F(Δ) ⊕ F(τ_s) with their weights 1 − α and α.

        Args:
            merge: settings.
            delta, tau: sparsified; fp32; overwritten. None for zero.
            scales: the rescaling that is still due.
        """
        raise NotImplementedError

    # --- the kept entries alone ---------------------------------------------------------------------------------------

    def pick(self, wanted: Sequence[tuple[Job, str]]) -> list[Picked]:
        """The kept entries of the Δ or τ_s (by its role) of each job, without their rescaling."""
        raise NotImplementedError

    def pick_ahead(self, parts: Sequence[AdamPart]) -> list[Picked] | None:
        """F(Δθ) of each part, found in the pass that updates its moments, where that is worth while and runs compiled.

        Returns:
            None where F(Δθ) is not found so, and no moments have been updated.
        """
        return None

    def sums(self, jobs: Sequence[Job], kept: Sequence[Picked], taus: Sequence[Picked | None]) -> list[Sums]:
        """What is added to θ, from the kept entries of Δ and τ_s, in the order in which it is added."""
        raise NotImplementedError

    def stays(self, merge: Merge) -> bool:
        """True where F(τ_s) will be the same at the next merge."""
        return merge.tau_mask == "fixed"

    # --- in one compiled pass -----------------------------------------------------------------------------------------

    def in_one_pass(self, shard: Shard) -> bool:
        """Whether there is a kernel for it: `in_kernel` then says what it does to an entry."""
        return False

    def in_kernel(self, job: Job, part: AdamPart | None) -> dict[str, Any]:
        """How the kernels of `mergetool.optim.kernels` sparsify and combine: arguments of `constants`.

        Args:
            job: the merge.
            part: where Δ is Adam's step, whose moments are still to be updated; None for Step-K.
        """
        raise NotImplementedError


class Sums(NamedTuple):
    """Kept entries to add to θ, one `Picked` for each job, and the role that their rounding goes by."""

    jobs: Sequence[Job]
    picked: Sequence[Picked]
    role: str
