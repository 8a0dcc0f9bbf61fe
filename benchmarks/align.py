#!/usr/bin/env python3
"""What `mergetool align` adds to a training step: the same DPO run under TRL alone and under mergetool.

    python benchmarks/align.py SFT --base BASE --data PAIRS.jsonl --steps 12 --rounds 2
    python benchmarks/align.py SFT --base BASE --data PAIRS.jsonl --calibration ROWS.jsonl    # OnNullSpace in place of OnDARE

TRL runs with torch's fused AdamW, mergetool with OnDARE at density 5e-4 and the SFT delta mapped, or with OnNullSpace at the
default rank, whose calibration is made before the first step and not timed. Each run is a process
of its own, the two in turn; both precompute the reference log-probabilities, see the same rows in the same order, and
log every 10 steps. A step is timed from the end of the step before to its own end, so data, logging and drift are in
it; the first two are left out. CPU seconds are those of all threads, which a busy machine disturbs less (at OMP_NUM_THREADS=1;
threads that wait for one another count too). Peak memory is resident anonymous memory, sampled every 20 ms. Nothing else
should run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from memory import Peak

WARMUP = 2
TIMES = ("steps", "cpu")


def values(args: argparse.Namespace) -> dict:
    """What both runs are told about training."""
    return {
        "max_steps": args.steps, "per_device_train_batch_size": args.batch, "learning_rate": 1e-6, "logging_steps": 10,
        "save_strategy": "no", "max_length": args.max_length, "bf16": args.bf16, "use_cpu": args.device == "cpu",
        "gradient_checkpointing": False, "precompute_ref_batch_size": args.batch, "seed": 0,
    }  # fmt: skip


Moment = tuple[float, float]
"""Seconds, and CPU seconds of this process."""


def now() -> Moment:
    """The end of a step."""
    return time.perf_counter(), time.process_time()


def run_trl(args: argparse.Namespace, out: Path) -> list[Moment]:
    """TRL alone; the end of each step."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    from mergetool.data import preference_rows

    ends: list[Moment] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(now())

    rows, _ = preference_rows(args.data, args.steps * args.batch)
    config = trl.DPOConfig(
        output_dir=str(out), optim="adamw_torch_fused", precompute_ref_log_probs=True, report_to="none", disable_tqdm=True,
        dataloader_pin_memory=False, **values(args),
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(args.sft, dtype=torch.float32), args=config,
        train_dataset=Dataset.from_list(rows), processing_class=AutoTokenizer.from_pretrained(args.sft), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return ends


def run_mergetool(args: argparse.Namespace, out: Path) -> list[Moment]:
    """`mergetool align`; the end of each step."""
    from mergetool.align import align, align_recipe

    os.environ["MERGETOOL_CACHE"] = str(out.parent / "cache")
    training = values(args)
    length = training.pop("max_length")
    recipe = {
        "base_model": str(args.base), "sft_model": str(args.sft), "algorithm": "dpo",
        "data": {"train": str(args.data), "limit": args.steps * args.batch, "max_length": length},
        "merging": {"method": "ondare", "density": 5e-4, "alpha": 1e-6}, "training": training,
    }  # fmt: skip
    if args.calibration:
        recipe |= {"merging": {"method": "onnullspace"}, "calibration": {"data": str(args.calibration), "limit": 64}}
    ends: list[Moment] = []
    align(align_recipe(recipe), out, report=lambda event, facts: ends.append(now()) if event == "step" else None)
    return ends


def child(args: argparse.Namespace) -> None:
    """One run; writes its step times and its peak as JSON."""
    peak = Peak(0.02)
    peak.start()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        ends = {"trl": run_trl, "mergetool": run_mergetool}[args.child](args, Path(work) / "out")
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(ends)][WARMUP:]
    print(json.dumps({"steps": [wall for wall, _ in steps], "cpu": [cpu for _, cpu in steps], "peak": peak.bytes}))


def main() -> None:
    """Run both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sft", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs")
    parser.add_argument("--calibration", type=Path, help="rows that should stay: measures OnNullSpace")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="autocast")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--work", type=Path, help="where the runs write; default: a temporary directory")
    parser.add_argument("--child", choices=["trl", "mergetool"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("mergetool", "trl", "transformers", "torch"))
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores · {versions}")
    found: dict[str, list[dict]] = {"trl": [], "mergetool": []}
    for _ in range(args.rounds):
        for name, runs in found.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"  {name}: median step {statistics.median(runs[-1]['steps']):.3f} s", file=sys.stderr)
    step, cpu = (
        {name: statistics.median(s for run in runs for s in run[key]) for name, runs in found.items()} for key in TIMES
    )
    peak = {name: min(run["peak"] for run in runs) for name, runs in found.items()}
    ours = "OnNullSpace" if args.calibration else "OnDARE p=5e-4"
    print(f"{'program':28s} {'s/step':>8s} {'CPU s':>8s} {'peak GB':>8s}")
    for name, label in (("trl", "TRL, AdamW fused"), ("mergetool", f"mergetool, {ours}")):
        print(f"{label:28s} {step[name]:8.3f} {cpu[name]:8.3f} {peak[name] / 1e9:8.3f}")
    ratios = [one["mergetool"] / one["trl"] for one in (step, cpu, peak)]
    print(f"{'ratio':28s} " + " ".join(f"{ratio:8.3f}" for ratio in ratios))


if __name__ == "__main__":
    main()
