"""Penalties on the distance to theta_s: their gradients, added to an optimizer's before each of its steps.

They are added after clipping, so that a large loss gradient does not scale the pull down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from mergetool.optim.reference import Reference, Storage


def l2_penalty(optimizer: torch.optim.Optimizer, sft: Path, strength: float, storage: Storage = "mmap") -> None:
    """Adds the gradient of strength/2 * |theta - theta_s|^2 before every step of `optimizer`.

    Args:
        optimizer: with named parameters.
        sft: the directory of theta_s.
        strength: of the penalty.
        storage: where theta_s lies meanwhile, as in Reference.from_checkpoints.

    Source: [AMA] Lin et al. 2023, arXiv 2309.06256, "L2 penalty".
    """
    _pull(optimizer, sft, strength, storage, lambda away: away)


def l1_penalty(optimizer: torch.optim.Optimizer, sft: Path, strength: float, storage: Storage = "mmap") -> None:
    """Adds a subgradient of strength * |theta - theta_s|_1, the one that is 0 where they are equal; as `l2_penalty`.

    Source: [AMA] Lin et al. 2023, arXiv 2309.06256, "L1 penalty".
    """
    _pull(optimizer, sft, strength, storage, lambda away: away.sign())


def ewc_penalty(optimizer: torch.optim.Optimizer, sft: Path, strength: float, fisher: Path, storage: Storage = "mmap") -> None:
    """Adds the gradient of strength/2 * sum_i F_i (theta - theta_s)_i^2; as `l2_penalty`, which it is where F = 1.

    Args:
        fisher: safetensors with F under the parameters' own names, as `fisher.fisher_file` makes it; it is mapped.
        optimizer, sft, strength, storage: as of `l2_penalty`.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3.
    """
    from safetensors.torch import load_file

    from mergetool.optim.reference import Reference

    _pull(optimizer, sft, strength, storage, lambda away: away, Reference(load_file(fisher)))


def _pull(
    optimizer: torch.optim.Optimizer,
    sft: Path,
    strength: float,
    storage: Storage,
    force: Callable[[torch.Tensor], torch.Tensor],
    importance: Reference | None = None,
) -> None:
    """Adds strength * importance * force(theta - theta_s) to the gradient, block by block."""
    import torch

    from mergetool.optim.names import canonical
    from mergetool.optim.reference import Reference
    from mergetool.optim.sharding import blocks_of, local, shard_of

    start = Reference.from_checkpoints(None, sft, storage=storage).points()

    @torch.no_grad()
    def pull(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                shard, theta = shard_of(parameter), local(parameter)
                origin = start.delta(canonical(name), shard, theta.device)
                if origin is None:
                    continue  # the head of a reward model: theta_s has none to be near to
                scale = None if importance is None else importance.delta(canonical(name), shard, theta.device)
                gradient = local(parameter.grad)
                for at, stop in blocks_of(shard):
                    push = force(theta[at:stop].float() - origin.block(at, stop))
                    if scale is not None:
                        push *= scale.block(at, stop)
                    gradient[at:stop].add_(push.to(gradient.dtype), alpha=strength)

    optimizer.register_step_pre_hook(pull)
