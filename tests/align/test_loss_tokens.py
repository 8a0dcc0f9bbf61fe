"""For every form of row, `align` trains on the very tokens that TRL's own trainer trains on.

The oracle is TRL: its trainer on the file's rows as they are, its own collator, the labels of the batch. `table()` prints both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mergetool.align import align_recipe
from mergetool.align.inputs import load_policy, load_rows
from mergetool.align.preview import preview
from mergetool.align.trainer import make_trainer
from mergetool.align.training import training_config
from mergetool.align.watch import Stop
from tests.align.tiny import make_model

TEMPLATE = (
    "{% if tools %}# {% for t in tools %}{{ t['function']['name'] }} {% endfor %}{% endif %}{% if why %}why {% endif %}"
    "{% for m in messages %}<{{ m['role'] }}> {% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] or '' }}"
    "{% for c in m['tool_calls'] or [] %} run {{ c['function']['name'] }}{% endfor %} </s>{% endgeneration %}"
    "{% else %}{{ m['content'] }} {% endif %}{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)
ASK, ANSWER = {"role": "user", "content": "how is the cat"}, {"role": "assistant", "content": "it is good thank you"}
AGAIN, NO = {"role": "user", "content": "and the dog"}, {"role": "assistant", "content": "no"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "hill"}}]}
TOOLS = [{"type": "function", "function": {"name": "hill", "parameters": {"type": "object", "properties": {}}}}]
FOUR = [ASK, ANSWER, AGAIN, NO]

# Name: algorithm, row, settings of TRL. `trl` stands for a row that TRL takes in another spelling.
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "text": ("sft", {"text": "how is the cat"}, {}),
    "text in another column": ("sft", {"body": "how is the cat"}, {"dataset_text_field": "body"}),
    "prompt and completion": ("sft", {"prompt": "how is the cat ", "completion": "it is good"}, {}),
    "prompt and completion, loss on both": (
        "sft", {"prompt": "how is the cat ", "completion": "it is good"}, {"completion_only_loss": False},
    ),
    "an empty prompt": ("sft", {"prompt": "", "completion": "it is good"}, {}),
    "prompt and completion as messages": ("sft", {"prompt": [ASK], "completion": [ANSWER]}, {}),
    "messages of one turn": ("sft", {"messages": FOUR[:2]}, {}),
    "messages of two turns": ("sft", {"messages": FOUR}, {}),
    "messages of two turns, answers alone": ("sft", {"messages": FOUR}, {"assistant_only_loss": True}),
    "a system message, answers alone": (
        "sft", {"messages": [{"role": "system", "content": "please"}, *FOUR]}, {"assistant_only_loss": True},
    ),
    "a user's last message, answers alone": ("sft", {"messages": FOUR[:3]}, {"assistant_only_loss": True}),
    "a completion of several turns": ("sft", {"prompt": [ASK], "completion": [ANSWER, AGAIN, NO]}, {}),
    "a completion of several turns, answers alone": (
        "sft", {"prompt": [ASK], "completion": [ANSWER, AGAIN, NO]}, {"assistant_only_loss": True},
    ),
    "conversations of from and value": (
        "sft", {"conversations": [{"from": one["role"], "value": one["content"]} for one in FOUR]}, {},
    ),
    "tools and a call without content": ("sft", {"messages": [ASK, CALL], "tools": TOOLS}, {}),
    "tools as JSON text": ("sft", {"messages": FOUR, "tools": json.dumps(TOOLS)}, {}),
    "settings of the template": ("sft", {"messages": FOUR, "chat_template_kwargs": {"why": True}}, {}),
    "token ids with labels": ("sft", {"input_ids": [7, 8, 9, 2], "labels": [-100, -100, 9, 2]}, {}),
    "token ids with a mask": (
        "sft", {"input_ids": [7, 8, 9, 2], "completion_mask": [0, 1, 1, 1]}, {"completion_only_loss": True},
    ),
    "cut at the end": ("sft", {"messages": FOUR}, {"max_length": 9}),
    "cut at the beginning": ("sft", {"messages": FOUR}, {"max_length": 9, "truncation_mode": "keep_end"}),
    "packed": ("sft", {"messages": FOUR}, {"max_length": 48, "packing": True}),
    "a pair of text": ("dpo", {"prompt": "how is the cat ", "chosen": "good", "rejected": "bad thank you"}, {}),
    "a pair of messages with tools": ("dpo", {"prompt": [ASK], "chosen": [CALL], "rejected": [NO], "tools": TOOLS}, {}),
    "a pair of whole conversations": ("dpo", {"chosen": [ASK, ANSWER], "rejected": [ASK, NO]}, {}),
    "a labelled answer": (
        "kto", {"prompt": [ASK], "completion": [ANSWER], "label": True, "chat_template_kwargs": {"why": True}}, {},
    ),
}  # fmt: skip


DOCS = Path(__file__).parents[2] / "docs/align.md"
DOCUMENTED = {
    name: int(ours)
    for name, _, _, ours in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| ") and line.count("|") == 5
    )
    if name in SHAPES
}
"""What docs/align.md says of the tokens in the loss."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("shapes")
    make_model(place / "sft", seed=1)
    (place / "sft" / "chat_template.jinja").write_text(TEMPLATE)
    return place


