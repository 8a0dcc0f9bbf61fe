"""mergetool calibrate: what a model reads on rows whose outputs should stay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mergetool.cli.shell import echo, emit_json, note, parse_size, progress_bar, size


def calibrate(
    model: Annotated[str, typer.Argument(help="The SFT model: a directory, lab:NAME or a Hub id.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The file to write, a .safetensors.", show_default=False)],
    data: Annotated[
        list[str],
        typer.Option(help="Rows of what should stay: text, prompts, chats; no labels. May be repeated.", show_default=False),
    ],
    rank: Annotated[int, typer.Option(min=1, help="Eigenvectors kept of each map's inputs, at most.")] = 64,
    energy: Annotated[float, typer.Option(help="Keep no more of them than hold this share of the inputs' energy.")] = 0.999,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows read of each source.", show_default="all")] = None,
    max_length: Annotated[int, typer.Option(min=1, help="Tokens of a row.")] = 1024,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of one length in a pass; results do not depend on it.")] = 16,
    memory: Annotated[
        str, typer.Option(help="For sums held at a time, beside the model; less of it takes more passes over the rows.")
    ] = "4GiB",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...", show_default="a GPU where there is one")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard an interrupted run, and replace OUT.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,
) -> None:
    """Calibrate: find which inputs of a model's tensors must keep their outputs, for null_space, onnullspace and inspect."""
    from mergetool.activations.run import calibrate as run
    from mergetool.config.sources import resolve_source
    from mergetool.errors import RecipeError
    from mergetool.hub.references import local_directory

    if not 0 < energy <= 1:
        raise RecipeError(f"--energy is {energy}", "it is a share, in (0, 1]")
    here = Path.cwd()
    source = resolve_source(model, here)
    if isinstance(source, str):
        with progress_bar("fetching") as update:
            local_directory(source, update)
    with progress_bar("calibrating") as update:
        made = run(
            source,
            [resolve_source(one, here) for one in data],
            out,
            rank=rank,
            energy=energy,
            limit=limit,
            max_length=max_length,
            batch_size=batch_size,
            group_bytes=parse_size(memory, "--memory"),
            device=device,
            fresh=fresh,
            progress=update,
        )
    facts, sites = made.calibration.facts, made.calibration.sites
    if json:
        emit_json({"out": str(made.out), "already_done": made.already_done, **facts, "sites": len(sites)})
        return
    if made.already_done:
        note(f"{made.out}: already done")
    rows = facts["rows"]
    if rows["empty"]:
        note(f"{rows['empty']} empty rows left out")
    read = f"{rows['rows']} rows, {rows['tokens']:,} tokens"
    echo(f"{made.out}: {len(sites)} maps of {facts['model']['source']} on {read}; {size(made.out.stat().st_size)}")
