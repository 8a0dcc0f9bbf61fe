"""What a plan will cost, from headers alone: bytes to read, write and fetch, memory, disk."""

from __future__ import annotations

from typing import Any

from mergetool.config.sources import resolve_source
from mergetool.files import cores
from mergetool.hub.fetch import missing_weights
from mergetool.merge.plan import Plan
from mergetool.merge.recipe import ADAPTER_OUTPUT
from mergetool.ops.blocks import BLOCK


def describe(plan: Plan, threads: int | None = None) -> dict[str, Any]:
    """What `check` and `--dry-run` report: bytes to read and write, memory, disk.

    ``bytes_of_peak_memory`` is an estimate of anonymous memory: the interpreter with torch, and each thread's buffers.
    """
    if plan.engine == "mergekit":
        return {"engine": "mergekit", "reason": plan.reason, **_fetched(plan)}
    threads = threads or cores()
    terms = max((len(t.terms) for t in plan.tensors), default=0)
    largest = max((t.numel for t in plan.tensors), default=0)
    selecting = plan.method is not None and (plan.method.sparsifier.gathers or plan.method.consensus.gathers)
    buffers = (len(plan.sources) + 2 * terms + 6) * BLOCK * 4 + (largest // 4 if selecting else 0)
    return {
        "engine": plan.engine,
        "method": plan.recipe.merge_method,
        "models": [s.name for s in plan.sources],
        "tensors": len(plan.tensors),
        "parameters": sum(t.numel for t in plan.tensors),
        **({"output": plan.recipe.output, "rank": plan.recipe.rank} if plan.recipe.output == ADAPTER_OUTPUT else {}),
        "dtype": sorted({t.dtype_name for t in plan.tensors}),
        **_fetched(plan),
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "bytes_of_disk": plan.bytes_written,
        "bytes_of_peak_memory": 250_000_000 + threads * buffers,
        **_calibrated(plan),
    }


def _calibrated(plan: Plan) -> dict[str, Any]:
    """What making the calibrations takes, where the recipe gives rows and not a file."""
    if plan.method is not None and plan.method.consensus.calibrated:
        return _of_models(plan, plan.method.consensus.answers)
    entry, base = plan.recipe.calibration, plan.recipe.base_model
    if entry is None or base is None or entry.file is not None:
        return {}
    return entry.cost(resolve_source(base, "."))


def _of_models(plan: Plan, answers: bool) -> dict[str, Any]:
    """The same where each model has its own: they are made one after the other."""
    rows = [(resolve_source(model, "."), entry) for model, entry in plan.recipe.calibrations() if entry.file is None]
    found = [entry.cost_of_fisher(model) if answers else entry.cost(model) for model, entry in rows]
    if not found:
        return {}
    cached = sum(one.get("bytes_of_cache", 0) for one in found)
    return {
        "bytes_of_calibration_memory": max(one["bytes_of_calibration_memory"] for one in found),
        **({"bytes_of_cache": cached} if cached else {}),
        "calibrations": [one["calibration"] for one in found],
    }


def _fetched(plan: Plan) -> dict[str, Any]:
    """What lies on the Hub: at which commit, and how much of it is not in the cache yet."""
    pinned = {s.layout.pinned.name: s.layout.pinned.commit for s in plan.sources if s.layout.pinned}
    if not pinned:
        return {}
    missing = missing_weights([s.layout for s in plan.sources])
    return {"commits": pinned, "bytes_to_fetch": sum(size for _, _, size in missing)}
