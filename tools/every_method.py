"""A triple through every method of the table: each merge is made, loaded in transformers, and measured on a few rows.

    python -m tools.every_method BASE SFT RLHF ROWS.jsonl.gz SKILLS.jsonl.gz PAIRS.jsonl.gz [METHOD ...]

Prints a line for each method: nats per token of the answers of the first rows, which must be finite. Outputs are made in a
temporary directory, one at a time. Methods that read calibrations get 32 rows of PAIRS; where each model has its own, the SFT
model gets 32 of SKILLS.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

ROWS = 3
PAIRS = {"slerp": {"t": 0.5}, "nearswap": {"t": 0.001}}


def recipe(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Half of each model's change, or what the method takes in its place."""
    from mergetool.methods import METHODS

    method = METHODS[name]
    known = {option.name for option in method.options}
    models: list[dict[str, Any]] = [{"model": model} for model in (args.sft, args.rlhf)]
    if method.consensus.models == (1, 1):  # layers of both, one over the other; of SmolLM2's 30
        sources = [m | {"layer_range": layers} for m, layers in zip(models, ([0, 16], [14, 30]), strict=True)]
        return {"merge_method": name, "slices": [{"sources": [source]} for source in sources]}
    if method.consensus.pair:
        return {"merge_method": name, "base_model": args.sft, "models": models, "parameters": PAIRS.get(name, {})}
    if method.consensus.calibrated:
        data = (args.skills, args.pairs)
        own = [m | {"calibration": {"data": rows, "limit": 32}} for m, rows in zip(models, data, strict=True)]
        return {"merge_method": name, "models": own}
    found = {"merge_method": name, "base_model": args.base, "models": models}
    if "weight" in known:
        found["models"] = [m | {"parameters": {"weight": 0.5}} for m in models]
    if "density" in known:
        found["parameters"] = {"density": 0.5}
    return found | ({"calibration": {"data": args.pairs, "limit": 32}} if method.projects else {})


def nll(model: str | Path, rows: list[dict[str, str]]) -> float:
    """Nats per token of the answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total, count = 0.0, 0
    for row in rows:
        question, answer = (tokenizer(t, return_tensors="pt").input_ids for t in (row["question"] + "\n", row["answer"]))
        ids = torch.cat([question, answer], dim=1)
        with torch.no_grad():
            likely = network(ids).logits[0, :-1].log_softmax(-1)
        total -= float(likely.gather(1, ids[0, 1:, None])[question.shape[1] - 1 :].sum())
        count += answer.shape[1]
    return total / count


def main() -> None:
    """The table."""
    from mergetool.merge import merge
    from mergetool.methods import METHODS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("base", "sft", "rlhf", "rows", "skills", "pairs"):
        parser.add_argument(name)
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    args = parser.parse_args()
    with gzip.open(args.rows, "rt") as file:
        rows = [json.loads(line) for _, line in zip(range(ROWS), file, strict=False)]
    for name in ("base", "sft", "rlhf"):
        print(f"| {name} | {nll(getattr(args, name), rows):.4f} |", flush=True)
    for name in args.methods:
        with tempfile.TemporaryDirectory(prefix="mergetool-every-") as folder:
            made = merge(recipe(name, args), Path(folder) / name)
            found = nll(Path(folder) / name, rows)
        assert math.isfinite(found), f"{name}: {found}"
        print(f"| {name} | {found:.4f} | {'; '.join(made['warnings'])}", flush=True)


if __name__ == "__main__":
    main()
