"""A recipe that goes to mergekit: what a later mergekit adds, or `--engine mergekit`; one line says so.

mergekit is a dependency, called as a program of its own: its import takes seconds, and a merge of ours never pays
for it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mergetool.errors import MergetoolError, RecipeError
from mergetool.merge.recipe import MergeRecipe

# Its standard input is a pipe whose other end nobody writes to: it closes when this program ends, however it ends, and
# mergekit ends with it.
_PROGRAM = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("mergekit.scripts.run_yaml", run_name="__main__", alter_sys=True)
"""


def command(recipe_file: Path, out: Path, *, device: str, shard_bytes: int, adapters: Path) -> list[str]:
    """The command line that runs mergekit on a recipe.

    Args:
        recipe_file: its paths absolute.
        out: the directory that mergekit makes.
        device: cpu or cuda.
        shard_bytes: upper bound of a weight file.
        adapters: where models are put whose adapters mergekit has merged.
    """
    program = [sys.executable, "-P", "-c", _PROGRAM, str(recipe_file), str(out), "--copy-tokenizer"]
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
        recipe_file.write_text(yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        words = command(recipe_file, out, device=device, shard_bytes=shard_bytes, adapters=adapters)
        # -P and a directory of our own: what lies in the working directory is not imported
        with _held_pipe() as end:
            result = subprocess.run(
                [*words, "--random-seed", str(seed)], capture_output=True, encoding="utf-8", errors="replace", cwd=folder,
                stdin=end, env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8"},
            )  # fmt: skip
    if result.returncode:
        lines = [line.strip() for line in (result.stderr or result.stdout).splitlines() if line.strip()]
        raise MergetoolError(f"mergekit failed: {lines[-1] if lines else 'no output'}", "correct the recipe")


@contextlib.contextmanager
def _held_pipe() -> Iterator[int]:
    """The reading end of a pipe whose other end is open as long as this program runs."""
    end, held = os.pipe()
    try:
        yield end
    finally:
        os.close(end)
        os.close(held)
