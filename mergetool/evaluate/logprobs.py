"""Summed log-probability of each completion, with logits made for completion tokens alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mergetool.data.tokens import Coded

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
    for batch, owner, target, (logits,) in completion_logits([model], sequences, pad_id):
        found = _gathered_log_softmax(logits, target).double().cpu()
        total[torch.tensor(batch)] = torch.zeros(len(batch), dtype=torch.float64).index_add_(0, owner, found)
    return total


def completion_logits(models: Sequence[Any], sequences: Sequence[Coded], pad_id: int) -> Iterator[tuple]:
    """The logits that predict completion tokens, batch by batch, of one or several models on the same tokens.

    Args:
        models: causal language models.
        sequences: prompts and completions.
        pad_id: as `completion_log_probs`.

    Yields:
        (batch, owner, target, logits): indices into `sequences`, and for these what `_logits` gives.
    """
    import torch

    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    # with several models their logits are there at the same time
    vocabulary = sum(model.get_output_embeddings().weight.shape[0] for model in models)
    try:
        for batch in batches(sequences, vocabulary):
            with torch.inference_mode():
                made = _logits(models, [sequences[at] for at in batch], pad_id)
            yield batch, *made
    finally:
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)


def token_log_probs(model, rows: Sequence[Coded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of every completion token of one batch; differentiable where gradients are on.

    Args:
        model, pad_id: as `completion_log_probs`.
        rows: few enough for one forward pass; see `batches`.

    Returns:
        fp32, shape (completion tokens of all rows,), nats, on the model's device; and the row of each, on the CPU.
    """
    owner, target, (logits,) = _logits([model], rows, pad_id)
    return _gathered_log_softmax(logits, target), owner


def _logits(models: Sequence[Any], rows: Sequence[Coded], pad_id: int) -> tuple[torch.Tensor, torch.Tensor, list]:
    """The logits that predict the completion tokens of one batch; differentiable where gradients are on.

    Returns:
        For each scored token its row, int64 on the CPU; the token itself, int64 on the first model's device; and per
        model a tensor of shape (scored tokens, vocabulary). Rows follow one another, and so do a row's tokens.
    """
    import torch

    width = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    select = torch.zeros((len(rows), width), dtype=torch.bool)  # positions that predict a completion token
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        mask[at, : len(row.ids)] = 1
        select[at, max(row.start, 1) - 1 : len(row.ids) - 1] = True
    target = ids[:, 1:][select[:, :-1]].to(next(models[0].parameters()).device)
    logits = []
    for model in models:
        device = next(model.parameters()).device
        logits.append(_selected_logits(model, ids.to(device), mask.to(device), select.to(device)))
    return torch.arange(len(rows)).repeat_interleave(select.sum(1)), target, logits


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
