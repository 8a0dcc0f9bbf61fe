"""What a merge says of itself: mergetool.json and the model card."""

from __future__ import annotations

import json
import math
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from mergetool import __version__
from mergetool.checkpoint.layout import DTYPES
from mergetool.checkpoint.sidecar import write_config, write_tokenizer
from mergetool.checkpoint.writer import MANIFEST, check_output, partial_directory
from mergetool.merge import mergekit
from mergetool.merge.plan import EMBEDDING, HEAD, Plan
from mergetool.sources import looks_like_hub_id


def finish(
    plan: Plan, directory: Path, hashes: dict[str, str], reports: dict[str, dict[str, Any]], fingerprint: str
) -> dict[str, Any]:
    """Write everything beside the weights into the directory under construction.

    Returns:
        The manifest.
    """
    names = {t.name for t in plan.tensors}
    tied = plan.sources[plan.sidecar].layout.tied and not any(n.endswith(HEAD) for n in names)
    tied = tied and any(n.endswith(EMBEDDING) for n in names)
    largest = max((t for t in plan.tensors if t.floating), key=lambda t: t.numel, default=None)
    dtype = DTYPES[largest.dtype_name][0] if largest else "float32"
    write_config(plan.sources[plan.sidecar].layout.directory, directory, dtype, tied)
    write_tokenizer(plan.sources[plan.tokenizer].layout.directory, directory, plan.recipe.chat_template)
    manifest = {
        "mergetool": __version__,
        "kind": "merge",
        "engine": "native",
        "fingerprint": fingerprint,
        "recipe": plan.recipe.to_dict(),
        "seed": plan.recipe.seed,
        "versions": versions(),
        "inputs": [
            {"model": s.name, "headers_sha256": {f.name: d for f, (_, d) in s.layout.files.items()}} for s in plan.sources
        ],
        "outputs_sha256": hashes,
        "dtype": dtype,
        "distances": _distances(plan, reports),
        "kept": _kept(plan, reports),
    }
    manifest["warnings"] = [
        f"the result equals the input {name}: the merge changed nothing"
        for name, distance in manifest["distances"].items()
        if distance == 0.0
    ]
    _write(directory, plan.recipe.to_dict(), manifest)
    return manifest


def through_mergekit(plan: Plan, out: Path, *, shard_bytes: int, device: str = "cpu") -> dict[str, Any]:
    """Let mergekit make the checkpoint, under the same rule: its name appears when it is complete."""
    recipe = plan.recipe.to_dict()
    check_output(out)
    working = partial_directory(out)
    shutil.rmtree(working, ignore_errors=True)
    try:
        mergekit.run(plan.recipe, working, device=device, shard_bytes=shard_bytes, seed=plan.recipe.seed)
        manifest = {
            "mergetool": __version__,
            "kind": "merge",
            "engine": "mergekit",
            "reason": plan.reason,
            "recipe": recipe,
            "seed": plan.recipe.seed,
            "versions": {**versions(), "mergekit": metadata.version("mergekit")},
            "distances": {},
            "warnings": [],
        }
        _write(working, recipe, manifest)
        out.parent.mkdir(parents=True, exist_ok=True)
        working.rename(out)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return manifest


def read_manifest(out: Path) -> dict[str, Any]:
    """The manifest of a finished output."""
    return json.loads((out / MANIFEST).read_bytes())


def versions() -> dict[str, str]:
    """What the bytes of a result may depend on."""
    return {"python": platform.python_version(), **{p: metadata.version(p) for p in ("torch", "numpy", "safetensors")}}


def _distances(plan: Plan, reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Euclidean distance of the result to each input, over the whole model."""
    totals: dict[int, list[float]] = {}
    for report in reports.values():
        for source, value in report["distance2"].items():
            totals.setdefault(int(source), []).append(value)
    return {plan.sources[i].name: math.sqrt(math.fsum(values)) for i, values in sorted(totals.items())}


def _kept(plan: Plan, reports: dict[str, dict[str, Any]]) -> dict[str, float]:
    """For each sparsified model of the recipe (by its place in `models`), the fraction of its delta that was kept."""
    kept: dict[str, int] = {}
    numel: dict[str, int] = {}
    for report in reports.values():
        for role, count in report["kept"].items():
            kept[role] = kept.get(role, 0) + count
            numel[role] = numel.get(role, 0) + report["numel"]
    return {f"models[{role}] {plan.recipe.models[int(role)].model}": kept[role] / numel[role] for role in sorted(kept)}


def _write(directory: Path, recipe: dict[str, Any], manifest: dict[str, Any]) -> None:
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    (directory / "README.md").write_text(_card(recipe, manifest))


def _card(recipe: dict[str, Any], manifest: dict[str, Any]) -> str:
    models = list(dict.fromkeys(filter(None, [recipe.get("base_model"), *(m["model"] for m in recipe.get("models", []))])))
    front = {"library_name": "transformers", "tags": ["merge", "mergetool"], "base_model_relation": "merge"}
    if public := [m for m in models if looks_like_hub_id(m) and not Path(m).exists()]:
        front["base_model"] = public
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {recipe.get('name') or 'Merged model'}", ""]
    lines += [f"Merged with mergetool {__version__} by `{recipe['merge_method']}`, seed {manifest['seed']}.", ""]
    lines += ["```yaml", yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip(), "```", ""]
    if manifest["distances"]:
        lines += ["| input | distance of the result |", "|---|---|"]
        lines += [f"| {name} | {distance:.6g} |" for name, distance in manifest["distances"].items()]
    return "\n".join(lines) + "\n"
