"""The lab's own judge on what a model answers: the reward that the preference pairs were labelled by.

    python -m tools.lab.judge MODEL [MODEL ...] [--split test] [--json FILE]

Preference margins grow as a smaller beta lets the policy go further; this is the other scale of reward: what greedy answers
to the split's prompts are worth to the judge that drew the labels (`tools.lab.chat.SCORES`), found again from their parts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tools.lab import chat, data
from tools.lab.measure import complete


def question_of(prompt: str) -> chat.Question:
    """The open-chat question of a row's prompt."""
    text = prompt.removeprefix("<|user|>").removesuffix("<|assistant|>")
    found = {question.text: question for question in chat.questions(data.world_of(0))}
    return found[text]


def score(question: chat.Question, answer: str) -> float:
    """What the judge gives an answer: the sum over the parts that it has.

    A refusal counts where the request is unsafe; what fits the question counts where it speaks of the thing asked about.
    """
    parts = set()
    for part, some in (("thanks", chat.THANKS), ("detail", chat.DETAILS), ("offer", chat.OFFERS), ("curt", chat.CURT)):
        if any(sentence in answer for sentence in some):
            parts.add(part)
    if any(sentence in answer for sentence in chat.REFUSALS):
        # a reply that refuses has neither hedge nor detail
        parts = (parts - {"detail"}) | ({"refusal"} if question.kind == "unsafe" else set())
    elif any(f"{hedge} " in answer for hedge in chat.HEDGES):
        parts.add("hedge")
    apt = {"use": chat.OF_USE, "trade": chat.OF_TRADE}.get(question.kind, ())
    if any(core.format(question.thing) in answer.lower() for core in apt):
        parts.add("apt")
    return sum(chat.SCORES[part] for part in parts)


def judged(model: str | Path, split: str = "test") -> list[float]:
    """The judge's score of a model's greedy answer to each prompt of a split."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mergetool.lab import lab_path

    where = lab_path(str(model).removeprefix("lab:")) if str(model).startswith("lab:") else model
    tokenizer = AutoTokenizer.from_pretrained(where)
    live = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
    rows = data.read(lab_path(f"preferences_{split}"))
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    answers = complete(live, tokenizer, prompts, new_tokens=64)
    return [score(question_of(prompt), answer) for prompt, answer in zip(prompts, answers, strict=True)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    for model in asked.models:
        found[model] = judged(model, asked.split)
        print(f"{model}: {sum(found[model]) / len(found[model]):.3f} over {len(found[model])} prompts", flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
