#!/usr/bin/env python3
"""What learning AMA's ratios takes in memory and time, beside a backward pass that keeps every gradient.

    python benchmarks/ama.py SFT RLHF --tokens 32 --steps 4

Three processes, each with the same model in fp32 and the same row: `forward` measures alone, `backward` keeps the gradients
of all parameters as a plain training step does before its optimizer, `ama` reduces each gradient to its block's number and
frees it, and puts new weights in at every step. Peak memory is resident anonymous memory (mapped input files are not in it),
sampled every 2 ms from before the first step; a step's time is the median. Nothing else should run if times are read.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from memory import Peak, anonymous

WAYS = ("forward", "backward", "ama")


def measure(way: str, args: argparse.Namespace) -> dict:
    """One way in this process: peak above the loaded model, bytes, and seconds a step."""
    import torch

    from mergetool.ama.averaged import AveragedModel
    from mergetool.checkpoint.layout import read_layout
    from mergetool.checkpoint.reader import Reader
    from mergetool.data.tokens import Coded
    from mergetool.evaluate.logprobs import token_log_probs
    from mergetool.hub.loading import load_model
    from mergetool.merge.parts import parts_of

    readers = [Reader(read_layout(place)) for place in (args.sft, args.rlhf)]
    model = load_model(args.rlhf, "cpu")
    parts = parts_of(readers[0].layout, 3)
    averaged = AveragedModel(model, readers[0], readers[1], parts)
    row = Coded(tuple(range(10, 10 + args.tokens)), args.tokens // 2)
    distinct = {parameter.data_ptr(): parameter for parameter in model.parameters()}.values()  # tied weights once
    sizes = [parameter.numel() * parameter.element_size() for parameter in distinct]

    def step(at: int) -> None:
        if way == "forward":
            with torch.no_grad():
                token_log_probs(model, [row], 0)
        elif way == "backward":
            (-token_log_probs(model, [row], 0)[0].sum()).backward()
            model.zero_grad(set_to_none=True)
        else:
            averaged.put([0.4 + 0.01 * at, 0.5, 0.6], 0.5)
            with averaged.gradients():
                (-token_log_probs(model, [row], 0)[0].sum()).backward()

    averaged.put([0.5] * 3, 0.5)
    with torch.no_grad():
        token_log_probs(model, [row], 0)  # what the first forward makes once
    before = anonymous()
    peak = Peak(0.002)
    peak.start()
    took = []
    for at in range(args.steps):
        began = time.perf_counter()
        step(at)
        took.append(time.perf_counter() - began)
    time.sleep(0.01)
    return {
        "above": peak.bytes - before, "model": sum(sizes), "largest": max(sizes), "seconds": statistics.median(took),
        "tensors": len(sizes),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sft", type=Path)
    parser.add_argument("rlhf", type=Path)
    parser.add_argument("--tokens", type=int, default=32, help="of the one row: few, so that activations are small")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    found = {}
    for way in WAYS:
        done = subprocess.run([sys.executable, *sys.argv, "--way", way], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    one = found["ama"]
    print(f"{platform.processor() or platform.machine()}; Python {platform.python_version()}, {versions}; {args.tokens} tokens")
    print(f"model {one['model'] / 1e6:.0f} MB in {one['tensors']} tensors, the largest {one['largest'] / 1e6:.0f} MB")
    print(f"{'':10}{'peak above the model':>24}{'seconds a step':>18}")
    for way, numbers in found.items():
        print(f"{way:10}{numbers['above'] / 1e6:>21.0f} MB{numbers['seconds']:>18.2f}")


if __name__ == "__main__":
    main()
