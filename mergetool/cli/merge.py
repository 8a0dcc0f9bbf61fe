"""mergetool merge: an offline merge."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import emit_json, note, parse_size, progress_bar, size


def merge(
    recipe: Annotated[Path, typer.Argument(help="A merge recipe (mergekit's YAML dialect).", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The directory to make. It appears when it is complete.", show_default=False)],
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores. The bytes do not depend on it.")] = None,
    shard_size: Annotated[str, typer.Option(help="Largest weight file, e.g. 5GB or 500MB.")] = "5GB",
    engine: Annotated[str, typer.Option(help="auto, native or mergekit.")] = "auto",
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Let NaN and Inf in the inputs pass.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what an interrupted run left.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read headers only; say what would be done.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest (or the plan) as JSON.")] = False,
) -> None:
    """Merge checkpoints offline: recipe in, complete checkpoint out."""
    from mergetool.checkpoint.writer import MANIFEST, check_output
    from mergetool.errors import RecipeError, nearest
    from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
    from mergetool.merge.plan import describe

    if engine not in ("auto", "native", "mergekit"):
        raise RecipeError(f"--engine {engine} is not known", nearest(engine, ["auto", "native", "mergekit"]))
    shard_bytes = parse_size(shard_size, "--shard-size")
    loaded = load_merge_recipe(recipe)
    if seed is not None:
        loaded = loaded.model_copy(update={"seed": seed})
    plan = plan_merge(loaded, engine)
    if dry_run:
        report = describe(plan)
        emit_json(report) if json else note("\n".join(f"{k}: {v}" for k, v in report.items()))
        return
    if plan.engine == "mergekit":
        note(f"mergekit runs this recipe ({plan.reason})")
        check_output(out)
    elif check_output(out, plan.fingerprint):
        note(f"{out} already is this merge; nothing to do (see {out / MANIFEST})")
        return
    started = time.perf_counter()
    with progress_bar("merging") as update:
        manifest = merge_to_directory(
            plan, out, threads=threads, shard_bytes=shard_bytes, fresh=fresh, allow_nonfinite=allow_nonfinite, progress=update
        )
    if json:
        emit_json(manifest)
    else:
        _report(manifest, out, time.perf_counter() - started, plan)


def _report(manifest: dict[str, Any], out: Path, seconds: float, plan: Any) -> None:
    written = f", {size(plan.bytes_written)}" if plan.engine == "native" else ""
    note(f"{plan.recipe.merge_method} -> {out} ({manifest['engine']} engine{written}, {seconds:.1f} s, seed {manifest['seed']})")
    for name, distance in manifest["distances"].items():
        note(f"  distance to {name}: {distance:.6g}")
    for warning in manifest["warnings"]:
        note(f"warning: {warning}")
    typer.echo(out)
