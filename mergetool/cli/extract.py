"""mergetool extract: the difference of two models as an adapter."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from mergetool.cli.shell import echo, emit_json, note, progress_bar, tell_adapter


def extract(
    model: Annotated[str, typer.Argument(help="The model: a directory, lab:NAME or a Hub id.", show_default=False)],
    base: Annotated[str, typer.Argument(help="What the adapter is for.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The adapter to make. It appears when it is complete.", show_default=False)],
    rank: Annotated[int, typer.Option(min=1, help="Of each layer, at most.")] = 32,
    dtype: Annotated[str | None, typer.Option(help="Of the adapter.", show_default="float32")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: all cores. The bytes do not depend on it.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Let Hub repositories without safetensors pass; no code in them is run.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what an interrupted run left.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Extract: the LoRA adapter of a rank that makes MODEL of BASE, and the share of the difference that it keeps."""
    from mergetool.merge.extract import extract as run

    started = time.perf_counter()
    with progress_bar("extracting") as update:
        manifest = run(
            model, base, out, rank=rank, dtype=dtype, threads=threads, allow_pickle=allow_pickle, fresh=fresh, progress=update
        )
    if json:
        emit_json(manifest)
        return
    note(f"{model} - {base} -> {out} ({time.perf_counter() - started:.1f} s)")
    tell_adapter(manifest)
    echo(out)
