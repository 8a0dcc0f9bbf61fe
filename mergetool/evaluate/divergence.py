"""Exact KL divergence of two models' next-token distributions over completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergetool.data.tokens import Coded
from mergetool.errors import CheckpointError
from mergetool.evaluate.logprobs import completion_logits

if TYPE_CHECKING:
    import torch

ROWS = 256  # tokens whose distributions are in fp32 at one time


def completion_divergence(model: Any, reference: Any, sequences: Sequence[Coded], pad_id: int) -> torch.Tensor:
    """KL(model || reference) summed over the completion tokens of each sequence, over the whole vocabulary.

    KL = sum_v p(v) [log p(v) - log q(v)], at every position that predicts a completion token, given the tokens before it.

    Args:
        model, reference: causal language models of one vocabulary, in any floating type; sums are taken in fp32.
        sequences: prompts and completions.
        pad_id: fills short rows on the right; masked, so its value does not matter.

    Returns:
        float64 tensor of shape (len(sequences),), nats.

    Raises:
        CheckpointError: the two vocabularies differ in size.
    """
    import torch

    ours, theirs = (one.get_output_embeddings().weight.shape[0] for one in (model, reference))
    if ours != theirs:
        raise CheckpointError(
            f"kl_to_sft: the model has {ours} tokens, the SFT model {theirs}", "compare models of one vocabulary"
        )
    total = torch.zeros(len(sequences), dtype=torch.float64)
    for batch, owner, _, (logits, other) in completion_logits([model, reference], sequences, pad_id):
        parts = []
        for some, base in zip(logits.split(ROWS), other.to(logits.device).split(ROWS), strict=True):
            log_p, log_q = some.float().log_softmax(-1), base.float().log_softmax(-1)
            parts.append((log_p.exp() * (log_p - log_q)).sum(-1).double().cpu())
        total[torch.tensor(batch)] = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, owner, torch.cat(parts))
    return total
