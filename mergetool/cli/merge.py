"""mergetool merge: an offline merge."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.completion import ENGINES, engines, recipe_names
from mergetool.cli.push import tell_pushed, upload
from mergetool.cli.shell import Settings, echo, emit_json, naming, note, parse_size, progress_bar, size, tell_adapter


def merge(
    recipe: Annotated[
        Path,
        typer.Argument(help="A merge recipe (mergekit's YAML dialect).", show_default=False, autocompletion=recipe_names),
    ],
    out: Annotated[Path, typer.Argument(help="The directory to make. It appears when it is complete.", show_default=False)],
    seed: Annotated[int | None, typer.Option(help="Overrides the recipe's seed.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores. The bytes do not depend on it.")] = None,
    shard_size: Annotated[str, typer.Option(help="Largest weight file, e.g. 5GB or 500MB.")] = "5GB",
    device: Annotated[str, typer.Option(help="Where the arithmetic happens: cpu, cuda, cuda:1.")] = "cpu",
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=V1,V2: merge every value in one reading, into OUT/KEY=V. Repeat it for a grid.", show_default=False
        ),
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write a LoRA adapter of the base in place of a model: output: adapter.")
    ] = False,
    rank: Annotated[
        int | None, typer.Option(min=1, help="With --adapter: of each layer, at most.", show_default="what is exact")
    ] = None,
    engine: Annotated[str, typer.Option(help="auto, native or mergekit.", autocompletion=engines)] = "auto",
    allow_nonfinite: Annotated[bool, typer.Option("--allow-nonfinite", help="Let NaN and Inf in the inputs pass.")] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Let Hub repositories without safetensors pass; no code in them is run.")
    ] = False,
    allow_differences: Annotated[
        bool,
        typer.Option("--allow-config-differences", help="Let models with other rope, heads, activation or norm pass."),
    ] = False,
    low_disk: Annotated[
        bool, typer.Option("--low-disk", help="Hold one shard of each Hub model at a time; the result is the same.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what an interrupted run left.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read headers only; say what would be done.")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="REPO", help="Then upload it; private. See mergetool push.", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: everyone may see it.")] = False,
    revision: Annotated[str | None, typer.Option(help="With --push: the branch.", show_default=False)] = None,
    pr: Annotated[bool, typer.Option("--pr", help="With --push: as a pull request.")] = False,
    settings: Settings = None,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest (or the plan) as JSON.")] = False,
) -> None:
    """Merge checkpoints offline: recipe in, complete checkpoint out."""
    from mergetool.errors import RecipeError, nearest
    from mergetool.merge import merge_to_directories, plan_merge
    from mergetool.merge.describe import describe
    from mergetool.merge.documents import steps_of
    from mergetool.merge.engine import already_made
    from mergetool.merge.recipe import ADAPTER_OUTPUT
    from mergetool.merge.run import merge as run
    from mergetool.merge.sweep import expand

    if engine not in ENGINES:
        raise RecipeError(f"--engine {engine} is not known", nearest(engine, ENGINES))
    _check_device(device)
    _check_push(push, sweep, public or pr or revision is not None)
    shard_bytes = parse_size(shard_size, "--shard-size")
    *before, last = steps_of(recipe, out, settings or ())
    for step in before:
        if dry_run and not step.out.exists():
            raise RecipeError(f"--dry-run: {step.out} has to be made first", "mergetool check reads all of the file's recipes")
        if not dry_run:
            with naming(recipe), progress_bar(f"merging {step.recipe.name}") as update:
                made = run(
                    step.recipe, step.out, seed=seed, engine=engine, allow_pickle=allow_pickle, fresh=fresh, device=device,
                    allow_differences=allow_differences, threads=threads, shard_bytes=shard_bytes, low_disk=low_disk,
                    allow_nonfinite=allow_nonfinite, progress=update,
                )  # fmt: skip
            note("\n".join([f"{step.recipe.name} -> {step.out}", *(f"warning: {line}" for line in made["warnings"])]))
    loaded, out = last.recipe, last.out
    if seed is not None:
        loaded = loaded.model_copy(update={"seed": seed})
    if adapter or rank is not None:
        loaded = loaded.model_copy(update={"output": ADAPTER_OUTPUT, "rank": loaded.rank if rank is None else rank})
    with naming(recipe):
        wanted = [(out / label, r) for label, r in expand(loaded, sweep)] if sweep else [(out, loaded)]
        plans = [plan_merge(r, engine, allow_pickle, allow_differences) for _, r in wanted]
    outs = [path for path, _ in wanted]
    if dry_run:
        reports = [describe(plan, threads) for plan in plans]
        for report in [] if json else reports:
            echo("\n".join(f"{key}: {value}" for key, value in report.items()))
        if json:
            emit_json(reports if sweep else reports[0])
        return
    ready = [already_made(plan, path) for path, plan in zip(outs, plans, strict=True)]
    if push:
        from mergetool.hub.push import check_access

        check_access(push, public, pr)  # a wrong token should not show after an hour
    if not low_disk and (reason := next((plan.reason for plan in plans if plan.engine == "mergekit"), None)):
        note(f"mergekit runs this recipe ({reason})")
    started = time.perf_counter()
    with progress_bar("merging") as update:
        manifests = merge_to_directories(
            plans, outs, threads=threads, shard_bytes=shard_bytes, fresh=fresh, device=device,
            allow_nonfinite=allow_nonfinite, low_disk=low_disk, progress=update,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    pushed = upload(outs[0], push, public=public, revision=revision, pull_request=pr) if push else None
    if json:
        emit_json(manifests if sweep else {**manifests[0], "pushed": pushed.as_facts()} if pushed else manifests[0])
        return
    for path, plan, manifest, done in zip(outs, plans, manifests, ready, strict=True):
        if done:
            note(f"{path} already is this merge; nothing to do")
        else:
            _report(manifest, path, seconds, plan)
        echo(path)
    if pushed:
        tell_pushed(pushed)


def _check_push(push: str | None, sweep: list[str] | None, options: bool) -> None:
    from mergetool.errors import RecipeError

    if push and sweep:
        raise RecipeError("--push takes one merge and --sweep makes many", "push the best: mergetool push OUT/KEY=V REPO")
    if options and not push:
        raise RecipeError("--public, --revision and --pr say how to push", "add --push REPO")


def _check_device(device: str) -> None:
    from mergetool.errors import RecipeError

    if device == "cpu":
        return
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise RecipeError(f"--device {device} is not known", "use cpu, cuda or cuda:N")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise RecipeError(f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices", "use --device cpu")


def _report(manifest: dict[str, Any], out: Path, seconds: float, plan: Any) -> None:
    if manifest.get("adapter"):
        note(f"{plan.recipe.merge_method} -> {out} (native engine, {seconds:.1f} s, seed {manifest['seed']})")
        tell_adapter(manifest)
        return
    written = f", {size(plan.bytes_written)}" if plan.engine == "native" else ""
    note(
        f"{plan.recipe.merge_method} -> {out} ({manifest['engine']} engine{written}, {seconds:.1f} s, seed {manifest['seed']})"
    )
    for name, distance in manifest["distances"].items():
        note(f"  distance to {name}: {distance:.6g}")
    for name, fraction in manifest.get("kept", {}).items():
        if fraction < 1:
            note(f"  kept of {name}: {fraction:.4f}")
    for warning in manifest["warnings"]:
        note(f"warning: {warning}")
