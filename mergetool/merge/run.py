"""An offline merge in one call: recipe in, complete checkpoint out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergetool.config.given import recipe_given
from mergetool.merge.documents import Step, steps_of
from mergetool.merge.engine import Progress, merge_to_directory
from mergetool.merge.planner import plan_merge
from mergetool.merge.recipe import MergeRecipe, load_merge_recipe, merge_recipe


def merge(
    recipe: MergeRecipe | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    seed: int | None = None,
    engine: str = "auto",
    allow_pickle: bool = False,
    allow_differences: bool = False,
    threads: int | None = None,
    shard_bytes: int = 5_000_000_000,
    fresh: bool = False,
    device: str = "cpu",
    allow_nonfinite: bool = False,
    low_disk: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Merges checkpoints offline, as ``mergetool merge`` does; resumes an interrupted run of the same recipe.

    Args:
        recipe: mergekit's dialect as a YAML file's path, as plain values (relative paths then start from the working
            directory), or read already. A file of several documents is several merges, see `mergetool.merge.documents`.
        out: the directory to make; its name appears only when it is complete.
        seed: of the random masks; the recipe's own if None.
        engine: ``auto`` (ours where every feature is ours), ``native`` or ``mergekit``.
        allow_pickle: let a model that has no safetensors pass; its pickle is read without running any code.
        allow_differences: let models pass whose configurations use weights of one shape in different ways.
        threads: how many tensors are in work at a time; the bytes do not depend on it. None: the cores of this process.
        shard_bytes: upper bound of a weight file, in bytes.
        fresh: discard what an interrupted run left.
        device: where the arithmetic happens: cpu, cuda, cuda:1, ...
        allow_nonfinite: let NaN and Inf in the inputs pass.
        low_disk: hold one shard of each model of the Hub at a time; the bytes are the same.
        progress: called after each tensor.

    Returns:
        The manifest, as written to mergetool.json: recipe, inputs, distances, kept fractions, seed, versions, hashes; of
        several merges the last one's.

    Raises:
        RecipeError: the recipe asks for something that does not exist or cannot be done.
        CheckpointError: an input is missing, damaged, does not fit the others, or holds NaN or Inf.
        OutputError: `out` is taken or cannot be written.
    """
    if isinstance(recipe, str | Path):
        steps = steps_of(recipe, out)
    else:
        steps = [Step(Path(out), recipe_given(recipe, MergeRecipe, load_merge_recipe, merge_recipe))]
    manifest: dict[str, Any] = {}
    for step in steps:
        read = step.recipe if seed is None else step.recipe.model_copy(update={"seed": seed})
        plan = plan_merge(read, engine, allow_pickle, allow_differences)
        manifest = merge_to_directory(
            plan, step.out, threads=threads, shard_bytes=shard_bytes, fresh=fresh, device=device,
            allow_nonfinite=allow_nonfinite, low_disk=low_disk, progress=progress,
        )  # fmt: skip
    return manifest
