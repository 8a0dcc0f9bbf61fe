"""What a finished run leaves: a checkpoint as save_pretrained gives it, and an account of how it was made."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from mergetool.align.beside import write_settings
from mergetool.align.check import stored_dtype
from mergetool.align.recipe import AlignRecipe
from mergetool.checkpoint.layout import Layout, read_layout
from mergetool.checkpoint.manifest import Manifest
from mergetool.checkpoint.place import Directory
from mergetool.hub.card import licences, metadata
from mergetool.methods import TRAININGS

_BLOCK = 1 << 22
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def write_model(
    model: Any, state: dict[str, Any] | None, recipe: AlignRecipe, sft: Path, out: Path, tokenizer: Any = None
) -> str:
    """Writes weights, configuration, tokenizer and generation settings; returns the dtype that was written.

    Args:
        model: the trained model.
        state: its weights, gathered, where the model itself is sharded.
        recipe: for `out_dtype`, and for what its `training` alters beside weights.
        sft: the directory of theta_s.
        out: the directory under construction.
        tokenizer: that it was trained with.
    """
    import torch

    layout = read_layout(sft)
    dtype = recipe.out_dtype or stored_dtype(layout)
    out.mkdir(parents=True, exist_ok=True)
    kind = getattr(torch, dtype)
    if state is None:
        model.to(kind).save_pretrained(out, max_shard_size="5GB")
    else:
        state = _cast(state, kind)
        model.save_pretrained(out, state_dict=state, max_shard_size="5GB")
    write_settings(model, tokenizer, recipe.training, sft, out, dtype, recipe.algorithm_row.scores)
    return dtype


def _cast(state: dict[str, Any], kind: Any) -> dict[str, Any]:
    """The weights in another type; those that were one tensor under two names still are, so that it is written once."""
    done: dict[tuple, Any] = {}
    for value in state.values():
        done.setdefault((value.data_ptr(), value.shape), value.to(kind) if value.is_floating_point() else value)
    return {name: done[value.data_ptr(), value.shape] for name, value in state.items()}


def drift(out: Path, sft: Path, base: Path | None) -> dict[str, Any]:
    """How far the written weights are from theta_s, in all and per layer, so that a run that did nothing is seen.

    Args:
        out: the written checkpoint.
        sft, base: the directories of theta_s and theta_b.

    Returns:
        `norm` of theta - theta_s, `relative` to the norm of theta_s, `layers`; with theta_b also `along_tau`, the part
        of tau_s that the run has added: <theta - theta_s, tau_s> / |tau_s|^2.
    """
    from mergetool.checkpoint.open import layout_of, open_reader

    new, old = layout_of(Directory(out)), layout_of(Directory(sft))
    before = layout_of(Directory(base)) if base is not None else None
    readers = {id(layout): open_reader(layout) for layout in (new, old, before) if layout is not None}
    squares: dict[str, float] = {}
    total = {"delta": 0.0, "sft": 0.0, "tau": 0.0, "dot": 0.0}
    for name, tensor in new.tensors.items():
        if name not in old.tensors or not tensor.floating:
            continue
        part = part_of(name)
        size = min(tensor.numel, old.tensors[name].numel)  # rows of words that are new have moved from nowhere
        for at in range(0, size, _BLOCK):  # an embedding in double precision would be most of a small machine
            stop = min(at + _BLOCK, size)
            start = readers[id(old)].block(name, at, stop).double()
            delta = readers[id(new)].block(name, at, stop).double() - start
            squares[part] = squares.get(part, 0.0) + float(delta.square().sum())
            total["sft"] += float(start.square().sum())
            if before is not None and name in before.tensors:
                tau = start - readers[id(before)].block(name, at, stop).double()
                total["tau"] += float(tau.square().sum())
                total["dot"] += float((delta * tau).sum())
    for reader in readers.values():
        reader.close()
    norm = math.sqrt(sum(squares.values()))
    facts: dict[str, Any] = {
        "norm": norm,
        "relative": norm / math.sqrt(total["sft"]) if total["sft"] else 0.0,
        "layers": {part: math.sqrt(squares[part]) for part in sorted(squares, key=order_of)},
    }
    if total["tau"]:
        facts["along_tau"] = total["dot"] / total["tau"]
    return facts


def part_of(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight -> layer 3; lm_head.weight -> lm_head"""
    found = _LAYER.search(name)
    if found:
        return f"layer {found.group(1)}"
    return name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]


