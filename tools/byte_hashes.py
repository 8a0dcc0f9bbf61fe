"""Hashes of what mergetool computes: merges, masks, optimizers' steps, a study; proves that a change changes no byte.

    python tools/byte_hashes.py --json before.json --save KEPT            on the code before the change
    python tools/byte_hashes.py --against before.json --load KEPT         on the code after it

The code that is hashed is the `mergetool` that Python imports: PYTHONPATH=OTHER_CHECKOUT takes another one's. Only the
command line and documented public names are used, so that one script serves both.

The table (stdout; `--json FILE` as name -> sha256) has a row for every result. Rows that begin with `control` are of the
libraries and of the inputs made here: where they differ, the environments do, and nothing else can be compared. Rows that
begin with `config` are of what stands beside the weights, which a change may alter by intent: told, not counted.
`--save DIR` keeps optimizers after 15 of 30 steps, a merge and a study; `--load DIR` continues them, which must give what
30 steps without a stop gave. DIR is found again by its path and must not be moved: a merge knows its inputs by theirs.

Hashes are compared on one machine: sums are taken in other orders on other processors. One thread; some minutes.
The exit code is 1 where a row or a check differs.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded; torch splits sums by threads
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import copy
import gzip
import itertools
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import mergetool
from mergetool.lab import lab_path
from mergetool.merge import load_merge_recipe, merge_tensors, merge_to_directory, plan_merge
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES, Reference

STEPS, STOP = 30, 15
DENSITIES = (5e-4, 0.02, 0.1, 0.5, 0.9)
METHODS = ("linear", "slerp", "task_arithmetic", "dare_linear", "dare_ties", "ties", "breadcrumbs", "breadcrumbs_ties",
           "della", "della_linear")  # fmt: skip
SPARSE = METHODS[3:]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}

rows: dict[str, str] = {}
checks: list[tuple[str, bool, str]] = []


# --- hashes ---------------------------------------------------------------------------------------------------------


def digest(*values: Any) -> str:
    """sha256 of tensors (type, shape, bytes), mappings in the order of their keys, lists, bytes and plain values."""
    found = sha256()
    for value in values:
        if isinstance(value, torch.Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            found.update(f"{value.dtype} {tuple(value.shape)}".encode())
            found.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                found.update(f"{key}:{digest(value[key])}".encode())
        elif isinstance(value, (list, tuple)):
            found.update("".join(map(digest, value)).encode())
        else:
            found.update(value if isinstance(value, bytes) else repr(value).encode())
    return found.hexdigest()


def pattern(changed: torch.Tensor) -> bytes:
    """Which entries are set, one bit each."""
    return np.packbits(changed.reshape(-1).numpy()).tobytes()


def put(name: str, *values: Any) -> None:
    put_hash(name, digest(*values))


def put_hash(name: str, value: str) -> None:
    if name in rows:
        raise ValueError(f"two rows are called {name}")
    rows[name] = value


def check(name: str, right: bool, detail: str = "") -> None:
    checks.append((name, right, detail))


def files(directory: Path, pattern_: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob(pattern_)}


def command(*arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`python -m mergetool ...`, away from any checkout: the current directory comes before PYTHONPATH."""
    line = [sys.executable, "-m", "mergetool", *map(str, arguments)]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was printed"])[-1]


# --- inputs ---------------------------------------------------------------------------------------------------------


