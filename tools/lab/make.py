"""Makes the lab from a seed: data, tokenizer, base, SFT and (with TRL) the RLHF checkpoint.

    python -m tools.lab.make OUT_DIR [--seed 0]

OUT_DIR gets data/*.jsonl.gz and triple/{base,sft,rlhf}. Data are a function of the seed alone; weights also depend on
the torch build and the processor, so a second machine makes an equivalent triple, not the same bytes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

from tools.lab import data

BASE_STEPS, BASE_ROWS, BASE_RATE = 3000, 32, 3e-3
SFT_EPOCHS, SFT_ROWS, SFT_RATE = 10, 48, 1e-3


def make(out: Path, seed: int = 0, rlhf: bool = True) -> None:
    """Writes everything below `out` and prints what it measured."""
    from transformers.utils import logging

    from tools.lab import measure, train

    logging.disable_progress_bar()
    began = time.time()

    def say(text: str) -> None:
        print(f"[{time.time() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    files = data.make_rows(seed)
    (out / "data").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        data.write(rows, out / "data" / f"{name}.jsonl.gz")

    world = data.world_of(seed)
    corpus = list(itertools.islice(data.base_documents(world, "tokenizer"), 20000))
    # the files repeated, so that their words are whole tokens too: short sequences are a fast demo
    corpus += 3 * [
        text
        for name in ("sft_train", "preferences_train")
        for row in files[name]
        for key, text in row.items()
        if key != "skill"
    ]
    tokenizer = train.make_tokenizer(corpus)
    model = train.make_model(seed, len(tokenizer))
    say(f"{len(tokenizer)} tokens, {sum(p.numel() for p in model.parameters()):,} parameters")

    train.fit(model, train.packed(data.base_documents(world), tokenizer, BASE_ROWS), BASE_STEPS, BASE_RATE, say, "base")
    model = train.save(model, tokenizer, out / "triple" / "base")
    say(f"base {_pretty(measure.skills(model, tokenizer, files['skills_test']))}")

    steps = SFT_EPOCHS * len(files["sft_train"]) // SFT_ROWS
    train.fit(model, train.completions(files["sft_train"], tokenizer, SFT_ROWS, seed), steps, SFT_RATE, say, "sft")
    model = train.save(model, tokenizer, out / "triple" / "sft")
    say(f"sft {_pretty(measure.skills(model, tokenizer, files['skills_test']))}")
    if rlhf:
        from tools.lab import experiment

        aligned, seconds = experiment.align(out, data_seed=seed)
        train.save(aligned, tokenizer, out / "triple" / "rlhf")
        say(f"rlhf {_pretty(measure.skills(aligned, tokenizer, files['skills_test']))} DPO took {seconds:.1f} s")
        say(f"rlhf {_pretty(measure.preferences(aligned, model, tokenizer, files['preferences_test']))}")


def _pretty(metrics: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-rlhf", action="store_true", help="stop after SFT")
    asked = parser.parse_args()
    make(asked.out, asked.seed, not asked.no_rlhf)


if __name__ == "__main__":
    main()
