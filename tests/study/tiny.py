"""A triple of tiny Llamas, its data, and study recipes over them."""

from __future__ import annotations

import json
from pathlib import Path

from mergetool.study.recipe.study_recipe import StudyRecipe, make_study
from tests.evaluate import tiny

PAIRS = [{"prompt": f"q{at}", "chosen": f" yes {at}", "rejected": f" no no {at}"} for at in range(24)]
SKILLS = [{"prompt": f"say {at}", "completion": str(at), "skill": "odd" if at % 2 else "even"} for at in range(24)]


def triple(folder: Path) -> Path:
    """base, sft and rlhf, each a random step from the one before, and the data files of both splits."""
    import torch

    model = tiny.llama(0)
    for at, name in enumerate(("base", "sft", "rlhf")):
        torch.manual_seed(at)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * (0.02 if at else 0.0))
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    for kind, rows in (("pairs", PAIRS), ("skills", SKILLS)):
        for split, some in (("validation", rows[:12]), ("test", rows[12:])):
            write(folder / f"{kind}_{split}.jsonl", some)
    return folder


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def mapping(**changes) -> dict:
    """A study over `triple`; relative paths."""
    return {
        "models": {"base": "base", "sft": "sft", "rlhf": "rlhf"},
        "candidates": [
            {"name": "linear", "merge": {"merge_method": "linear", "weight": [0.25, 0.75]}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": 0.5, "density": [0.3, 0.7]}},
        ],
        "reward": {
            "name": "pairs",
            "metrics": ["preference_accuracy", "reward_margin"],
            "data": {"validation": "pairs_validation.jsonl", "test": "pairs_test.jsonl"},
        },
        "tax": {
            "name": "skills",
            "metrics": ["nll"],
            "data": {"validation": "skills_validation.jsonl", "test": "skills_test.jsonl"},
        },
        **changes,
    }


def study(folder: Path, **changes) -> StudyRecipe:
    return make_study(mapping(**changes), "study.yaml", folder)
