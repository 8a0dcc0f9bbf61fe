"""Summed log-probability of each completion, with logits made for completion tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mergetool.evaluate.tokens import Coded

if TYPE_CHECKING:
    import torch

LOGIT_BYTES = 128 << 20  # fp32 logits of one batch
BATCH_TOKENS = 4096  # padded tokens of one batch: enough to keep the matmuls busy, small enough for a laptop


def batches(sequences: Sequence[Coded], vocabulary: int) -> Iterator[list[int]]:
    """Indices of `sequences` grouped so that like lengths share a batch and the logits stay below LOGIT_BYTES.

    Depends on the lengths alone: the same data make the same batches for every model, so equal weights give equal
    numbers bit for bit, and a reference scored against itself ties exactly.
    """
    most_scored = max(1, LOGIT_BYTES // (4 * vocabulary))
    order = sorted(range(len(sequences)), key=lambda at: (-len(sequences[at].ids), at))
    batch: list[int] = []
    width = scored = 0
    for at in order:
        width = max(width, len(sequences[at].ids))
        if batch and (width * (len(batch) + 1) > BATCH_TOKENS or scored + sequences[at].length > most_scored):
            yield batch
            batch, width, scored = [], len(sequences[at].ids), 0
        batch.append(at)
        scored += sequences[at].length
    if batch:
        yield batch


def completion_log_probs(model, sequences: Sequence[Coded], pad_id: int) -> torch.Tensor:
    """Sum of the log-probabilities of the completion tokens of each sequence.

    Args:
        model: a causal language model of transformers, in any floating type; sums are taken in fp32.
        sequences: what to score.
        pad_id: fills short rows on the right; masked, so its value does not matter.

    Returns:
        float64 tensor of shape (len(sequences),), nats.
    """
    import torch

    total = torch.zeros(len(sequences), dtype=torch.float64)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in batches(sequences, model.get_output_embeddings().weight.shape[0]):
            found, owner = token_log_probs(model, [sequences[at] for at in batch], pad_id)
            sums = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, owner, found.double().cpu())
            total[torch.tensor(batch)] = sums
    model.train(was_training)
    return total


def token_log_probs(model, rows: Sequence[Coded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every completion token of one batch; differentiable where gradients are on.

    Args:
        model, pad_id: as `completion_log_probs`.
        rows: few enough for one forward pass; see `batches`.

    Returns:
        fp32, shape (completion tokens of all rows,), nats, on the model's device; and the row of each, on the CPU.
    """
    import torch

    device = next(model.parameters()).device
    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    select = torch.zeros((len(rows), width), dtype=torch.bool)  # positions that predict a completion token
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        mask[at, : len(row.ids)] = 1
        select[at, max(row.start, 1) - 1 : len(row.ids) - 1] = True
    target = ids[:, 1:][select[:, :-1]].to(device)
    logits = _selected_logits(model, ids.to(device), mask.to(device), select.to(device))
    return _gathered_log_softmax(logits, target), torch.arange(len(rows)).repeat_interleave(select.sum(1))


def _selected_logits(model, ids, mask, select):
    """Logits of the selected positions, shape (selected, vocabulary).

    The head sees only the selected hidden states; everything the model does to logits afterwards (scaling, soft caps)
    still happens, because the model's own forward is what runs.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: (args[0][select].unsqueeze(0), *args[1:]))
    try:
        return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    finally:
        hook.remove()


def _gathered_log_softmax(logits, target, rows: int = 256):
    """log softmax(logits)[target] in fp32, a few rows at a time, so that no second copy of all logits is made."""
    import torch

    parts = []
    for some, wanted in zip(logits.split(rows), target.split(rows), strict=True):
        some = some.float()
        parts.append(some.gather(1, wanted[:, None])[:, 0] - some.logsumexp(1))
    return torch.cat(parts) if parts else torch.zeros(0)
