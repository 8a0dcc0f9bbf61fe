"""Sound inputs of every kind, small: what the cases damage copies of."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from tests.fuzz import forked
from tests.helpers import random_weights, write_checkpoint

SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "vocab_size": 64}
ROWS = [{"prompt": f"w{at} w1", "chosen": f" w2 w{at + 3}", "rejected": f" w5 w{at}"} for at in range(24)]
ROWS2 = [{"prompt": f"w{at} w2", "chosen": f" w3 w{at + 2}", "rejected": f" w4 w{at}"} for at in range(12)]
SKILLS = [{"prompt": f"w{at} w7", "completion": f" w{at + 1}"} for at in range(12)]
SKILLS2 = [{"prompt": f"w{at} w8", "completion": f" w{at + 2}"} for at in range(12)]


def splits(name: str) -> dict[str, str]:
    """The files of a study's rows."""
    return {"validation": f"{name}.jsonl", "test": f"{name}2.jsonl"}


MERGE: dict[str, Any] = {
    "merge_method": "ties",
    "base_model": "base",
    "models": [{"model": name, "parameters": {"weight": 0.5, "density": [0.5, 0.9]}} for name in ("sft", "rlhf")],
    "parameters": {"normalize": False},
    "dtype": "float32",
    "tokenizer_source": "base",
    "seed": 3,
}
ALIGN: dict[str, Any] = {
    "base_model": "base",
    "sft_model": "sft",
    "algorithm": "dpo",
    "beta": 0.1,
    "data": {"train": "rows.jsonl", "eval": "rows.jsonl", "max_length": 32},
    "merging": {"method": "onties", "alpha": 0.1, "density": 0.2, "every": 2},
    "training": {"learning_rate": 1e-4, "max_steps": 2, "per_device_train_batch_size": 4, "seed": 0, "logging_steps": 1},
}
AMA: dict[str, Any] = {
    "sft_model": "sft",
    "rlhf_model": "rlhf",
    "alpha": [0.2, 0.5],
    "blocks": 2,
    "data": {"train": "rows.jsonl", "max_length": 32},
    "training": {"steps": 1, "batch_size": 4},
}
STUDY: dict[str, Any] = {
    "models": {"base": "base", "sft": "sft", "rlhf": "rlhf"},
    "candidates": [{"name": "linear", "merge": {"merge_method": "linear", "weight": [0.25, 0.75]}}],
    "reward": {
        "name": "pairs",
        "metrics": ["preference_accuracy"],
        "data": {"validation": "rows.jsonl", "test": "rows2.jsonl"},
    },
    "tax": {"name": "skills", "metrics": ["nll"], "data": {"validation": "skills.jsonl", "test": "skills2.jsonl"}},
    "select": {"keep_reward": 0.9},
}
RECIPES = {"merge": MERGE, "align": ALIGN, "ama": AMA, "study": STUDY}


def build(root: Path, measured: bool = True) -> None:
    """Write the corpus.

    Args:
        root: a directory that exists; the models, data and recipes come into it, and a finished merge.
        measured: a finished study and a calibration, too.
    """
    base = random_weights(0, **SIZES)
    sft = random_weights(1, near=base, **SIZES)
    rlhf = random_weights(2, near=sft, **SIZES)
    for name, weights in (("base", base), ("sft", sft), ("rlhf", rlhf)):
        write_checkpoint(root / name, weights, **SIZES)
    write_checkpoint(root / "sharded", rlhf, shards=3, **SIZES)
    pickled = write_checkpoint(root / "pickled", rlhf, **SIZES)
    (pickled / "model.safetensors").unlink()
    torch.save(rlhf, pickled / "pytorch_model.bin")
    _adapter(root / "adapter")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    (root / "rows.jsonl").write_text(lines)
    (root / "rows2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS2))
    (root / "skills.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SKILLS))
    (root / "skills2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SKILLS2))
    (root / "rows.json").write_text(json.dumps(ROWS))
    (root / "rows.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (root / "rows.csv").write_text("prompt,chosen,rejected\n" + "".join(",".join(row.values()) + "\n" for row in ROWS))
    _tables(root)
    for kind, recipe in RECIPES.items():
        (root / f"{kind}.yaml").write_text(json.dumps(recipe))
    _made(root, measured)


def _adapter(directory: Path) -> None:
    from safetensors.torch import save_file

    directory.mkdir()
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none",
        "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": None, "use_rslora": False, "base_model_name_or_path": "sft",
    }  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for layer in range(2):
        at = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors |= {f"{at}.lora_A.weight": torch.randn(2, 16), f"{at}.lora_B.weight": torch.randn(16, 2)}
    save_file(tensors, directory / "adapter_model.safetensors")


def _tables(root: Path) -> None:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, root / "rows.parquet")
    with pyarrow.ipc.new_stream(str(root / "rows.arrow"), table.schema) as sink:
        sink.write_table(table)


def _made(root: Path, measured: bool) -> None:
    log, cwd = root / "corpus-log", root
    merged = forked.run(["merge", "merge.yaml", "done", "--threads", "1"], cwd, log)
    assert merged.code == 0, merged.err
    if not measured:
        return
    study = forked.run(["compare", "study.yaml", "compared"], cwd, log, seconds=120)
    assert study.code == 0, study.err
    calibrated = forked.run(["calibrate", "sft", "calibration.safetensors", "--data", "rows.jsonl"], cwd, log, seconds=60)
    assert calibrated.code == 0, calibrated.err


def leave_unfinished(here: Path) -> Path:
    """Run the merge of merge.yaml into `out` until it is about to be published, and stop it there, as a kill does.

    Returns:
        The directory of its unfinished work.
    """
    from mergetool.checkpoint.writer import CheckpointWriter
    from mergetool.merge import merge_to_directory, plan_merge
    from mergetool.merge.recipe import load_merge_recipe

    class Stopped(BaseException):
        pass

    def stop(self: CheckpointWriter) -> dict[str, str]:
        raise Stopped

    whole, CheckpointWriter.complete = CheckpointWriter.complete, stop
    before = os.getcwd()
    os.chdir(here)
    try:
        merge_to_directory(plan_merge(load_merge_recipe(Path("merge.yaml"))), "out", threads=1)
    except Stopped:
        pass
    finally:
        CheckpointWriter.complete = whole
        os.chdir(before)
    return here / ".out.mergetool-partial"


def take(corpus: Path, case: Path, names: list[str]) -> None:
    """Put copies of parts of the corpus into a case's directory; what is not changed is linked."""
    for name in names:
        source, target = corpus / name, case / name
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True)
        else:
            shutil.copyfile(source, target)
