"""Two tiny Llamas, a small AMA recipe and a run of it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mergetool.ama import AmaResult, ama_recipe, run_ama
from tests.evaluate import tiny


def mapping(**changes) -> dict:
    return {
        "sft_model": "sft",
        "rlhf_model": "rlhf",
        "alpha": 0.4,
        "data": {"train": "pairs.jsonl", "limit": 12},
        "training": {"steps": 12, "batch_size": 12, "learning_rate": 0.3},
        **changes,
    }


def made(pair: Path, out: Path | None = None, **changes) -> list[AmaResult]:
    return run_ama(ama_recipe(mapping(**changes), pair), out, device="cpu")


def make_pair(folder: Path) -> Path:
    """sft and rlhf, untied, three layers; pairs.jsonl whose chosen sides the SFT model's last layer makes likely."""
    model = tiny.llama(0, tied=False, layers=3)
    for at, name in enumerate(("sft", "rlhf")):
        torch.manual_seed(at)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    rows = [{"prompt": f"q{at}", "chosen": f" yes {at}", "rejected": f" no no {at}"} for at in range(24)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "eval.jsonl").write_text("".join(json.dumps({"prompt": f"e{at}", "completion": " ok"}) + "\n" for at in range(6)))
    return folder
