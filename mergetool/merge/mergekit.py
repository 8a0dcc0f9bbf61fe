"""A recipe that goes to mergekit: what a later mergekit adds, or what is asked for; the user is told so in one line.

mergekit is a dependency, called as a program of its own: its import takes seconds, and a merge of ours never pays
for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from mergetool.errors import MergetoolError, RecipeError
from mergetool.merge.recipe import MergeRecipe


def command(recipe_file: Path, out: Path, *, device: str, shard_bytes: int, adapters: Path) -> list[str]:
    """The command line that runs mergekit on a recipe.

    Args:
        recipe_file: its paths absolute.
        out: the directory that mergekit makes.
        device: cpu or cuda.
        shard_bytes: upper bound of a weight file.
        adapters: where models are put whose adapters mergekit has merged.
    """
    program = [sys.executable, "-P", "-m", "mergekit.scripts.run_yaml", str(recipe_file), str(out), "--copy-tokenizer"]
    program += ["--out-shard-size", str(shard_bytes), "--no-write-model-card", "--lora-merge-cache", str(adapters)]
    return [*program, "--cuda"] if device.startswith("cuda") else program


def run(recipe: MergeRecipe, out: Path, *, device: str = "cpu", shard_bytes: int = 5_000_000_000, seed: int = 0) -> None:
    """Merge with mergekit into `out`, a directory that is empty or does not exist yet.

    Raises:
        RecipeError: the recipe uses a key that only mergetool knows.
        MergetoolError: mergekit failed; its last line of output is the message.
    """
    import yaml

    ours = [f"{place}.relative_to" for place, entry in recipe.entries() if entry.relative_to]
    ours += [f"parameters.{p}" for p in ("scope",) if p in recipe.parameters]
    if isinstance(recipe.parameters.get("rescale"), str):
        ours.append("parameters.rescale (a word)")
    if ours:
        raise RecipeError(f"{ours[0]} is not known to mergekit, which this recipe needs", "remove it or use a native method")
    absolute = recipe.resolved(Path.cwd())  # mergekit runs elsewhere
    text = {k: v for k, v in absolute.to_dict().items() if k not in ("seed", "name")}
    out = out.absolute()
    out.mkdir(exist_ok=True)
    # in the output, because models with their adapters merged are as large as it, and go with it after an interruption
    with tempfile.TemporaryDirectory(prefix=".mergetool-", dir=out) as folder:
        recipe_file, adapters = Path(folder) / "recipe.yaml", Path(folder) / "adapters"
        recipe_file.write_text(yaml.safe_dump(text, sort_keys=False))
        words = command(recipe_file, out, device=device, shard_bytes=shard_bytes, adapters=adapters)
        # -P and a directory of our own: what lies in the working directory is not imported
        result = subprocess.run(
            [*words, "--random-seed", str(seed)], capture_output=True, text=True, cwd=folder,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise MergetoolError(f"mergekit failed: {lines[-1] if lines else 'no output'}", "correct the recipe")
