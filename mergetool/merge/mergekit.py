"""What is not ours goes to mergekit, and the user is told so in one line.

mergekit is a dependency, called as a program of its own: its import takes seconds, and a merge of ours never pays
for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mergetool.errors import MergetoolError, RecipeError

if TYPE_CHECKING:
    from mergetool.merge.recipe import MergeRecipe

# Names that mergekit 0.1.5 registers beside ours; a test compares them with its registry.
MERGEKIT_METHODS = frozenset(
    ["arcee_fusion", "karcher", "model_stock", "multislerp", "nearswap", "nuslerp", "passthrough", "ram", "ramplus_tl", "sce"]
)


def command(recipe_file: Path, out: Path, *, device: str, shard_bytes: int) -> list[str]:
    """The command line that runs mergekit on a recipe."""
    program = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(recipe_file), str(out), "--copy-tokenizer"]
    program += ["--out-shard-size", str(shard_bytes), "--no-write-model-card"]
    return [*program, "--cuda"] if device.startswith("cuda") else program


def run(recipe: MergeRecipe, out: Path, *, device: str = "cpu", shard_bytes: int = 5_000_000_000, seed: int = 0) -> None:
    """Merge with mergekit into `out`, a directory that does not exist yet.

    Raises:
        RecipeError: the recipe uses a key that only mergetool knows.
        MergetoolError: mergekit failed; its last line of output is the message.
    """
    import yaml

    ours = [f"models[{i}].relative_to" for i, m in enumerate(recipe.models) if m.relative_to]
    ours += [f"parameters.{p}" for p in ("scope",) if p in recipe.parameters]
    if isinstance(recipe.parameters.get("rescale"), str):
        ours.append("parameters.rescale (a word)")
    if ours:
        raise RecipeError(f"{ours[0]} is not known to mergekit, which this recipe needs", "remove it or use a native method")
    text = {k: v for k, v in recipe.to_dict().items() if k not in ("seed", "name")}
    with tempfile.TemporaryDirectory(prefix="mergetool-") as folder:
        recipe_file = Path(folder) / "recipe.yaml"
        recipe_file.write_text(yaml.safe_dump(text, sort_keys=False))
        words = [*command(recipe_file, out, device=device, shard_bytes=shard_bytes), "--random-seed", str(seed)]
        result = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise MergetoolError(f"mergekit failed: {lines[-1] if lines else 'no output'}", "correct the recipe")
