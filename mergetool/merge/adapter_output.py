"""Writes a merge as an adapter that PEFT loads: weight by weight, resumable, under the rule of every output."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mergetool.checkpoint.adapted_reader import AdaptedReader
from mergetool.checkpoint.adapter import ADAPTER, ADAPTER_CONFIG
from mergetool.checkpoint.header import BY_TORCH_NAME, DTYPES
from mergetool.checkpoint.open import open_reader
from mergetool.checkpoint.reader import Reader
from mergetool.checkpoint.shards import OutTensor
from mergetool.checkpoint.writer import CheckpointWriter
from mergetool.errors import CheckpointError
from mergetool.merge.adapter_plan import AdapterPlan, Form, Slot, adapter_plan
from mergetool.merge.combine import torch_dtype
from mergetool.merge.inputs import Inputs
from mergetool.merge.plan import Plan
from mergetool.merge.provenance import finish_adapter
from mergetool.merge.sparsify import Thresholds
from mergetool.merge.threads import Mergers, Progress, single_threaded_torch
from mergetool.ops.blocks import spans
from mergetool.ops.low_rank import of_matrix, of_product

_ONE_FILE = 1 << 62  # PEFT knows no index
_PREFIX = "base_model.model."


def write_adapter(
    plan: Plan, out: Path, *, threads: int, fresh: bool, device: str, allow_nonfinite: bool, progress: Progress | None
) -> None:
    """Merge into an adapter; resumes an interrupted run of the same plan.

    Args:
        plan: whose recipe says `output: adapter`; the weights of its inputs are on this disk.
        out: the directory to make.
        threads, fresh, device, allow_nonfinite, progress: as `merge.engine.merge_to_directories`.
    """
    plan = replace(plan, tensors=tuple(replace(t, dtype_name="F32") if t.floating else t for t in plan.tensors))
    made, inputs = adapter_plan(plan), Inputs(plan)
    dtype = BY_TORCH_NAME[plan.recipe.out_dtype or plan.recipe.dtype or "float32"]
    targeted = {slot.module for slot in made.low_rank}
    tensors = {slot.weight: _tensors(slot, dtype, slot.module in targeted) for slot in made.slots}
    writer = CheckpointWriter(
        out, [one for some in tensors.values() for one in some], inputs.plan, shard_bytes=_ONE_FILE, fresh=fresh,
        inputs=inputs.noted(), same_inputs=inputs.same, single=ADAPTER,
    )  # fmt: skip
    with writer:
        mergers = Mergers([plan], device, allow_nonfinite)
        try:
            _carry_out(made, tensors, writer, mergers, threads, progress)
            inputs.must_be_unchanged()
        except CheckpointError:
            if not writer.reports:
                writer.discard()
            raise
        hashes = writer.complete()
        inputs.see(mergers.seen)
        (writer.directory / ADAPTER_CONFIG).write_text(
            json.dumps(_config(made), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        reports = [writer.reports[some[0].name] for some in tensors.values()]
        facts = {
            "base": made.name,
            "rank": max(slot.rank for slot in made.slots),
            "layers": len(made.low_rank),
            "saved_whole": sorted({slot.module for slot in made.slots if not slot.rank}),
            "norm_kept": _share(reports),
            "least_norm_kept": min(_share([one]) for one in reports),
        }
        finish_adapter(plan, writer.directory, hashes, inputs, DTYPES[dtype][0], facts)
        writer.publish()


def _share(reports: list[dict[str, Any]]) -> float:
    """‖what is held‖ / ‖what changed‖."""
    total = math.fsum(one["total"] for one in reports)
    return math.sqrt(math.fsum(one["kept"] for one in reports) / total) if total else 1.0


def _tensors(slot: Slot, dtype: str, targeted: bool) -> list[OutTensor]:
    """What an adapter's file holds of a weight, as PEFT names it."""
    module, (rows, columns) = _PREFIX + slot.module, (slot.tensor.shape[0], math.prod(slot.tensor.shape[1:]))
    if not slot.rank:
        weights = [slot.weight, *slot.also]
        if slot.form is Form.BIAS and targeted:
            weights = [f"{slot.module}.base_layer.bias"]
        return [OutTensor(_PREFIX + name, dtype, slot.tensor.shape, slot.tensor.numel) for name in weights]
    inner, outer = (columns, rows) if slot.form is Form.LINEAR else (rows, columns)
    a, b = ("lora_A.weight", "lora_B.weight") if slot.form is not Form.EMBEDDING else ("lora_embedding_A", "lora_embedding_B")
    return [
        OutTensor(f"{module}.{a}", dtype, (slot.rank, inner), slot.rank * inner),
        OutTensor(f"{module}.{b}", dtype, (outer, slot.rank), slot.rank * outer),
    ]


