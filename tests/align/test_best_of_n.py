"""RAFT learns from the best answer of each group, and from nothing else."""

from __future__ import annotations

import json

from mergetool.align.best_of_n import best_of_group


def test_rafts_gradient_is_that_of_the_best_answers_likelihood(prompts, tmp_path) -> None:
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mergetool.align.best_of_n import best_of_n

    model = AutoModelForCausalLM.from_pretrained(prompts / "sft")
    tokenizer = AutoTokenizer.from_pretrained(prompts / "sft")
    rows = [json.loads(line) for line in (prompts / "train.jsonl").read_text().splitlines()][:4]
    config = trl.GRPOConfig(
        output_dir=str(tmp_path), loss_type="grpo", num_generations=4, per_device_train_batch_size=16, use_cpu=True,
        max_completion_length=8, report_to="none", bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    worth = lambda completions, **columns: [float(len(text)) for text in completions]  # noqa: E731
    trainer = best_of_n(trl.GRPOTrainer)(
        model=model, reward_funcs=worth, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(4)])
    best = batch["advantages"] > 0
    assert best.sum() == len(rows)
    trainer.compute_loss(model, batch).backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)[best]
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)[best]
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1] / config.temperature
    likelihood = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0][:, batch["prompt_ids"].shape[1] - 1 :]
    answers = batch["completion_mask"][best]
    (-(likelihood * answers).sum(1) / answers.sum(1)).mean().backward()
    for name, p in model.named_parameters():
        assert torch.allclose(ours[name], p.grad, atol=1e-6), name


def test_the_best_of_a_group_is_the_first_of_equals_and_none_where_none_is_scored() -> None:
    import torch

    nan = float("nan")
    rewards = torch.tensor([1.0, 3.0, 3.0, nan, nan, nan, -2.0, nan, -1.0])
    assert best_of_group(rewards, 3).tolist() == [0, 3, 0, 0, 0, 0, 0, 0, 3]
