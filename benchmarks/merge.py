#!/usr/bin/env python3
"""mergetool against mergekit: whole processes on the same recipe and the same random Llama triple, one after the other.

    python benchmarks/merge.py                       1.1 B parameters, all six methods, three runs each
    python benchmarks/merge.py --size 4b --only ours peak memory of a larger model
    python benchmarks/merge.py --methods ties --runs 1

Prints wall time, CPU time and peak memory of each, the ratio of the medians, and `cp` of the same bytes as the floor.
Peak RSS counts mapped file pages, which the kernel can take back at any time; "anon" is Pss_Anon of
/proc/PID/smaps_rollup, sampled every 50 ms, which is the memory a process really holds. Sampling walks the page tables
of all that is mapped and slows a process down, so it is taken in one run more, which is not timed (--no-memory leaves
it out). Nothing else should run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib import metadata
from pathlib import Path

import yaml

SIZES = {  # hidden, intermediate, layers, heads, kv heads, vocabulary
    "tiny": (256, 704, 4, 8, 4, 2048),
    "135m": (576, 1536, 30, 9, 3, 49152),
    "1.1b": (2048, 5632, 22, 32, 4, 32000),
    "4b": (2560, 9728, 36, 32, 8, 151936),
}
METHODS = {
    "linear": {}, "slerp": {"t": 0.5}, "task_arithmetic": {}, "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5}, "ties": {"density": 0.5}, "breadcrumbs": {"density": 0.5}, "della": {"density": 0.5},
    "breadcrumbs_ties": {"density": 0.5}, "della_linear": {"density": 0.5},
    "nuslerp": {}, "multislerp": {}, "karcher": {}, "model_stock": {}, "sce": {"select_topk": 0.5}, "ram": {},
    "ramplus_tl": {}, "nearswap": {"t": 0.001}, "arcee_fusion": {}, "passthrough": {},
}  # fmt: skip
_PART = 1 << 23
PAPER = ["linear", "slerp", "task_arithmetic", "dare_linear", "dare_ties", "ties"]


def make_triple(root: Path, size: str) -> None:
    """base, sft and rlhf: normal weights of spread 0.02, and small steps from them, in bf16 shards of 5 GB."""
    import torch

    from mergetool.checkpoint.writer import CheckpointWriter, OutTensor

    hidden, inner, layers, heads, kv, vocab = SIZES[size]
    shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.{n}.weight": (inner, hidden) for n in ("mlp.gate_proj", "mlp.up_proj")}
        shapes |= {f"{at}.self_attn.{n}.weight": (hidden * kv // heads, hidden) for n in ("k_proj", "v_proj")}
        shapes |= {f"{at}.self_attn.{n}.weight": (hidden, hidden) for n in ("q_proj", "o_proj")}
        shapes |= {f"{at}.mlp.down_proj.weight": (hidden, inner)}
        shapes |= {f"{at}.{n}.weight": (hidden,) for n in ("input_layernorm", "post_attention_layernorm")}
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "dtype": "bfloat16", "max_position_embeddings": 2048,
    }  # fmt: skip
    out = [OutTensor(n, "BF16", s, s[0] * (s[1] if len(s) > 1 else 1)) for n, s in shapes.items()]
    names = ["base", "sft", "rlhf"]
    writers = [CheckpointWriter(root / n, out, "benchmark", shard_bytes=5 * 10**9).__enter__() for n in names]
    # 16 M numbers drawn once, and read from another place for every part: a large model in the time that its bytes take
    rng = torch.Generator().manual_seed(0)
    pool = torch.empty(2 * _PART).normal_(generator=rng)
    weight, step = torch.empty(_PART), torch.empty(_PART)
    for tensor in out:
        for start in range(0, tensor.numel, _PART):
            n = min(_PART, tensor.numel - start)
            places = torch.randint(_PART, (len(writers),), generator=rng).tolist()
            weight[:n] = pool[places[0] : places[0] + n] * 0.02
            for writer, place in zip(writers, [*places[1:], 0], strict=True):
                writer.write(tensor.name, start, weight[:n].bfloat16())
                weight[:n] += torch.mul(pool[place : place + n], 1e-3, out=step[:n])
        for writer in writers:
            writer.finished(tensor.name, {})
    for writer in writers:
        writer.complete()
        (writer.directory / "config.json").write_text(json.dumps(config))
        writer.publish()


def recipe(root: Path, method: str) -> dict:
    """Both programs read this file."""
    two = [{"model": str(root / m), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    base = str(root / "base")
    if method == "passthrough":
        return {"merge_method": method, "models": two[:1], "dtype": "bfloat16"}
    if method in ("slerp", "nearswap", "arcee_fusion"):
        base, two = str(root / "sft"), [{"model": str(root / "sft")}, {"model": str(root / "rlhf")}]
    content = {"merge_method": method, "models": two, "parameters": METHODS[method], "dtype": "bfloat16"}
    return content if method == "linear" else {**content, "base_model": base}


class Sampler(threading.Thread):
    """Peak Pss_Anon of a process, in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.going = pid, 0, True

    def run(self) -> None:
        while self.going:
            try:
                for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss_Anon"):
                        self.peak = max(self.peak, int(line.split()[1]) * 1024)
            except OSError:
                return
            time.sleep(0.05)


