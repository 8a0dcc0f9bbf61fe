"""Theorem: our log-probabilities are TRL's, so our implicit reward is the one that DPO training optimises."""

import pytest
import torch

from mergetool.data.tokens import Coded, code_completion
from mergetool.evaluate import Task, measure, prepare, refer, reference_scores
from mergetool.evaluate.logprobs import batches, completion_log_probs
from tests.evaluate import tiny

PLAIN = [
    {"prompt": "How are you?", "chosen": " Fine, thank you.", "rejected": " Go away"},
    {"prompt": "Name a colour:", "chosen": " red<eos>", "rejected": " the sky is a colour that is long"},
    {"prompt": "a" * 30, "chosen": "b" * 40, "rejected": "c"},
]


CHAT = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in PLAIN
]


def trl_rewards(rows, policy, reference, max_length, folder):
    """What TRL's DPOTrainer itself computes for these rows: (chosen, rejected) log-ratios times beta, per row."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        output_dir=str(folder),
        beta=0.3,
        max_length=max_length,
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_eval_batch_size=1,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=config,
        processing_class=tiny.tokenizer(),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )
    found = []
    for row in trainer.eval_dataset:
        trainer._metrics["eval"].clear()
        trainer.compute_loss(trainer.model.eval(), trainer.data_collator([row]))
        metrics = trainer._metrics["eval"]
        found.append((metrics["rewards/chosen"][0], metrics["rewards/rejected"][0]))
    return found


@pytest.mark.slow  # importing trl is most of it
@pytest.mark.parametrize("rows", [PLAIN, CHAT], ids=["plain text", "conversations"])
@pytest.mark.parametrize("max_length", [512, 50])
def test_implicit_rewards_are_those_of_trl(rows, max_length, tmp_path):
    policy, reference = tiny.llama(1), tiny.llama(2)
    expected = trl_rewards(rows, policy, reference, max_length, tmp_path)
    prepared = prepare(Task("pairs", ("reward_margin",), rows, beta=0.3, max_length=max_length), tiny.tokenizer())
    ours = [
        0.3 * (a - b) for a, b in zip(reference_scores(policy, prepared), reference_scores(reference, prepared), strict=True)
    ]
    for side in (0, 1):
        torch.testing.assert_close(ours[side].float(), torch.tensor([row[side] for row in expected]), atol=2e-4, rtol=1e-4)
    found = measure(policy, prepared, tiny.tokenizer(), refer(reference, prepared, tiny.tokenizer()))
    assert found["reward_margin"]["value"] == pytest.approx(sum(a - b for a, b in expected) / len(expected), abs=1e-4)


def test_a_batch_gives_what_each_sequence_gives_alone():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    coded = [code_completion(tokenizer, {"prompt": "p" * n, "completion": "word " * (n + 1)}, 256) for n in range(9)]
    together = completion_log_probs(model, coded, 0)
    for at, one in enumerate(coded):
        ids = torch.tensor([one.ids])
        scores = model(input_ids=ids).logits[0].log_softmax(-1)
        start = max(one.start, 1)
        alone = sum(scores[place - 1, one.ids[place]] for place in range(start, len(one.ids)))
        assert together[at].item() == pytest.approx(alone.item(), abs=1e-3)


def test_logits_are_made_for_completion_tokens_alone():
    model = tiny.llama()
    seen = []
    hook = model.lm_head.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
    completion_log_probs(model, [Coded((5, 6, 7, 8, 9, 10), 4), Coded((5, 6, 7), 2)], 0)
    hook.remove()
    assert seen == [(1, 3, 258)]


def test_no_batch_needs_more_logits_than_the_limit(monkeypatch):
    monkeypatch.setattr("mergetool.evaluate.logprobs.LOGIT_BYTES", 4 * 1000 * 20)
    sequences = [Coded(tuple(range(9)), 2) for _ in range(11)]
    found = list(batches(sequences, vocabulary=1000))
    assert sorted(at for batch in found for at in batch) == list(range(11))
    assert all(sum(sequences[at].length for at in batch) <= 20 for batch in found)
