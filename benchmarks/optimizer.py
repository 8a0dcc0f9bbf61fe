"""What a step costs: ns and extra bytes for each parameter, against torch's AdamW, in one run.

    python benchmarks/optimizer.py                      # the table in docs/optimizers.md
    python benchmarks/optimizer.py --dtypes float32 --densities 5e-4 --rounds 20
    python benchmarks/optimizer.py --smollm2            # the 272 tensors of SmolLM2-135M in place of eight matrices
    python benchmarks/optimizer.py --smollm2 --only OnNullSpace --dtypes float32
    python benchmarks/optimizer.py --released PATH      # beside the authors' code, a checkout at PATH

Every contender is timed in turn with torch's fused AdamW, step by step in one process, and each ratio is the median over
such pairs: what else the machine does hits both. The CPU ratio is of processor seconds of all threads, which a busy
machine disturbs less. Extra bytes are resident anonymous memory (RssAnon) after the steps, beyond what AdamW's moments
take; the mapped checkpoint files are not anonymous, and reused buffers are in it. OnNullSpace's are its bases, of random
directions; maps that read one input share theirs, as they do in a model.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import memory
import torch
from safetensors.torch import load_file, save_file

import mergetool
from mergetool.activations.artifact import Calibration, Site, Tensor
from mergetool.optim import OnDARE, OnNullSpace, OnTIES, Reference

LR, ALPHA = 1e-6, 1e-6
GRADIENTS = 64
Make = Callable[[list[tuple[str, torch.nn.Parameter]]], torch.optim.Optimizer]


def shapes(total: int) -> list[tuple[int, int]]:
    """Eight matrices of `total` elements together; of SmolLM2-135M's where `total` is 0 (norms as one row)."""
    if total:
        return [(max(1, total // 8 // 2048), 2048)] * 8
    layer = [(576, 576), (192, 576), (192, 576), (576, 576), *[(1536, 576)] * 2, (576, 1536), (1, 576), (1, 576)]
    return [(49152, 576), *layer * 30, (1, 576)]


def parameters(total: int, dtype: torch.dtype, device: str) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters of `shapes`, with gradients of which `turn` gives the next."""
    named = []
    for i, (rows, columns) in enumerate(shapes(total)):
        rng = torch.Generator().manual_seed(i)
        p = torch.nn.Parameter((torch.randn(rows, columns, generator=rng) * 0.02).to(dtype).to(device))
        p.gradients = (torch.randn(rows + GRADIENTS, columns, generator=rng) * 1e-3).to(dtype).to(device)
        p.place = 0
        p.grad = p.gradients[:rows]
        named.append((f"layers.{i}.weight", p))
    return named


def turn(named: list[tuple[str, torch.nn.Parameter]]) -> None:
    """Another gradient for every entry: under a constant one every |Δθ| would be η, and the largest a matter of rounding."""
    for _, p in named:
        p.place = (p.place + 1) % GRADIENTS
        p.grad = p.gradients[p.place : p.place + p.shape[0]]


def checkpoints(directory: Path, total: int, dtype: torch.dtype) -> tuple[Path, Path]:
    """Base and SFT checkpoints of the same shapes, for Reference."""
    named = parameters(total, dtype, "cpu")
    for which, scale in (("base", 0.0), ("sft", 1e-3)):
        (directory / which).mkdir(exist_ok=True)
        (directory / which / "config.json").write_text("{}")
        tensors = {n: (p.detach() + scale * torch.randn_like(p)).contiguous() for n, p in named}
        save_file(tensors, directory / which / "model.safetensors")
    return directory / "base", directory / "sft"


def calibration(path: Path, total: int, rank: int) -> Path:
    """A calibration of tensors of `shapes`: random eigenvectors, of which nine tenths of the trace are."""
    rng, named = torch.Generator().manual_seed(rank), shapes(total)
    sites: dict[str, Site] = {}
    tensors: dict[str, Tensor] = {}
    stored: dict[str, torch.Tensor] = {}
    for i, (rows, n) in enumerate(named):
        place = (i - 1) % 9 if not total and i else -1
        key = f"layers.{i - {1: 1, 2: 2, 5: 1}.get(place, 0)}"  # q, k, v read one input, and gate, up
        if rows == 1:
            sites[key], stored[f"{key}.values"] = Site(n, float(n), 1, n, 1.0, diagonal=True), torch.rand(n, generator=rng)
        elif key not in sites:
            values = torch.linspace(2.0, 0.1, rank)
            sites[key] = Site(n, float(n), 1, rank, 0.9)
            stored[f"{key}.values"] = values * (0.9 * n / values.sum())
            stored[f"{key}.vectors"] = torch.linalg.qr(torch.randn(n, rank, generator=rng))[0].contiguous()
        tokens = "tokens" if not total and i == 0 else None
        if tokens:
            sites[tokens], stored["tokens.values"] = Site(rows, 1.0, 1, rows, 1.0, diagonal=True), torch.full((rows,), 1 / rows)
        tensors[f"layers.{i}.weight"] = Tensor((rows, n), (key,), (tokens,) if tokens else ())
    Calibration({}, sites, tensors, stored.__getitem__).save(path)
    return path


def anonymous() -> int:
    """Resident anonymous bytes, after giving free heap back."""
    gc.collect()
    if sys.platform != "linux":
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    return memory.anonymous()


def timed(optimizer: torch.optim.Optimizer, device: str) -> tuple[float, float]:
    """(seconds, CPU seconds of all threads) of one step."""
    start, cpu = time.perf_counter(), time.process_time()
    optimizer.step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def against(make: Make, named: list, device: str, rounds: int) -> dict[str, float]:
    """One contender beside fused AdamW: ns for each parameter of both, their ratio, and extra bytes."""
    total = sum(p.numel() for _, p in named)
    fused = torch.optim.AdamW([p for _, p in named], lr=LR, fused=True, weight_decay=0.0)
    timed(fused, device)
    ours: torch.optim.Optimizer | None = None
    for _ in range(2):  # the first one compiles, which takes memory of its own once
        ours = None
        before = anonymous()
        ours = make(named)
        for _ in range(2):
            timed(ours, device)
            turn(named)
        after = anonymous()
    moments = sum(
        t.numel() * t.element_size()
        for state in ours.state.values()
        for key, t in state.items()
        if key in ("exp_avg", "exp_avg_sq") and isinstance(t, torch.Tensor)
    )
    plain = sum(2 * p.numel() * p.element_size() for _, p in named)
    extra = after - before - min(moments, plain)
    every = ours.param_groups[0].get("every", 1)  # a Step-K run is timed from merge to merge, the merge in it
    times = []
    for _ in range(rounds if every == 1 else max(3, rounds // 3)):
        steps = []
        for _ in range(every):
            steps.append((*timed(fused, device), *timed(ours, device)))
            turn(named)
        times.append([sum(column) / every for column in zip(*steps, strict=True)])
    return {
        "adamw_ns": statistics.median(t[0] for t in times) * 1e9 / total,
        "ns": statistics.median(t[2] for t in times) * 1e9 / total,
        "ratio": statistics.median(t[2] / t[0] for t in times),
        "cpu_ratio": statistics.median(t[3] / t[1] for t in times),
        "bytes": extra / total,
    }


def warm_up(device: str) -> None:
    """Load the compiler, whose own 150 MB are no part of a parameter's cost."""
    p = torch.nn.Parameter(torch.zeros(64, device=device))
    p.grad = torch.ones_like(p)
    OnDARE([("p", p)], lr=LR, density=0.5, compile=True).step()


def null_space_rows(ranks: list[int], total: int, directory: Path) -> list[tuple[str, Make]]:
    """OnNullSpace at so many eigenvectors of each input."""
    files = {rank: calibration(directory / f"rank-{rank}.safetensors", total, rank) for rank in ranks}
    return [
        (f"OnNullSpace rank={rank}", lambda ps, file=file: OnNullSpace(ps, lr=LR, calibration=file))
        for rank, file in files.items()
    ]


def contenders(densities: list[float], base: Path, sft: Path, released: str | None) -> list[tuple[str, Make]]:
    """(label, maker) of every row."""

    def reference(storage: str) -> Reference:
        return Reference.from_checkpoints(base, sft, storage=storage)

    rows: list[tuple[str, Make]] = [
        ("AdamW foreach", lambda ps: torch.optim.AdamW([p for _, p in ps], lr=LR, foreach=True, weight_decay=0.0)),
        ("AdamW fused", lambda ps: torch.optim.AdamW([p for _, p in ps], lr=LR, fused=True, weight_decay=0.0)),
    ]
    for p in densities:
        for mask, storage in (("fixed", "mmap"), ("resample", "mmap"), ("resample", "memory")):
            rows.append((
                f"OnDARE p={p:g} tau_mask={mask} storage={storage}",
                lambda ps, p=p, mask=mask, storage=storage: OnDARE(
                    ps, lr=LR, density=p, alpha=ALPHA, tau_mask=mask, reference=reference(storage)
                ),
            ))  # fmt: skip
        rows.append((
            f"OnDARE p={p:g} rounding=nearest storage=mmap",
            lambda ps, p=p: OnDARE(ps, lr=LR, density=p, alpha=ALPHA, rounding="nearest", reference=reference("mmap")),
        ))  # fmt: skip
        rows.append((
            f"OnDARE p={p:g} moments=parameter storage=mmap",
            lambda ps, p=p: OnDARE(ps, lr=LR, density=p, alpha=ALPHA, moments="parameter", reference=reference("mmap")),
        ))  # fmt: skip
        rows.append((f"OnDARE p={p:g} alpha=0 (ChildTuning-F)", lambda ps, p=p: OnDARE(ps, lr=LR, density=p)))
        rows.append((
            f"OnDARE p={p:g} every=10 storage=mmap",
            lambda ps, p=p: OnDARE(ps, lr=LR, density=p, alpha=ALPHA, every=10, reference=reference("mmap")),
        ))  # fmt: skip
        rows.append((
            f"OnTIES p={p:g} storage=mmap",
            lambda ps, p=p: OnTIES(ps, lr=LR, density=p, alpha=ALPHA, reference=reference("mmap")),
        ))  # fmt: skip
        if released:
            rows += released_rows(released, p, base, sft)
    return rows


class Named:
    """What the authors' code asks of a model."""

    def __init__(self, path: Path) -> None:
        self.tensors = load_file(path / "model.safetensors")

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        return list(self.tensors.items())


def released_rows(path: str, density: float, base: Path, sft: Path) -> list[tuple[str, Make]]:
    """The authors' optimizers, imported from a checkout that the user names; nothing of them is kept here."""
    sys.path.insert(0, path)
    from online_merging import optimizers as released

    def maker(cls: type) -> Make:
        def make(ps: list[tuple[str, torch.nn.Parameter]]) -> torch.optim.Optimizer:
            names = {(0, i): name for i, (name, _) in enumerate(ps)}
            ours = cls([p for _, p in ps], lr=LR, reserve_p=density, alpha=ALPHA, use_merge=True, param_name_map=names)
            ours.init_ref_param_diff(Named(sft), Named(base))
            return ours

        return make

    return [
        (f"released OnDARE p={density:g}", maker(released.ODAdamW)),
        (f"released OnTIES p={density:g}", maker(released.OTAdamW)),
    ]


def main() -> None:
    """Print the table to stdout; --json writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--millions", type=float, default=56.0, help="parameters, in millions")
    parser.add_argument("--smollm2", action="store_true", help="SmolLM2-135M's 272 tensors in place of eight matrices")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--densities", nargs="+", type=float, default=[5e-4, 0.01, 0.1, 0.5, 1.0])
    parser.add_argument("--ranks", nargs="+", type=int, default=[64, 256], help="of OnNullSpace")
    parser.add_argument("--only", default="", help="only rows whose label has this text")
    parser.add_argument("--released", help="a checkout of the authors' code")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warm_up(args.device)
    total = 0 if args.smollm2 else int(args.millions * 1e6)
    count = sum(rows * columns for rows, columns in shapes(total))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    print(f"mergetool {mergetool.__version__}, torch {torch.__version__}, {device}, {args.threads} threads{load},")
    print(f"{count / 1e6:.0f} M parameters in {len(shapes(total))} tensors,", end=" ")
    print(f"median of {args.rounds} steps, each beside fused AdamW\n")
    results = []
    for dtype in args.dtypes:
        with tempfile.TemporaryDirectory() as directory:
            base, sft = checkpoints(Path(directory), total, getattr(torch, dtype))
            print(f"| {dtype} | ns/param | fused AdamW | ratio | CPU ratio | extra bytes/param |\n|{'---|' * 6}")
            rows = contenders(args.densities, base, sft, args.released) + null_space_rows(args.ranks, total, Path(directory))
            for label, make in rows:
                if args.only not in label:
                    continue
                named = parameters(total, getattr(torch, dtype), args.device)
                row = against(make, named, args.device, args.rounds)
                results.append({"dtype": dtype, "label": label, **row})
                cells = [row[key] for key in ("ns", "adamw_ns", "ratio", "cpu_ratio", "bytes")]
                print(f"| {label} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |", flush=True)
            print()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