def measure(command: list[str], sample: bool = False) -> dict[str, float]:
    """One whole process: seconds of wall and CPU time, bytes of peak RSS and, where sampled, of peak anonymous memory."""
    os.sync()  # what the run before left to be written is not this one's to pay for
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    sampler = Sampler(child.pid)
    if sample:
        sampler.start()
    stderr = child.stderr.read() if child.stderr else b""
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - started
    sampler.going = False
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{stderr.decode(errors='replace')[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss * 1024, "anon": sampler.peak}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median of each figure."""
    return {key: statistics.median(r[key] for r in runs) for key in runs[0]}


def main() -> None:
    """Build, run in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="1.1b")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=PAPER)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", choices=["ours", "theirs"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="do not sample anonymous memory")
    parser.add_argument("--work", type=Path, help="where the triple is made, and kept; default: a temporary directory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mergetool-benchmark-") as temporary:
        work = (args.work or Path(temporary)).absolute()
        root = work / args.size
        if not (root / "rlhf").exists():
            print(f"making a random {args.size} triple", file=sys.stderr)
            make_triple(root, args.size)
        run(args, work, root)


def run(args: argparse.Namespace, work: Path, root: Path) -> None:
    """The table."""
    from mergetool.checkpoint.layout import read_layout

    layout = read_layout(root / "base")
    parameters = sum(t.numel for t in layout.tensors.values())
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?"
    )
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("mergetool", "mergekit", "torch", "numpy"))
    print(f"{parameters / 1e9:.2f} B parameters, bf16 · {args.threads} threads of {cpu}, {platform.system()} · {versions}")
    print(f"{'method':16s} {'program':10s} {'wall s':>7s} {'cpu s':>7s} {'RSS GB':>7s} {'anon GB':>8s} {'ratio':>6s}")
    out = work / "out"
    for method in args.methods:
        (work / "recipe.yaml").write_text(yaml.safe_dump(recipe(root, method)))
        ours = [sys.executable, "-m", "mergetool", "merge", str(work / "recipe.yaml"), str(out), "--threads", str(args.threads)]
        ours += ["--device", args.device]
        theirs = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(work / "recipe.yaml"), str(out), "--no-copy-tokenizer"]
        programs = {"mergetool": ours, "mergekit": theirs}
        if args.only:
            programs.pop("mergekit" if args.only == "ours" else "mergetool")
        found: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
        for _ in range(args.runs):
            for name, command in programs.items():
                shutil.rmtree(out, ignore_errors=True)
                found[name].append(measure(command))
        anon = {}
        for name, command in programs.items() if args.memory else ():
            shutil.rmtree(out, ignore_errors=True)
            anon[name] = measure(command, sample=True)["anon"]
        shutil.rmtree(out, ignore_errors=True)
        for name, runs in found.items():
            m = {**median(runs), "anon": anon.get(name, float("nan"))}
            both = len(found) == 2 and name == "mergetool"
            ratio = f"{median(found['mergekit'])['wall'] / m['wall']:.1f}×" if both else ""
            figures = f"{m['wall']:7.1f} {m['cpu']:7.1f} {m['rss'] / 1e9:7.2f} {m['anon'] / 1e9:8.2f}"
            print(f"{method:16s} {name:10s} {figures} {ratio:>6s}", flush=True)
    inputs = " ".join(f"{root / model}/*.safetensors" for model in ("base", "sft", "rlhf"))
    for what, command in (
        ("cp of one model", ["cp", "-r", str(root / "base"), str(out)]),
        ("reading the inputs", ["sh", "-c", f"cat {inputs} > /dev/null"]),
    ):
        runs = []
        for _ in range(args.runs):
            shutil.rmtree(out, ignore_errors=True)
            runs.append(measure(command))
        m = median(runs)
        print(f"{'floor':16s} {what:28s} {m['wall']:.1f} s wall, {m['cpu']:.1f} s cpu")
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
