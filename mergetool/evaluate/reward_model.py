"""Scores of a reward model: any sequence-classification checkpoint with one label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mergetool.errors import CheckpointError, DataError
from mergetool.hub.loading import load_tokenizer, loaded

BATCH_TOKENS = 8192
HINT = "give a sequence-classification checkpoint with one label"


class RewardModel:
    """A reward model in memory.

    A text is put to it as TRL's trainers put it: prompt and answer through the reward model's own chat template where it
    has one (a plain prompt as the user's turn), else joined as they are; no special tokens are added to what is joined.

    Args:
        source: a checkpoint directory or a Hub id.
        device, dtype: as `mergetool.hub.loading.load_model`.

    Raises:
        CheckpointError: it is no sequence-classification model with one label, or cannot be loaded.
    """

    def __init__(self, source: Path | str, device: str | None = None, dtype: str | None = None) -> None:
        from transformers import AutoModelForSequenceClassification

        from mergetool.checkpoint.classifier import must_classify
        from mergetool.hub.references import local_directory, open_layout

        must_classify(open_layout(source), "reward_model", HINT, labels=1)
        place = local_directory(source)
        self.source = source
        self.tokenizer = load_tokenizer(place)
        self.model = loaded(AutoModelForSequenceClassification, place, device, dtype, HINT)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # the head reads the last token that is not padding: both must mean the same token
        self.model.config.get_text_config().pad_token_id = self.tokenizer.pad_token_id

    def scores(self, prompts: Sequence[str | list], answers: Sequence[str]) -> list[float]:
        """One score per answer, in the reward model's own units; the higher, the better.

        Args:
            prompts: texts, or lists of messages.
            answers: what the measured model wrote.

        Raises:
            DataError: a prompt is a list of messages and the reward model has no chat template.
        """
        import torch

        coded = [self._ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        device = next(self.model.parameters()).device
        found = [0.0] * len(coded)
        with torch.inference_mode():
            for batch in _batches([len(ids) for ids in coded]):
                width = max(len(coded[at]) for at in batch)
                ids = torch.full((len(batch), width), self.tokenizer.pad_token_id)
                mask = torch.zeros((len(batch), width), dtype=torch.long)
                for row, at in enumerate(batch):
                    ids[row, : len(coded[at])] = torch.tensor(coded[at])
                    mask[row, : len(coded[at])] = 1
                scores = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].float().tolist()
                for at, score in zip(batch, scores, strict=True):
                    found[at] = score
        if bad := sum(score != score for score in found):
            raise CheckpointError(
                f"reward_model: {self.source} gives NaN to {bad} of {len(found)} answers", "try dtype float32"
            )
        return found

    def _ids(self, prompt: str | list, answer: str) -> list[int]:
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            text = self.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": answer}], tokenize=False)
        elif isinstance(prompt, str):
            text = prompt + answer
        else:
            raise DataError(
                f"the prompts are conversations, and the reward model {self.source} has no chat template",
                "give prompts as text, or another reward model",
            )
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) or [self.tokenizer.eos_token_id]
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return ids[-most:] if most else ids  # what is too long keeps its end: the answer


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Indices in groups of like length, each of at most BATCH_TOKENS padded tokens."""
    found: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= BATCH_TOKENS:
            found[-1].append(at)
        else:
            found.append([at])
    return found