def random(seed: int, shape: tuple[int, ...], scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(json.dumps(recipe, indent=1))  # JSON is YAML
    return path


def write_checkpoint(directory: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> Path:
    directory.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 3,
              "tie_word_embeddings": False, "dtype": "float32"}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    weight_map = {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {key: tensors[key] for key in list(tensors)[i::shards]}
        save_file(part, directory / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def make_adapter(out: Path) -> Path:
    """A LoRA adapter of lab:sft, saved by PEFT."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(lab_path("sft"), dtype=torch.float32)
    settings = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"])
    model = get_peft_model(model, settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    model.save_pretrained(str(out))
    put("control | adapter made by PEFT", files(out, "*.safetensors"))
    return out


def wide_triple(out: Path) -> list[str]:
    """Tensors of several blocks, of one entry, of integers, of three types; the base in shards."""
    shapes = {"model.embed_tokens.weight": (2048, 150), "model.layers.0.w.weight": (700, 601),
              "model.layers.1.w.weight": (700, 601), "model.layers.2.w.weight": (33, 7), "model.layers.2.bias": (1,),
              "model.norm.weight": (601,), "lm_head.weight": (1000, 601)}  # fmt: skip
    types = {"model.embed_tokens.weight": torch.bfloat16, "model.norm.weight": torch.float16}
    found, weights = [], {}
    for at, name in enumerate(("base", "sft", "rlhf")):
        for i, (key, shape) in enumerate(shapes.items()):
            weights[key] = weights.get(key, 0) + random(100 * at + i, shape, 0.1 if at == 0 else 0.02)
        tensors = {key: w.to(types.get(key, torch.float32)).contiguous() for key, w in weights.items()}
        tensors["model.layers.0.positions"] = torch.arange(10)
        found.append(str(write_checkpoint(out / name, tensors, shards=2 if name == "base" else 1)))
        put(f"control | wide {name}", tensors)
    return found


# --- offline merges -------------------------------------------------------------------------------------------------


def recipe_of(method: str, triple: list[str], **changes: Any) -> dict[str, Any]:
    """A recipe of one method with settings that all of its parts take part in."""
    base, sft, rlhf = triple
    recipe: dict[str, Any] = {"merge_method": method, "base_model": base, "seed": 3}
    entries = [{"model": sft, "parameters": {"weight": 0.4}}, {"model": rlhf, "parameters": {"weight": 0.7}}]
    parameters: dict[str, Any] = {}
    if method == "slerp":
        recipe["base_model"], entries = sft, [{"model": rlhf}]
        parameters["t"] = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.3}]
    elif method == "linear":
        del recipe["base_model"]
    elif method in SPARSE:
        parameters["density"] = 0.5
    recipe |= {"models": entries, "parameters": parameters | changes.pop("parameters", {})}
    return {key: value for key, value in (recipe | changes).items() if value is not None}


def merge_rows(name: str, path: Path, work: Path, **options: Any) -> None:
    """One merge through the documented functions: to a directory and in memory."""
    out = work / f"out-{len(rows)}"
    merge_to_directory(plan_merge(load_merge_recipe(path)), out, **options)
    told(name, out)
    written = {key: t for path in out.glob("*.safetensors") for key, t in load_file(path).items()}
    in_memory = dict(merge_tensors(plan_merge(load_merge_recipe(path))))
    check(f"{name}: merge_tensors gives what merge_to_directory writes", digest(written) == digest(in_memory))
    shutil.rmtree(out)


def command_rows(name: str, path: Path, work: Path, *options: Any) -> None:
    """One merge through the command line."""
    out = work / f"out-{len(rows)}"
    done = command("merge", path, out, *options, cwd=work)
    if done.returncode:
        raise SystemExit(f"{name}: {last_line(done.stderr)}")
    told(name, out)
    shutil.rmtree(out)


def told(name: str, out: Path) -> None:
    """The rows of a finished merge."""
    put(f"merge | {name}", files(out, "*.safetensors"))
    manifest = json.loads((out / "mergetool.json").read_bytes())
    put(f"merge | {name} | distances and kept", *(list(manifest.get(key, {}).values()) for key in ("distances", "kept")))
    if (out / "model.safetensors.index.json").exists():
        put(f"merge | {name} | index", json.loads((out / "model.safetensors.index.json").read_bytes()))
    put(f"config | merge {name} | config.json", (out / "config.json").read_bytes())
    beside = files(out, "tokenizer*") | files(out, "chat_template*") | files(out, "generation_config.json")
    put(f"config | merge {name} | tokenizer and the rest", beside)


def merges(work: Path) -> None:
    lab = ["lab:base", "lab:sft", "lab:rlhf"]
    adapter = make_adapter(work / "adapter")

    def lab_recipe(method: str, **changes: Any) -> Path:
        return write_recipe(work / "recipe.yaml", recipe_of(method, lab, **changes))

    for method, dtype in itertools.product(METHODS, ("float32", "bfloat16")):
        command_rows(f"{method} {dtype} (command)", lab_recipe(method, dtype=dtype), work)
    command_rows("ties in shards (command)", lab_recipe("ties", dtype="float32"), work, "--shard-size", "500KB")
    command_rows("della, other seed, two threads (command)", lab_recipe("della"), work, "--seed", 11, "--threads", 2)
    with_adapter = [{"model": f"lab:sft+{adapter}", "parameters": {"weight": 0.6}},
                    {"model": "lab:rlhf", "parameters": {"weight": 0.5}}]  # fmt: skip
    command_rows("LoRA adapter (command)", lab_recipe("dare_ties", models=with_adapter, dtype="float32"), work)
    sweep(work, lab_recipe("dare_linear"))

    relative = [{"model": "lab:rlhf", "relative_to": "lab:sft", "parameters": {"weight": 0.9}},
                {"model": "lab:sft", "relative_to": "lab:base", "parameters": {"weight": 0.1}}]  # fmt: skip
    by_layer = [{"model": "lab:sft", "parameters": {"weight": [0.1, 0.9, 0.3]}},
                {"model": "lab:rlhf", "parameters": {"weight": [{"filter": "mlp", "value": [1, 0]}, {"value": 0.4}],
                                                     "density": [0.2, 0.8]}}]  # fmt: skip
    variants: list[tuple[str, str, dict[str, Any]]] = [
        ("dare_linear", "density 5e-4", {"parameters": {"density": 5e-4}}),
        ("dare_ties", "density 5e-4", {"parameters": {"density": 5e-4}}),
        ("dare_linear", "density 0.02", {"parameters": {"density": 0.02}}),
        ("dare_linear", "density 1", {"parameters": {"density": 1.0}}),
        ("ties", "density 5e-4", {"parameters": {"density": 5e-4}}),
        ("ties", "scope model", {"parameters": {"scope": "model"}}),
        ("ties", "scope model, density 5e-4", {"parameters": {"scope": "model", "density": 5e-4}}),
        ("ties", "scope model, l1", {"parameters": {"scope": "model", "rescale": "l1"}}),
        ("breadcrumbs", "gamma 0.1", {"parameters": {"gamma": 0.1}}),
        ("della", "epsilon 0.05, density 0.1", {"parameters": {"density": 0.1, "epsilon": 0.05}}),
        ("dare_linear", "relative_to", {"base_model": "lab:sft", "models": relative}),
        ("ties", "relative_to", {"base_model": "lab:sft", "models": relative}),
        ("linear", "by layer", {"models": [{**m, "parameters": {"weight": m["parameters"]["weight"]}} for m in by_layer]}),
        ("dare_ties", "by layer", {"models": by_layer}),
        ("task_arithmetic", "lambda 0.3, normalized", {"parameters": {"lambda": 0.3, "normalize": True}}),
        ("dare_ties", "normalized", {"parameters": {"normalize": True}}),
        ("linear", "not normalized", {"parameters": {"normalize": False}}),
        ("linear", "float16", {"dtype": "float16"}),
        ("dare_linear", "float16", {"dtype": "float16"}),
        ("slerp", "t 0", {"parameters": {"t": 0}}),
        ("ties", "out_dtype", {"dtype": "float32", "out_dtype": "bfloat16"}),
    ]
    variants += [(m, f"rescale {r}", {"parameters": {"rescale": r}}) for m in SPARSE for r in ("unbiased", "l1", "none")]
    for method, name, changes in variants:
        merge_rows(f"{method}, {name}", lab_recipe(method, **changes), work)
    merge_rows("dare_linear in shards", lab_recipe("dare_linear"), work, shard_bytes=300_000)
    wide = wide_triple(work / "wide")
    for method, dtype in itertools.product(METHODS, (None, "bfloat16")):
        path = write_recipe(work / "recipe.yaml", recipe_of(method, wide, dtype=dtype))
        merge_rows(f"wide {method} {dtype or 'as stored'}", path, work)
    path = write_recipe(work / "recipe.yaml", recipe_of("ties", wide, parameters={"scope": "model", "rescale": "l1"}))
    merge_rows("wide ties, scope model, two threads", path, work, threads=2, shard_bytes=2_000_000)


def sweep(work: Path, path: Path) -> None:
    out = work / "sweep"
    done = command("merge", path, out, "--sweep", "density=0.2,0.7", cwd=work)
    if done.returncode:
        raise SystemExit(f"sweep: {last_line(done.stderr)}")
    for one in sorted(out.iterdir()):
        put(f"merge | dare_linear, sweep {one.name} (command)", files(one, "*.safetensors"))
    shutil.rmtree(out)


# --- masks ----------------------------------------------------------------------------------------------------------

SIZES = (1, 1000, 65_537, 300_000, 5_000_000)


def kept_at_merges(optimizer: torch.optim.Optimizer, p: torch.Tensor, gradients: list[torch.Tensor], every: int) -> list[bytes]:
    """Which entries each merge changed."""
    found = []
    before = p.detach().clone()
    for step, gradient in enumerate(gradients, 1):
        p.grad = gradient
        optimizer.step()
        if step % every == 0:
            found.append(pattern(p.detach() != before))
            before.copy_(p.detach())
    return found


def masks(work: Path) -> None:
    for size, density, seed in itertools.product(SIZES, DENSITIES, (0, 7, -3)):
        settings = {"lr": 1.0, "density": density, "seed": seed, "rescale": "none", "compile": False}
        ones = torch.ones(size)
        p = torch.nn.Parameter(torch.zeros(size))
        found = kept_at_merges(OnDARE([("layers.0.weight", p)], **settings), p, [ones] * 2, 1)
        put(f"mask | OnDARE, size={size} density={density:g} seed={seed}", found)
        if seed or size == 5_000_000:
            continue
        p = torch.nn.Parameter(torch.zeros(size))
        found = kept_at_merges(OnDARE([("layers.0.weight", p)], every=3, **settings), p, [ones] * 6, 3)
        put(f"mask | OnDARE every 3, size={size} density={density:g}", found)
        for kind in ("resample", "fixed"):
            p = torch.nn.Parameter(torch.zeros(size))
            reference = Reference({"layers.0.weight": ones})
            optimizer = OnDARE([("layers.0.weight", p)], alpha=1.0, reference=reference, tau_mask=kind, **settings)
            put(f"mask | OnDARE reference {kind}, size={size} density={density:g}", kept_at_merges(optimizer, p, [ones] * 3, 1))
        p = torch.nn.Parameter(torch.zeros(size))
        gradients = [random(step, (size,)) for step in range(3)]  # at the first step all |Δ| are alike: ties
        found = kept_at_merges(OnTIES([("layers.0.weight", p)], **settings), p, gradients, 1)
        put(f"mask | OnTIES, size={size} density={density:g}", found)

    shapes = {"model.layers.0.a": (1,), "model.layers.0.b": (40, 25), "model.layers.1.c": (65_537,),
              "model.layers.2.d": (500, 600), "model.embed_tokens.weight": (2500, 2000)}  # fmt: skip
    zeros = str(write_checkpoint(work / "zeros", {name: torch.zeros(shape) for name, shape in shapes.items()}))
    ones = str(write_checkpoint(work / "ones", {name: torch.ones(shape) for name, shape in shapes.items()}))
    normal = {name: random(i, shape) for i, (name, shape) in enumerate(shapes.items())}
    normals = str(write_checkpoint(work / "normals", normal))
    cases = [("dare_linear", ones, density, seed) for density in DENSITIES for seed in (0, 7, -3)]
    by_size = itertools.product(("ties", "breadcrumbs", "della_linear"), (0.02, 0.5, 0.9))
    cases += [(method, normals, density, 0) for method, density in by_size]
    for method, model, density, seed in cases:
        parameters = {"density": density, "rescale": "none"} | ({"epsilon": 0.01} if "della" in method else {})
        entries = [{"model": model, "parameters": {"weight": 1.0}}]
        recipe = {"merge_method": method, "base_model": zeros, "models": entries, "parameters": parameters, "seed": seed}
        path = write_recipe(work / "recipe.yaml", recipe)
        for name, tensor in merge_tensors(plan_merge(load_merge_recipe(path))):
            put(f"mask | {method} offline, size={tensor.numel()} density={density:g} seed={seed}", pattern(tensor != 0))
            assert name in shapes


# --- optimizers -----------------------------------------------------------------------------------------------------

SHAPES = {"embed_tokens.weight": (700, 101), "layers.0.mlp.weight": (64, 48), "layers.1.mlp.weight": (48, 65),
          "norm.weight": (96,), "gate": (1,)}  # fmt: skip
MIDDLE = {"layers.0.mlp.weight": (1201, 501), "norm.weight": (64,)}
LARGE = {"embed_tokens.weight": (5_000_003,), "layers.0.mlp.weight": (1201, 501), "norm.weight": (64,)}
Shapes = dict[str, tuple[int, ...]]


@cache
def gradient(name: str, shape: tuple[int, ...], step: int) -> torch.Tensor:
    """Its scale differs along the tensor, so that magnitudes do."""
    seed = int.from_bytes(sha256(f"{name} {step}".encode()).digest()[:4], "little")
    made = random(seed, shape).reshape(-1)
    return made.mul_(torch.linspace(0.05, 1.0, made.numel())).reshape(shape)


def start_of(shapes: Shapes, dtype: torch.dtype) -> dict[str, torch.nn.Parameter]:
    made = {name: random(1000 + i, shape, 0.05) for i, (name, shape) in enumerate(shapes.items())}
    return {name: torch.nn.Parameter(w.to(dtype)) for name, w in made.items()}


@cache
def reference_of(which: str, points: bool) -> Reference:
    """τ_s of the shapes; θ_s where an OnLinear asks for it."""
    shapes = {"small": SHAPES, "middle": MIDDLE, "large": LARGE}[which]
    tau = {name: random(2000 + i, shape, 0.01) for i, (name, shape) in enumerate(shapes.items())}
    if points:
        tau = {name: t + random(1000 + i, shapes[name], 0.05) for i, (name, t) in enumerate(tau.items())}
    return Reference(tau)


def make(kind: str, named: list[Any], reference: Reference | None, **settings: Any) -> torch.optim.Optimizer:
    """kind: OnDARE, OnTIES, OnLinear, or a torch optimizer and a method for OnlineMerge: "SGD dare"."""
    classes = {"OnDARE": OnDARE, "OnTIES": OnTIES, "OnLinear": OnLinear}
    if kind in classes:
        return classes[kind](named, reference=reference, **settings)
    name, method = kind.split()
    method = cast(Any, method)  # one of OnlineMerge's literals
    own = {key: settings.pop(key) for key in ("lr", "weight_decay") if key in settings}
    base = torch.optim.SGD(named, momentum=0.9, **own) if name == "SGD" else torch.optim.AdamW(named, **own)
    return OnlineMerge(base, method=method, reference=reference, **settings)


def parameters_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {name: p for group in optimizer.param_groups for name, p in zip(group["param_names"], group["params"], strict=True)}


def steps(optimizer: torch.optim.Optimizer, first: int, last: int, rate: Callable[[int], float] | None = None) -> None:
    """Steps [first, last), counted from 0; `gate` gets no gradient at every fourth."""
    for step in range(first, last):
        for name, p in parameters_of(optimizer).items():
            p.grad = gradient(name, tuple(p.shape), step).to(p.dtype)
            if name == "gate" and step % 4 == 1:
                p.grad = None
        if rate is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
        optimizer.step()


def tensors_of(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The tensors of a state_dict, by "parameter's number/key"."""
    state = optimizer.state_dict()["state"]
    return {f"{i}/{key}": v for i, values in state.items() for key, v in values.items() if isinstance(v, torch.Tensor)}


def hashes_of(optimizer: torch.optim.Optimizer) -> tuple[str, str]:
    return digest(parameters_of(optimizer)), digest(tensors_of(optimizer))


def told_optimizer(name: str, optimizer: torch.optim.Optimizer) -> None:
    for part, value in zip(("parameters", "state"), hashes_of(optimizer), strict=True):
        put_hash(f"optimizer | {name} | {part}", value)
    finite = all(bool(p.isfinite().all()) for p in parameters_of(optimizer).values())
    check(f"{name}: its parameters are finite, so that the hash tells something", finite)


def run(
    kind: str,
    dtype: str,
    settings: dict[str, Any],
    which: str = "small",
    last: int = STEPS,
    rate: Callable[[int], float] | None = None,
    label: str = "",
) -> None:
    shapes = {"small": SHAPES, "middle": MIDDLE, "large": LARGE}[which]
    points = kind == "OnLinear" or kind.endswith(" linear")
    full = {"lr": 1e-2, "alpha": 0.0 if "alpha_total" in settings else 0.1} | settings
    optimizer = make(kind, list(start_of(shapes, DTYPES[dtype]).items()), reference_of(which, points), **full)
    steps(optimizer, 0, last, rate)
    shown = " ".join(f"{key}={value}" for key, value in settings.items())
    name = " ".join(part for part in (kind, dtype, which, shown, label) if part)
    told_optimizer(name, optimizer)
    if not any(known.startswith(f"config | groups of {kind} ") for known in rows):
        groups = [{key: v for key, v in g.items() if key != "params"} for g in optimizer.state_dict()["param_groups"]]
        put(f"config | groups of {name}", groups)


def grid(**lists: Any) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def optimizers(work: Path) -> None:
    """Thirty steps of every kind on small tensors, fewer on tensors of several blocks."""
    common = {"every": (1, 3, 10, 30), "weight_decay": (0.0, 0.1)}
    sparse = {"density": (5e-4, 0.5), **common, "compile": (False,)}
    of_dare = {"rescale": ("unbiased", "l1", "none"), "tau_mask": ("resample", "fixed")}
    of_ties = {"rescale": ("none", "l1"), "elect": ("weighted", "unweighted")}
    for dtype in ("fp32", "bf16"):
        for settings in grid(**sparse, **of_dare):
            run("OnDARE", dtype, settings)
        for settings in grid(**sparse, **of_ties):
            run("OnTIES", dtype, settings)
        for settings in grid(**common, compile=(False,)):
            run("OnLinear", dtype, settings)
        for base in ("SGD", "AdamW"):
            around = {"density": (5e-4, 0.5), "every": (1, 3, 10, 30)}
            for settings in grid(**around, rescale=("unbiased", "l1"), tau_mask=("resample", "fixed")):
                run(f"{base} dare", dtype, {**settings, "weight_decay": 0.1 if settings["rescale"] == "l1" else 0.0})
            for settings in grid(**around, **of_ties):
                run(f"{base} ties", dtype, {**settings, "weight_decay": 0.1 if settings["rescale"] == "l1" else 0.0})
            for settings in grid(**common):
                run(f"{base} linear", dtype, settings)
    one_by_one()
    for kind, dtype, density, every in itertools.product(("OnDARE", "OnTIES"), ("fp32", "bf16"), (5e-4, 0.5), (1, 3)):
        run(kind, dtype, {"density": density, "every": every, "weight_decay": 0.1, "compile": False}, "middle", 6)
        run(f"AdamW {kind[2:].lower()}", dtype, {"density": density, "every": every}, "middle", 6)
    for dtype, every in itertools.product(("fp32", "bf16"), (1, 3)):
        run("OnLinear", dtype, {"every": every, "compile": False}, "middle", 6)
    of_checkpoints(work)


def one_by_one() -> None:
    """Settings that the grid leaves alone, one at a time."""
    others: list[dict[str, Any]] = [
        {"clip": 1e-3}, {"rounding": "nearest"}, {"moments": "parameter"}, {"alpha": 0.0}, {"alpha": 1.0}, {"density": 1.0},
        {"density": 1.0, "alpha": 0.0}, {"alpha_total": 0.3, "total_steps": STEPS}, {"seed": 12345}, {"eps": 1e-4},
        {"betas": (0.8, 0.95)}, {"density": 0.02}, {"density": 0.1}, {"density": 0.9}, {"density": 0.02, "clip": 1e-3},
    ]  # fmt: skip
    for kind, dtype, every, other in itertools.product(("OnDARE", "OnTIES", "OnLinear"), ("fp32", "bf16"), (1, 3), others):
        if kind == "OnLinear" and {"density", "clip"} & set(other):
            continue
        run(kind, dtype, {"every": every, "weight_decay": 0.1, "compile": False, **other}, label="(one setting)")
    for kind, every, rounding in itertools.product(("SGD dare", "SGD ties", "SGD linear"), (1, 3), ("nearest", "stochastic")):
        run(kind, "bf16", {"every": every, "rounding": rounding}, label="(one setting)")
    for kind, dtype, every in itertools.product(("OnDARE", "OnTIES", "OnLinear"), ("fp16", "fp64"), (1, 3)):
        run(kind, dtype, {"every": every, "weight_decay": 0.1, "compile": False}, label="(type)")
    for kind, dtype, every in itertools.product(("OnDARE", "OnTIES", "AdamW dare"), ("fp32", "bf16"), (1, 3)):
        settings = {"every": every, "weight_decay": 0.1}
        run(kind, dtype, settings, rate=lambda step: 1e-2 * min(step / 5, 1.0), label="(warm-up from 0)")
    for kind, dtype in itertools.product(("OnDARE", "OnTIES"), ("fp32", "bf16")):
        first, *rest = start_of(SHAPES, DTYPES[dtype]).items()
        groups = [{"params": [first], "density": 0.5, "every": 1}, {"params": rest, "density": 0.02, "every": 3, "lr": 1e-3}]
        optimizer = make(kind, groups, reference_of("small", False), lr=1e-2, alpha=0.1, compile=False)
        steps(optimizer, 0, STEPS)
        told_optimizer(f"{kind} {dtype} small, two groups", optimizer)


def of_checkpoints(work: Path) -> None:
    """References that are read from checkpoints and from an adapter."""
    weights = load_file(lab_path("sft") / "model.safetensors")
    kinds: tuple[str, ...] = ("OnDARE", "OnTIES", "OnLinear")
    storages: tuple[Literal["memory", "cpu", "mmap"], ...] = ("memory", "cpu", "mmap")
    for kind, storage, dtype in itertools.product(kinds, storages, ("fp32", "bf16")):
        reference = Reference.from_checkpoints(lab_path("base"), lab_path("sft"), storage=storage)
        named = [(name, torch.nn.Parameter(w.to(DTYPES[dtype]))) for name, w in weights.items()]
        density = {} if kind == "OnLinear" else {"density": 0.02}
        optimizer = make(kind, named, reference, lr=1e-3, alpha=0.1, every=2, compile=False, **density)
        steps(optimizer, 0, 4)
        told_optimizer(f"{kind} {dtype}, reference of checkpoints, {storage}", optimizer)
    adapter = work / "adapter"
    if not adapter.exists():
        make_adapter(adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    for kind in ("OnDARE", "OnTIES"):
        named = [(name, torch.nn.Parameter(w.clone())) for name, w in weights.items()]
        optimizer = make(kind, named, Reference.from_adapter(adapter), lr=1e-3, alpha=0.1, density=0.5, every=2)
        steps(optimizer, 0, 6)
        told_optimizer(f"{kind} fp32, reference of an adapter", optimizer)


def compiled(work: Path) -> None:
    """A tensor of five million entries, by torch.compile and without."""
    kinds, places = ("OnDARE", "OnTIES"), [(0.5, 1), (0.5, 3), (5e-4, 1)]
    for kind, (density, every), dtype, compile_ in itertools.product(kinds, places, ("fp32", "bf16"), (False, True)):
        settings = {"density": density, "every": every, "weight_decay": 0.1, "compile": compile_}
        run(kind, dtype, settings, "large", 2 * every)


# --- what is kept and continued -------------------------------------------------------------------------------------

KEPT: list[tuple[str, str, dict[str, Any]]] = [
    ("OnDARE", "bf16", {"density": 5e-4, "every": 10, "weight_decay": 0.1, "tau_mask": "fixed"}),
    ("OnDARE", "fp32", {"density": 0.5, "every": 1, "weight_decay": 0.1, "rescale": "l1"}),
    ("OnTIES", "bf16", {"density": 0.5, "every": 10, "weight_decay": 0.1}),
    ("OnTIES", "fp32", {"density": 5e-4, "every": 1, "elect": "unweighted"}),
    ("OnLinear", "bf16", {"every": 10, "weight_decay": 0.1}),
    ("SGD dare", "fp32", {"density": 0.5, "every": 10}),
    ("AdamW ties", "bf16", {"density": 5e-4, "every": 1, "weight_decay": 0.1}),
    ("AdamW linear", "fp32", {"every": 10}),
]


def kept_one(
    kind: str, dtype: str, settings: dict[str, Any], start: dict[str, torch.Tensor] | None = None
) -> torch.optim.Optimizer:
    points = kind == "OnLinear" or kind.endswith(" linear")
    named = list((start or start_of(SHAPES, DTYPES[dtype])).items())
    return make(kind, named, reference_of("small", points), **{"lr": 1e-2, "alpha": 0.1, **settings})


def halves(save: Path | None) -> None:
    """Optimizers that are stopped after 15 steps and continued: from a state_dict, a copy and a pickle."""
    for at, (kind, dtype, settings) in enumerate(KEPT):
        name = f"{kind} {dtype} {' '.join(f'{key}={value}' for key, value in settings.items())}"
        whole = kept_one(kind, dtype, settings)
        steps(whole, 0, STEPS)
        right = hashes_of(whole)
        for part, value in zip(("parameters", "state"), right, strict=True):
            put_hash(f"resumed | {name} | {part}", value)

        half = kept_one(kind, dtype, settings)
        steps(half, 0, STOP)
        for group in half.param_groups:
            for p in group["params"]:
                p.grad = None
        written = {"optimizer": half.state_dict(), "parameters": {n: p.detach() for n, p in parameters_of(half).items()}}
        pickled = pickle.dumps(copy.deepcopy(half))
        if save is not None:
            torch.save(written, save / f"optimizer-{at}.pt")
            (save / f"optimizer-{at}.pickle").write_bytes(pickled)
        for how, again in (
            ("state_dict", from_state(at, copy.deepcopy(written))),
            ("deepcopy", copy.deepcopy(half)),
            ("pickle", pickle.loads(pickled)),
        ):
            continued(f"{name}: 15 steps, {how}, 15 steps", again, right)


def from_state(at: int, written: dict[str, Any]) -> torch.optim.Optimizer:
    optimizer = kept_one(*KEPT[at], {name: torch.nn.Parameter(w) for name, w in written["parameters"].items()})
    optimizer.load_state_dict(written["optimizer"])
    return optimizer


def continued(name: str, optimizer: torch.optim.Optimizer, right: tuple[str, str]) -> None:
    steps(optimizer, STOP, STEPS)
    found = hashes_of(optimizer)
    check(name, found == right, f"parameters {found[0][:12]} and {right[0][:12]}, state {found[1][:12]} and {right[1][:12]}")


def study_rows(directory: Path) -> None:
    """A merge and a study, made in `directory`, with their inputs beside them."""
    for name in ("base", "sft", "rlhf"):
        shutil.copytree(lab_path(name), directory / name)
    for name in ("preferences_validation", "preferences_test", "skills_validation", "skills_test"):
        shutil.copyfile(lab_path(name), directory / f"{name}.jsonl.gz")
        put(f"control | {name}", gzip.decompress(lab_path(name).read_bytes()))
    path = write_recipe(directory / "merge.yaml", recipe_of("dare_ties", ["base", "sft", "rlhf"], dtype="float32"))
    done = command("merge", path, directory / "merged", cwd=directory)
    if done.returncode:
        raise SystemExit(f"merge: {last_line(done.stderr)}")
    put("study | merge of its models", files(directory / "merged", "*.safetensors"))
    limits = {"limit": 6, "max_length": 128}
    study = {
        "models": {"base": "base", "sft": "sft", "rlhf": "rlhf"},
        "candidates": [
            {"name": "linear", "merge": {"merge_method": "linear", "weight": 0.5}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": 0.6, "density": 0.5, "seed": 0}},
        ],
        "reward": {"name": "chat", "metrics": ["reward_margin", "preference_accuracy"], **limits,
                   "data": {split: f"preferences_{split}.jsonl.gz" for split in ("validation", "test")}},
        "tax": {"name": "skills", "metrics": ["exact_match", "nll"], **limits,
                "data": {split: f"skills_{split}.jsonl.gz" for split in ("validation", "test")}},
    }  # fmt: skip
    path = write_recipe(directory / "study.yaml", study)
    done = command("compare", path, directory / "results", "--json", cwd=directory)
    if done.returncode:
        raise SystemExit(f"compare: {last_line(done.stderr)}")
    measured = [json.loads(line) for line in (directory / "results" / "results.jsonl").read_text().splitlines()]
    put("study | keys of its candidates", {row["name"]: row["key"] for row in measured})
    put("study | scores", {row["name"]: json.dumps(row["scores"], sort_keys=True) for row in measured})
    outcome = json.loads(done.stdout)
    put("study | outcome", {k: json.dumps(outcome[k], sort_keys=True) for k in ("chosen", "front", "groups", "hypervolume")})


def load(directory: Path, work: Path) -> None:
    """Continue what `--save` kept, with the code that runs now; what was kept stays as it is."""
    before = json.loads((directory / "rows.json").read_text())
    for at, (kind, dtype, settings) in enumerate(KEPT):
        name = f"{kind} {dtype} {' '.join(f'{key}={value}' for key, value in settings.items())}"
        right = before[f"resumed | {name} | parameters"], before[f"resumed | {name} | state"]
        for how, read in (
            ("state_dict", lambda at=at: from_state(at, torch.load(directory / f"optimizer-{at}.pt", weights_only=True))),
            ("pickle", lambda at=at: pickle.loads((directory / f"optimizer-{at}.pickle").read_bytes())),
        ):
            label = f"kept {how} of {name}: 15 more steps"
            try:
                continued(label, read(), right)
            except Exception as error:  # a class that is not where it was, a key that is missing: told with the rest
                check(label, False, f"{type(error).__name__}: {error}")

    shutil.copytree(directory / "merged", work / "merged")
    weights = work / "merged" / "model.safetensors"
    was = weights.stat()
    done = command("merge", directory / "merge.yaml", work / "merged", cwd=work)
    same = done.returncode == 0 and (weights.stat().st_ino, weights.stat().st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
    check("kept merge is known as finished", same, last_line(done.stderr))
    shutil.copytree(directory / "results", work / "results")
    done = command("compare", directory / "study.yaml", work / "results", "--json", cwd=work)
    again = json.loads(done.stdout)["ran"] if done.returncode == 0 else last_line(done.stderr)
    print(f"measured again: {again}", file=sys.stderr)
    check("kept study is continued without measuring", again == 0, f"measured again: {again}")
    if done.returncode == 0:
        outcome = json.loads(done.stdout)
        shown = {k: json.dumps(outcome[k], sort_keys=True) for k in ("chosen", "front", "groups", "hypervolume")}
        check("kept study has the same outcome", digest(shown) == before["study | outcome"])


# --- the run --------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Path], None]] = {"merges": merges, "masks": masks, "optimizers": optimizers, "compiled": compiled}


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    asked.add_argument("--json", type=Path, metavar="FILE", help="write name -> sha256")
    asked.add_argument("--against", type=Path, metavar="FILE", help="compare with the FILE of an earlier --json")
    asked.add_argument("--save", type=Path, metavar="DIR", help="keep optimizers, a merge and a study; a new directory")
    asked.add_argument("--load", type=Path, metavar="DIR", help="continue what an earlier --save kept")
    names = [*SECTIONS, "kept"]
    asked.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"of {', '.join(names)}")
    given = asked.parse_args()
    if given.save and given.only and "kept" not in given.only:
        asked.error("--save needs the section kept")
    torch.set_num_threads(1)
    print(f"mergetool: {Path(mergetool.__file__).parent}", file=sys.stderr)
    put("control | versions", sys.version, torch.__version__, np.__version__, torch.backends.cpu.get_cpu_capability())
    put("control | a gradient", gradient("control", (1000,), 0))

    with tempfile.TemporaryDirectory(prefix="byte_hashes-") as folder:
        work = Path(folder)
        for name, section in SECTIONS.items():
            if given.only is None or name in given.only:
                timed(name, lambda section=section: section(work))
        place = given.save.resolve() if given.save else work / "kept"
        if given.only is None or "kept" in given.only:
            place.mkdir(parents=True)
            timed("kept", lambda: (halves(given.save and place), study_rows(place)))
        if given.load:
            timed("load", lambda: load(given.load.resolve(), work))

    text = json.dumps(rows, indent=1) + "\n"
    if given.save:
        (place / "rows.json").write_text(text)
    if given.json:
        given.json.write_text(text)
    print("| name | sha256 |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name.replace(' | ', ': ')} | {value} |")
    wrong = [one for one in checks if not one[1]]
    print(f"\n{len(rows)} rows; {len(checks)} checks, {len(wrong)} of them wrong")
    for name, _, detail in wrong:
        print(f"wrong: {name}{': ' if detail else ''}{detail}")
    differing = compared(given.against, given.only is not None) if given.against else 0
    return 1 if wrong or differing else 0


def timed(name: str, work: Callable[[], Any]) -> None:
    began, many = time.perf_counter(), len(rows)
    work()
    gradient.cache_clear()
    reference_of.cache_clear()
    print(f"{name}: {len(rows) - many} rows in {time.perf_counter() - began:.0f} s", file=sys.stderr)


def compared(file: Path, partly: bool) -> int:
    """Tells what differs from an earlier run; counts the rows that must not."""
    before = json.loads(file.read_text())
    names = [n for n in {**before, **rows} if before.get(n) != rows.get(n) and not (partly and n not in rows)]
    by_intent = [name for name in names if name.startswith("config |")]
    for name in names:
        kind = "config" if name in by_intent else "differs"
        missing = " (not there before)" if name not in before else " (not there now)" if name not in rows else ""
        print(f"{kind}: {name}{missing}")
    same = sum(before.get(name) == value for name, value in rows.items())
    print(f"against {file.name}: {same} rows the same, {len(names) - len(by_intent)} differ, {len(by_intent)} of config")
    return len(names) - len(by_intent)


if __name__ == "__main__":
    sys.exit(main())
