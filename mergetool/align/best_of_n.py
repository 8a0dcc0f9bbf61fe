"""RAFT on TRL's GRPO trainer: of the answers to a prompt only the best is learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def best_of_group(rewards: torch.Tensor, group: int) -> torch.Tensor:
    """RAFT's choice as advantages: `group` for the best answer to each prompt (the first of equals), 0 for the others.

    The mean over a group of advantage times gradient is then the gradient of the best answer alone.

    Args:
        rewards: shape (prompts·group,), a prompt's answers side by side; NaN where an answer could not be scored.
        group: answers to each prompt.

    Returns:
        `rewards`' shape and dtype.

    Source: Dong et al. 2023, *RAFT*, arXiv 2304.06767, Algorithm 1 (lines 6–8), at every step.
    """
    import torch

    table = torch.nan_to_num(rewards, nan=-torch.inf).view(-1, group)
    top, place = table.max(dim=1, keepdim=True)
    return torch.zeros_like(table).scatter_(1, place, group * torch.isfinite(top).to(table.dtype)).view(-1)


def best_of_n(base: type) -> type:
    """TRL's GRPO trainer whose advantages are those of `best_of_group`.

    Args:
        base: `trl.GRPOTrainer`, or a class of it.
    """

    class BestOfN(base):
        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            self._scored = super()._calculate_rewards(*args, **kwargs)
            return self._scored

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            import torch

            output = super()._generate_and_score_completions(inputs)
            if self.model.training:
                weights = self.reward_weights.to(self._scored.device)
                rewards = (self._scored * weights).nansum(dim=1)
                rewards[torch.isnan(self._scored).all(dim=1)] = torch.nan
                held = output["advantages"].shape[0]
                first = self.accelerator.process_index * held
                output["advantages"] = best_of_group(rewards, self.num_generations)[first : first + held]
            return output

    BestOfN.__name__ = base.__name__
    return BestOfN
