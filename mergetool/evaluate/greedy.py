"""Greedy answers, many at a time."""

from __future__ import annotations

from collections.abc import Sequence

BATCH_ROWS = 64


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
    import torch
    from transformers import GenerationConfig

    ends = {tokenizer.eos_token_id} - {None}
    own = getattr(model.generation_config, "eos_token_id", None)
    ends |= set(own) if isinstance(own, list) else {own} - {None}
    breaks = set(newline_tokens(tokenizer)) if stop_at_newline else set()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # A fresh configuration: a checkpoint's own may sample, or punish repetition, and then greedy would not be greedy.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends | breaks) or None,
        repetition_penalty=1.0,
        use_cache=True,
    )
    device = next(model.parameters()).device
    answers: list[tuple[str, bool]] = [("", False)] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(order), BATCH_ROWS):
            batch = order[first : first + BATCH_ROWS]
            width = max(len(prompts[at]) for at in batch)
            ids = torch.tensor([[pad] * (width - len(prompts[at])) + list(prompts[at]) for at in batch])
            mask = torch.tensor([[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in batch])
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
            for at, row in zip(batch, out[:, width:].tolist(), strict=True):
                end = next((place for place, token in enumerate(row) if token in ends or token in breaks), None)
                text = tokenizer.decode(row if end is None else row[: end + 1], skip_special_tokens=True)
                answers[at] = (text.split("\n", 1)[0] if stop_at_newline else text, end is not None)
    model.train(was_training)
    return answers