def order_of(part: str) -> tuple[int, int]:
    """The embedding, then the layers by number (a file sorts 10 before 2), then norm and head."""
    if part.startswith("layer "):
        return 1, int(part.removeprefix("layer "))
    return (0 if "emb" in part or part in ("wte", "wpe") else 2), 0


def write_account(out: Path, manifest: Manifest, log: list[dict[str, Any]]) -> None:
    """Writes mergetool.json, metrics.jsonl and the model card."""
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    (out / "README.md").write_text(card(manifest), encoding="utf-8")
    manifest.write(out)


def card(manifest: Manifest) -> str:
    """The model card: what was trained, on what, how much was merged, and what came out."""
    import yaml

    recipe = manifest.recipe
    metrics = "\n".join(f"| {name} | {value:.6g} |" for name, value in manifest.metrics.items())
    merging = manifest.merging
    how = f"{recipe['algorithm'].upper()} with {merging['method']}"
    row = TRAININGS.get(merging["method"])
    if row is not None and row.online.calibrated:
        how += f", projected {merging['merges']} times (every {merging['every']} steps)"
    elif merging["merges"]:
        how += (
            f", {merging['merges']} merges (every {merging['every']} steps) of alpha = {merging['alpha']:.3g}: "
            f"{merging['merged_total']:.3g} of the SFT delta in all"
        )
    if written := merging.get("written"):
        how += f": {written}"
    best = f" (the best of {manifest.trained})" if manifest.trained else ""
    calibrated = "" if manifest.calibrated_on is None else f"\n{manifest.calibrated_on}"
    if rewards := recipe.get("reward"):
        named = [rewards] if isinstance(rewards, str) else rewards
        how += ", rewarded by " + ", ".join(f"`{one}`" for one in named)
    if rows := merging.get("rows"):
        named = ", ".join(f"`{name}` (sha256 {digest})" for name, digest in zip(rows["of"], rows["content"], strict=True))
        how += f", on {rows['rows']} rows whose outputs should stay: {named}"
    hashes = "".join(f"\nsha256 of {name}: `{digest}`\n" for name, digest in manifest.outputs_sha256.items())
    warning = f"\n> **Licence:** {licences(manifest)[1]}.\n" if licences(manifest)[1] else ""
    return f"""---
{yaml.safe_dump(metadata(manifest), sort_keys=False, allow_unicode=True).strip()}
---

# {manifest.name}

Trained by mergetool {manifest.mergetool} from `{recipe.get("policy", recipe["sft_model"])}`: {how}.
{manifest.steps} steps{best} on {manifest.data["train"]}.{calibrated}
The weights are {manifest.drift["relative"]:.3g} (relative norm) away from the SFT model.
{warning}
| metric | value |
|---|---|
{metrics}

Made with this recipe:

```yaml
{yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True).strip()}
```
{hashes}
Seeds: data {manifest.seeds["training"]}, masks {manifest.seeds["merging"]}. Versions: \
{", ".join(f"{name} {version}" for name, version in manifest.versions.items())}.
"""


def layout_fits(layout: Layout, tokenizer: Any) -> bool:
    """True where every token has a row in the embedding."""
    size = (layout.config.get("text_config") or layout.config).get("vocab_size")
    return size is None or max(tokenizer.get_vocab().values(), default=0) < size