def rows_of(name: str) -> tuple[str, list[dict[str, Any]], dict[str, Any]]:
    algorithm, row, settings = SHAPES[name]
    return algorithm, [row] * 2, {"max_length": 40, **settings}


def by_trl(folder: Path, name: str) -> Any:
    """TRL's own trainer on the rows as they are."""
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    algorithm, rows, settings = rows_of(name)
    trainer = {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "kto": trl.KTOTrainer}[algorithm]
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "kto": trl.KTOConfig}[algorithm]
    plain = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False}
    return trainer(
        AutoModelForCausalLM.from_pretrained(folder / "sft", dtype="float32"),
        args=config(str(folder / "trl"), **plain, **settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder / "sft"),
    )


def by_us(folder: Path, name: str) -> Any:
    """The trainer that `align` makes of a recipe."""
    algorithm, rows, settings = rows_of(name)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {"sft_model": "sft", "algorithm": algorithm, "data": {"train": "rows.jsonl"}}
    recipe = align_recipe({**values, "training": {"use_cpu": True, **settings}}, folder)
    data, _ = load_rows(recipe, lambda event, facts: None, folder / "stored")
    model, tokenizer = load_policy(recipe, folder / "sft", data["train"])
    config = training_config(recipe, folder / "ours")
    return make_trainer(recipe, config, model, tokenizer, data, (None, folder / "sft"), Stop(), lambda event, facts: None)


def learnt(trainer: Any) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of a batch of all rows, and of each whether it is in the loss."""
    batch = trainer.data_collator([dict(row) for row in trainer.train_dataset])
    mask = batch["labels"] != -100 if "labels" in batch else batch["completion_mask"] != 0
    return batch["input_ids"].tolist(), mask.tolist()


def in_loss(trainer: Any) -> int:
    return sum(sum(row) for row in learnt(trainer)[1])


@pytest.mark.parametrize("name", SHAPES)
def test_the_tokens_in_the_loss_are_those_of_trls_own_trainer(folder: Path, name: str) -> None:
    ours = by_us(folder, name)
    assert learnt(ours) == learnt(by_trl(folder, name))
    assert in_loss(ours) > 0
    assert DOCUMENTED.get(name, in_loss(ours)) == in_loss(ours)
    told: dict[str, Any] = {}
    preview(ours, ours.processing_class, lambda event, facts: told.update(facts))
    if "input" in told:  # the first row is one of two alike, or both of them packed into one
        assert told["input"]["in_loss"] == sum(learnt(ours)[1][0])


def test_the_docs_tell_of_ten_forms() -> None:
    assert len(DOCUMENTED) == 10


def test_answers_of_both_turns_are_marked(folder: Path) -> None:
    told: dict[str, Any] = {}
    trainer = by_us(folder, "messages of two turns, answers alone")
    preview(trainer, trainer.processing_class, lambda event, facts: told.update(facts))
    assert told["input"]["marked"].count("⟦") == 2
    assert "⟦ no </s>⟧" in told["input"]["marked"].replace("⟦no", "⟦ no")


def table(folder: Path) -> str:
    """Markdown: tokens in the loss of two rows of each form, by TRL and by `align`."""
    lines = ["| rows | algorithm | TRL | align |", "|---|---|---:|---:|"]
    lines += [
        f"| {name} | {SHAPES[name][0]} | {in_loss(by_trl(folder, name))} | {in_loss(by_us(folder, name))} |" for name in SHAPES
    ]
    return "\n".join(lines)
