"""Best of n: the answers that are kept are those that the reward likes best."""

from __future__ import annotations

import pytest

from mergetool.ama import ama_recipe, run_ama
from tests.ama.small import mapping
from tests.evaluate import tiny


def test_best_of_n_learns_from_the_answers_that_a_reward_likes_best(pair, tmp_path) -> None:
    from mergetool.ama.samples import best_answers
    from mergetool.evaluate.run import load_model, load_tokenizer

    (tmp_path / "brief.py").write_text(
        "def brief(prompts, completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    data = {"train": str(pair / "pairs.jsonl"), "limit": 4, "best_of": 4, "max_new_tokens": 6}
    whole = mapping(sft_model=str(pair / "sft"), rlhf_model=str(pair / "rlhf"), data=data, reward="brief.py:brief")
    recipe = ama_recipe(whole, tmp_path)
    model, tokenizer = load_model(pair / "rlhf", "cpu"), load_tokenizer(pair / "rlhf")
    notes: list[str] = []
    rows = [{"prompt": f"q{at}"} for at in range(4)]
    kept = best_answers(recipe, model, tokenizer, rows, notes.append)
    assert [row["prompt"] for row in kept] == [row["prompt"] for row in rows]
    best, every = (float(notes[0].split(mark)[1].split(",")[0]) for mark in ("mean reward ", "of all answers "))
    assert best > every
    assert best == sum(-len(row["completion"]) for row in kept) / 4
    assert kept == best_answers(recipe, model, tokenizer, rows, notes.append)  # seeded
    assert run_ama(recipe, device="cpu")[0].learned.nll > 0


def test_best_of_n_with_a_reward_model_keeps_the_answer_that_it_scores_highest(pair, tmp_path) -> None:
    from mergetool.ama.samples import best_answers
    from mergetool.evaluate.reward_model import RewardModel
    from mergetool.evaluate.run import load_model, load_tokenizer

    judge = tiny.reward_model(tmp_path / "judge")
    data = {"train": str(pair / "pairs.jsonl"), "limit": 3, "best_of": 4, "max_new_tokens": 5}
    whole = mapping(sft_model=str(pair / "sft"), rlhf_model=str(pair / "rlhf"), data=data, reward=str(judge))
    recipe = ama_recipe(whole, tmp_path)
    model, tokenizer = load_model(pair / "rlhf", "cpu"), load_tokenizer(pair / "rlhf")
    notes: list[str] = []
    rows = [{"prompt": f"q{at}"} for at in range(3)]
    kept = best_answers(recipe, model, tokenizer, rows, notes.append)
    scores = RewardModel(judge, "cpu").scores([row["prompt"] for row in kept], [row["completion"] for row in kept])
    best, every = (float(notes[0].split(mark)[1].split(",")[0]) for mark in ("mean reward ", "of all answers "))
    assert sum(scores) / 3 == pytest.approx(best, rel=1e-3)
    assert best > every
