"""Best-of-n: several answers of the RLHF model to each prompt, and the one that the reward likes best.

Source: [AMA] Section 5, where the answers of high reward are best-of-n samples of the RLHF policy, as in RAFT.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mergetool.ama.recipe import AmaRecipe
from mergetool.data.messages import answered, carried
from mergetool.errors import DataError

BATCH_ROWS = 64


def best_answers(
    recipe: AmaRecipe, model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], note: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Samples `data.best_of` answers to each prompt and keeps the best one, the first of equals.

    Args:
        recipe: data.best_of, max_new_tokens, temperature; training.seed; reward.
        model: the RLHF model, live.
        rows: with `prompt`; what else they hold goes to a reward function.
        note: told the mean reward of all answers and of the kept ones.

    Returns:
        Rows of prompt and completion; a prompt none of whose answers could be scored is left out.

    Raises:
        DataError: no answer could be scored.
        RecipeError, CheckpointError: the reward cannot be used.
    """
    import torch

    data = recipe.data
    assert data.best_of is not None
    repeated = [row for row in rows for _ in range(data.best_of)]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.training.seed)
        answers = _sample(model, tokenizer, repeated, data.max_new_tokens, data.temperature)
    rewards = _rewards(recipe, model, repeated, answers)
    kept, best = [], []
    for at, row in enumerate(rows):
        group = range(at * data.best_of, (at + 1) * data.best_of)
        scored = [(reward, one) for one in group if (reward := rewards[one]) is not None and answers[one].strip()]
        if scored:
            reward, first = max(scored, key=lambda pair: pair[0])
            best.append(reward)
            kept.append(_row(row, answers[first]))
    if not kept:
        raise DataError(
            "none of the sampled answers could be scored", "look at what the reward returns, or raise max_new_tokens"
        )
    known = [value for value in rewards if value is not None]
    note(
        f"best of {data.best_of}: {len(kept)} prompts, mean reward {sum(best) / len(best):.4g}, "
        f"of all answers {sum(known) / len(known):.4g}"
    )
    return kept


def _row(row: dict[str, Any], answer: str) -> dict[str, Any]:
    return {
        "prompt": row["prompt"],
        "completion": answer if isinstance(row["prompt"], str) else answered(answer),
        **carried(row),
    }


def _sample(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], max_new_tokens: int, temperature: float) -> list[str]:
    """One sampled answer to the prompt of each row."""
    import torch
    from transformers import GenerationConfig

    from mergetool.data.tokens import code_prompt
    from mergetool.evaluate.generation import ends_of

    coded = [code_prompt(tokenizer, row) for row in rows]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # the model's own distribution: a checkpoint's top_k or repetition penalty would make it another policy
    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends_of(model, tokenizer)) or None,
    )
    device = next(model.parameters()).device
    found = []
    with torch.no_grad():
        for first in range(0, len(coded), BATCH_ROWS):
            batch = coded[first : first + BATCH_ROWS]
            width = max(map(len, batch))
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch]).to(device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch]).to(device)
            out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            found += tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
    return found


def _rewards(recipe: AmaRecipe, model: Any, rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> list[float | None]:
    """One number for each answer; None where the reward gives none."""
    from mergetool.align.reward import load_reward

    assert recipe.reward is not None
    reward = load_reward(recipe.reward, recipe.directory)
    prompts = [row["prompt"] for row in rows]
    if isinstance(reward, str):
        from mergetool.evaluate.reward_model import RewardModel

        device = next(model.parameters()).device.type
        return list(RewardModel(reward, device).scores(prompts, answers))
    # a function gets what TRL's trainers give it: conversations as lists of messages, and the rows' other columns
    completions = [_row(row, answer)["completion"] for row, answer in zip(rows, answers, strict=True)]
    columns = {key: [row.get(key) for row in rows] for key in rows[0] if key not in ("prompt", "completion")}
    return reward(prompts=prompts, completions=completions, **columns)
