"""The tax of the lab: plain AdamW DPO from the stored SFT model, before and after, over data orders.

    python -m tools.lab.experiment [--root DIR] [--seeds 3] [--learning-rate LR] [--steps N]

Prints the table that README.md quotes, and the front of plain interpolation between SFT and each aligned model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mergetool.lab import ROOT
from tools.lab import data

# One pass over the training pairs, at the rate where reward is clearly up and skills clearly, not wholly, down.
SETTINGS = {
    "learning_rate": 1.2e-3,
    "max_steps": 50,
    "per_device_train_batch_size": 32,
    "beta": 0.1,
    "lr_scheduler_type": "linear",
    "warmup_steps": 10,
}
WEIGHTS = (0.25, 0.5, 0.75)


def load(root: Path, name: str):
    """A stored checkpoint, in fp32."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(root / "triple" / name, dtype=torch.float32)


def trainer(root: Path, folder: str, data_seed: int, **settings):
    """The TRL trainer of the demo's alignment. TRL's own defaults are for models a thousand times this size."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    config = DPOConfig(
        output_dir=folder,
        seed=0,
        data_seed=data_seed,
        max_length=128,
        bf16=False,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=64,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_steps=50,
        disable_tqdm=True,
        **(SETTINGS | settings),
    )
    return DPOTrainer(
        model=load(root, "sft"),
        args=config,
        processing_class=AutoTokenizer.from_pretrained(root / "triple" / "sft"),
        train_dataset=Dataset.from_list(data.read(root / "data" / "preferences_train.jsonl.gz")),
    )


def align(root: Path, data_seed: int = 0, **settings):
    """One DPO run; returns the model and the seconds it took, tokenising and reference passes included."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        run = trainer(root, folder, data_seed, **settings)
        run.train()
        return run.model, time.time() - began


def blend(first, second, weight: float):
    """(1 - weight) * first + weight * second."""
    import copy

    import torch

    found = copy.deepcopy(first)
    with torch.no_grad():
        for mine, other in zip(found.parameters(), second.parameters(), strict=True):
            mine.lerp_(other, weight)
    return found


def report(root: Path, seeds: int, split: str = "test", **settings) -> list[tuple[str, list[dict]]]:
    """Measures SFT, the aligned models and their interpolations: (name, one dict per seed) rows."""
    from transformers import AutoTokenizer

    from tools.lab import measure

    tokenizer = AutoTokenizer.from_pretrained(root / "triple" / "sft")
    skills, pairs = (data.read(root / "data" / f"{kind}_{split}.jsonl.gz") for kind in ("skills", "preferences"))
    sft = load(root, "sft")

    def measured(model) -> dict[str, float]:
        return measure.preferences(model, sft, tokenizer, pairs) | measure.skills(model, tokenizer, skills)

    rows: dict[str, list[dict]] = {"sft": [measured(sft)]}
    for seed in range(seeds):
        aligned, seconds = align(root, seed, **settings)
        for weight in WEIGHTS:
            rows.setdefault(f"linear {weight}", []).append(measured(blend(sft, aligned, weight)))
        rows.setdefault("rlhf", []).append(measured(aligned) | {"seconds": seconds})
        last = rows["rlhf"][-1]
        print(f"seed {seed}: " + " ".join(f"{name} {value:.3f}" for name, value in last.items()), file=sys.stderr)
    return list(rows.items())


def table(rows: list[tuple[str, list[dict]]]) -> str:
    """Markdown; mean and standard deviation over seeds."""
    names = list(rows[-1][1][0])
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for model, found in rows:
        cells = []
        for name in names:
            values = [one[name] for one in found if name in one]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", default="test")
    parser.add_argument("--learning-rate", type=float, default=SETTINGS["learning_rate"])
    parser.add_argument("--steps", type=int, default=SETTINGS["max_steps"])
    parser.add_argument("--schedule", default=SETTINGS["lr_scheduler_type"])
    parser.add_argument("--batch", type=int, default=SETTINGS["per_device_train_batch_size"])
    asked = parser.parse_args()
    rows = report(
        asked.root,
        asked.seeds,
        asked.split,
        learning_rate=asked.learning_rate,
        max_steps=asked.steps,
        per_device_train_batch_size=asked.batch,
        lr_scheduler_type=asked.schedule,
    )
    print(table(rows))


if __name__ == "__main__":
    main()
