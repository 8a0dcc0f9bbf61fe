"""What a model writes after prompts, many at a time: greedy answers, and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergetool.data.tokens import Coded

if TYPE_CHECKING:
    from transformers import GenerationConfig

BATCH_ROWS = 64
SEED = 0


def newline_tokens(tokenizer) -> list[int]:
    """Ids of the tokens whose text has a line break in it."""
    texts = tokenizer.batch_decode([[at] for at in range(len(tokenizer))])
    return [at for at, text in enumerate(texts) if "\n" in text]


def greedy(
    model, tokenizer, prompts: Sequence[list[int]], max_new_tokens: int, stop_at_newline: bool
) -> list[tuple[str, bool]]:
    """The most likely continuation of each prompt, token by token.

    Args:
        prompts: token ids, none empty.
        max_new_tokens: tokens after which an answer is cut.
        stop_at_newline: end an answer at the first line break as well as at the end-of-sequence token.

    Returns:
        (text, finished) per prompt; finished is False where the limit cut it.
    """
    ends = ends_of(model, tokenizer) | (set(newline_tokens(tokenizer)) if stop_at_newline else set())
    answers: list[tuple[str, bool]] = [("", False)] * len(prompts)
    for at, row in _continued(model, tokenizer, prompts, ends, max_new_tokens=max_new_tokens, do_sample=False):
        end = _first_of(row, ends)
        text = tokenizer.decode(row if end is None else row[: end + 1], skip_special_tokens=True)
        answers[at] = (text.split("\n", 1)[0] if stop_at_newline else text, end is not None)
    return answers


def sampled(model, tokenizer, prompts: Sequence[list[int]], max_new_tokens: int, count: int) -> list[list[Coded]]:
    """Samples from the model's own distribution: temperature 1, nothing cut off it.

    One seed for all models, so that two models that write alike write the same. PyTorch's global generator is left as it was.

    Args:
        prompts: token ids, none empty.
        max_new_tokens: tokens after which a sample is cut.
        count: samples for each prompt.

    Returns:
        For each prompt `count` sequences of prompt and sample, the end-of-sequence token included.
    """
    import torch

    ends = ends_of(model, tokenizer)
    found: list[list[Coded]] = [[] for _ in prompts]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        settings = {"max_new_tokens": max_new_tokens, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        for _ in range(count):
            for at, row in _continued(model, tokenizer, prompts, ends, **settings):
                end = _first_of(row, ends)
                kept = row if end is None else row[: end + 1]
                found[at].append(Coded((*prompts[at], *kept), len(prompts[at])))
    return found


def ends_of(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer: the tokenizer's, and those of the checkpoint's generation settings."""
    own = getattr(model.generation_config, "eos_token_id", None)
    return {end for end in (tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])) if end is not None}


def _first_of(row: Sequence[int], ends: set[int]) -> int | None:
    return next((place for place, token in enumerate(row) if token in ends), None)


def _continued(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], ends: set[int], **settings: Any
) -> list[tuple[int, list[int]]]:
    """(index of a prompt, the tokens after it), prompts of like length together."""
    import torch
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # A fresh configuration: a checkpoint's own may sample, or punish repetition, and then greedy would not be greedy.
    config: GenerationConfig = GenerationConfig(
        num_beams=1, pad_token_id=pad, eos_token_id=sorted(ends) or None, repetition_penalty=1.0, use_cache=True, **settings
    )
    device = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    found: list[tuple[int, list[int]]] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(order), BATCH_ROWS):
            batch = order[first : first + BATCH_ROWS]
            width = max(len(prompts[at]) for at in batch)
            ids = torch.tensor([[pad] * (width - len(prompts[at])) + list(prompts[at]) for at in batch])
            mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in batch])
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
            found += zip(batch, out[:, width:].tolist(), strict=True)
    model.train(was_training)
    return found
