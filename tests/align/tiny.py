"""Makes a Llama of a few thousand weights with a tokenizer of words, so that a training step takes milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = "the cat dog sat ran on mat hill big small red blue is was it a good bad yes no please thank you sorry why how"
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)


def make_tokenizer(folder: Path) -> int:
    """Writes a word tokenizer with a chat template; returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<pad>", "<user>", "<assistant>"]
    extra = ["Human", "Assistant", ":", "#", *(str(digit) for digit in range(10))]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS.split(), *extra])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def make_model(folder: Path, seed: int, like: Path | None = None, step: float = 0.02, width: int = 16) -> None:
    """Writes a random Llama with its tokenizer; with `like`, that model's weights plus a small random delta."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = make_tokenizer(folder)
    torch.manual_seed(seed)
    if like is None:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=size,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                max_position_embeddings=64,
                bos_token_id=1,
                eos_token_id=2,
                tie_word_embeddings=True,
            )
        )
    else:
        model = LlamaForCausalLM.from_pretrained(like)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=step)
    model.save_pretrained(folder)


def make_triple(folder: Path) -> None:
    """Writes base/ and sft/."""
    make_model(folder / "base", seed=1)
    make_model(folder / "sft", seed=2, like=folder / "base")


def make_pairs(path: Path, count: int, start: int = 0) -> None:
    """Writes polite against curt answers."""
    things = ["cat", "dog", "hill", "mat"]
    with path.open("w") as file:
        for index in range(start, start + count):
            thing = things[index % 4]
            file.write(
                json.dumps(
                    {
                        "prompt": f"how is the {thing} {index} ",
                        "chosen": f"thank you it is {'red' if index % 3 else 'blue'} please",
                        "rejected": f"no bad {thing}" + " why" * (index % 2),
                    }
                )
                + "\n"
            )


def make_stay(path: Path, count: int = 10) -> None:
    """Writes answers of different lengths that should stay."""
    rows = [{"prompt": f"is the cat {i} ", "completion": "yes it is red" + " please" * (i % 3)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def plain_nll(model: Any, row: Any) -> Any:
    """-log pi of a row's answer, a token at a time."""
    import torch

    logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    return -sum(logits[at - 1].log_softmax(-1)[row.ids[at]] for at in range(max(row.start, 1), len(row.ids)))


def recipe_text(folder: Path, **parts: object) -> dict:
    """The values of a recipe of a few steps on the tiny triple; `parts` replaces whole top-level keys."""
    recipe = {
        "base_model": str(folder / "base"),
        "sft_model": str(folder / "sft"),
        "data": {"train": str(folder / "train.jsonl"), "max_length": 48},
        "training": {
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "use_cpu": True,
        },
    }
    return {**recipe, **parts}


REWARD = """
def polite(*, prompts, completions, **columns):
    return [float(text.count("please") + text.count("thank")) for text in completions]

def short(*, prompts, completions, **columns):
    return completions[:1]

def broken(*, prompts, completions, **columns):
    return [columns["no such column"]]

LIMIT = 3
"""


def sampling_recipe(folder: Path, algorithm: str, **parts: Any) -> Any:
    """A short run that rewards polite words."""
    from mergetool.align import align_recipe

    training = {"num_generations": 4, "max_completion_length": 8, "save_steps": 2, **parts.pop("training", {})}
    values = recipe_text(folder, algorithm=algorithm, **{"reward": "rewards.py:polite", **parts})
    values["data"] = {"train": str(folder / "train.jsonl")}
    values["training"] |= training
    return align_recipe(values, folder)


def recipe_of(folder: Path, algorithm: str, **parts: Any) -> dict:
    """The values of a short run of any algorithm on the `taught` fixture's folder; `training` adds to what there is."""
    from mergetool.align.algorithms import ALGORITHMS

    row, training = ALGORITHMS[algorithm], parts.pop("training", {})
    values = recipe_text(folder, algorithm=algorithm)
    if row.sampling is not None:
        values["data"].pop("max_length")
        values["training"][row.sampling.length] = 8
        if hasattr(row.config_class(), "num_generations"):
            values["training"]["num_generations"] = 4
    values |= ({"reward": "rewards.py:polite"} if row.rewarded else {}) | ({"policy": "rlhf"} if row.taught else {})
    values["training"] |= training
    return values | parts