def _carry_out(
    made: AdapterPlan, tensors: dict[str, list[OutTensor]], writer: CheckpointWriter, mergers: Mergers, threads: int,
    progress: Progress | None,
) -> None:  # fmt: skip
    todo = [slot for slot in made.slots if any(one.name not in writer.reports for one in tensors[slot.weight])]
    total, ready = sum(slot.tensor.numel for slot in made.slots), 0
    with single_threaded_torch(), ThreadPoolExecutor(max_workers=threads, thread_name_prefix="adapter") as pool:
        scopes = mergers.mine().whole_model_thresholds(made.plan, made.plan.tensors)
        whole = dict(zip((t.name for t in made.plan.tensors), scopes, strict=True))
        base = open_reader(made.base)

        def one(slot: Slot) -> Slot:
            values, report = _made(slot, mergers, base, whole[slot.tensor.name])
            for out, value in zip(tensors[slot.weight], values, strict=True):
                rounded = value.to(torch_dtype(out.dtype_name)).contiguous().view(-1)
                if not bool(rounded.isfinite().all()):
                    raise CheckpointError(
                        f"'{out.name}' of the adapter does not fit into {rounded.dtype}", "use dtype: float32"
                    )
                writer.write(out.name, 0, rounded)
                writer.finished(out.name, report)
            return slot

        futures = {pool.submit(one, slot) for slot in todo}
        ready = total - sum(slot.tensor.numel for slot in todo)
        try:
            while futures:
                finished, futures = wait(futures, return_when=FIRST_EXCEPTION, timeout=0.1)
                for future in finished:
                    slot = future.result()
                    ready += slot.tensor.numel
                    if progress is not None:
                        progress(ready, total, slot.tensor.name)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _made(slot: Slot, mergers: Mergers, base: Reader, whole: Thresholds) -> tuple[list[torch.Tensor], dict[str, Any]]:
    """The values of a weight's tensors, and the squared norms that were kept and that there were."""
    if slot.exact:
        parts = [_parts(slot, mergers.readers[i], mergers, i, coefficient) for i, coefficient in slot.exact]
        left, right = torch.cat([one for one, _ in parts], 1), torch.cat([other for _, other in parts])
        if slot.rank < left.shape[1]:
            found = of_product(left, right, slot.rank)
            return _named(slot, found.left, found.right), {"kept": found.kept, "total": found.total}
        total = float(((left.T.double() @ left.double()) * (right.double() @ right.T.double())).sum())
        return _named(slot, left, right), {"kept": total, "total": total}
    merged = torch.empty(slot.tensor.numel)

    def emit(start: int, block: torch.Tensor) -> None:
        merged[start : start + block.numel()] = block

    mergers.mine().run([slot.tensor], [emit], [whole])
    values = [merged.clone()] * (1 + len(slot.also)) if not slot.rank else []
    for start, stop in spans(slot.tensor.numel):
        merged[start:stop] -= base.block(slot.stored, start, stop)
    if values:
        total = float(merged.double().square().sum())
        return values, {"kept": total, "total": total}
    found = of_matrix(merged.view(slot.tensor.shape), slot.rank)
    return _named(slot, found.left, found.right), {"kept": found.kept, "total": found.total}


def _parts(slot: Slot, reader: Reader, mergers: Mergers, source: int, coefficient: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One source's (left, right), its coefficient in left."""
    assert isinstance(reader, AdaptedReader)
    found = mergers.sources[source]
    name = found.stored_name(slot.tensor.name)
    assert found.layout.adapter is not None
    factors = found.layout.adapter.changes[name].factors
    assert factors is not None
    left, right = reader.factors(name, factors)
    return left * (coefficient * factors.scale), right


def _named(slot: Slot, left: torch.Tensor, right: torch.Tensor) -> list[torch.Tensor]:
    """[A, B] of ΔW = left·right, as the weight is stored."""
    return [right, left] if slot.form is Form.LINEAR else [left.T, right.T]


def _config(made: AdapterPlan) -> dict[str, Any]:
    """adapter_config.json: α is r, so that B·A is what is added."""
    low = made.low_rank
    rank = max(slot.rank for slot in low)
    modules = [name for name, _ in made.skeleton.model.named_modules()]
    saved = sorted({slot.module for slot in made.slots if slot.form is Form.WHOLE})
    _must_name_one([slot.module for slot in low], modules, ".")
    _must_name_one(saved, modules, "")
    other = {re.escape(slot.module): slot.rank for slot in low if slot.rank != rank}
    causal = type(made.skeleton.model).__name__.endswith("ForCausalLM")
    config: dict[str, Any] = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM" if causal else None, "base_model_name_or_path": made.name,
        "inference_mode": True, "r": rank, "lora_alpha": rank, "rank_pattern": other, "alpha_pattern": other,
        "target_modules": [slot.module for slot in low], "modules_to_save": saved or None, "lora_dropout": 0.0,
        "bias": "all" if any(slot.form is Form.BIAS for slot in made.slots) else "none",
        "fan_in_fan_out": any(slot.form is Form.TRANSPOSED for slot in low), "init_lora_weights": True,
        "use_rslora": False, "use_dora": False,
    }  # fmt: skip
    if any(slot.also for slot in made.slots):
        config["ensure_weight_tying"] = True
    return config


def _must_name_one(paths: list[str], modules: list[str], dot: str) -> None:
    """PEFT takes every module whose path ends so."""
    for path in paths:
        other = next((name for name in modules if name != path and name.endswith(dot + path)), None)
        if other is not None:
            raise CheckpointError(f"PEFT would take '{path}' for '{other}' too", "merge into a full model (output: model)")
