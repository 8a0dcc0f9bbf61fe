"""Answers that a model scores: rows of a prompt and an answer as token ids, as one padded batch, and their likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mergetool.data.tokens import Coded, code_completion
from mergetool.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Batch:
    """Rows as one rectangle, padded at the right.

    Attributes:
        ids: [rows, length], int64.
        mask: [rows, length], int64; 0 at padding.
        scored: [rows, length - 1], bool: whether the token after this place is one of the answer's.
        tokens: scored tokens of this micro step, those of the other ranks included.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    scored: torch.Tensor
    tokens: int

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(self.ids.to(device), self.mask.to(device), self.scored.to(device), self.tokens)

    @property
    def targets(self) -> torch.Tensor:
        """The scored tokens, in the order in which `scored` has them; int64."""
        return self.ids[:, 1:][self.scored]


def batch_of(rows: Sequence[Coded], tokens: int | None = None) -> Batch:
    """Rows as one padded rectangle; `tokens` is what the batch says of itself where other ranks have a part of it."""
    import torch

    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, scored = torch.zeros_like(ids), torch.zeros(len(rows), longest - 1, dtype=torch.bool)
    for at, row in enumerate(rows):
        size = len(row.ids)
        ids[at, :size] = torch.tensor(row.ids)
        mask[at, :size] = 1
        scored[at, max(row.start, 1) - 1 : size - 1] = True
    return Batch(ids, mask, scored, int(scored.sum()) if tokens is None else tokens)


def logits(model: Any, batch: Batch) -> torch.Tensor:
    """At each scored token, what the model makes of the place before it: [tokens, vocabulary], fp32."""
    return model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits[:, :-1][batch.scored].float()


def nll(model: Any, batch: Batch, reference: Any = None) -> torch.Tensor:
    """-log pi of the answers' tokens.

    Source: [AMA] Lin et al. 2023, arXiv 2309.06256, "experience replay"; Ouyang et al. 2022, arXiv 2203.02155, PPO-ptx.
    """
    import torch

    return torch.nn.functional.cross_entropy(logits(model, batch), batch.targets, reduction="sum")


def code_answers(rows: Sequence[dict[str, Any]], tokenizer: Any, max_length: int, where: str, model: str) -> list[Coded | None]:
    """Prompt and answer through the chat template, as rows of SFT are; of running text every token is an answer's.

    Args:
        rows: each with a prompt (empty for running text) and a completion.
        tokenizer: of the model.
        max_length: tokens of prompt and answer; what is longer is cut at the end.
        where, model: what messages call the rows and the model.

    Returns:
        The rows in their order; None for one that has no token of an answer within `max_length`.

    Raises:
        DataError: the rows are conversations and there is no chat template, or no row has an answer within `max_length`.
        CheckpointError: the chat template refuses a row.
    """
    if any(isinstance(row["prompt"], list) for row in rows) and not tokenizer.chat_template:
        raise DataError(
            f"{where}: the rows are conversations, and the tokenizer has no chat template",
            f"give the rows as text, or add chat_template.jinja beside {model}",
        )
    try:
        coded = [code_completion(tokenizer, row, max_length) for row in rows]
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{where}: {model}'s tokenizer refuses a row ({error})", "look at its chat template") from None
    if all(row is None for row in coded):
        raise DataError(f"{where}: no row has a token of an answer within {max_length} tokens", f"raise {where}.max_length")
    return coded
