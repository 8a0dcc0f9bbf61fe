"""mergetool ama: learn how much of SFT each block gets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mergetool.cli.shell import Settings, echo, emit_json, naming, note, print_table, progress_bar

if TYPE_CHECKING:
    from mergetool.ama import AmaResult


def ama(
    recipe: Annotated[Path, typer.Argument(help="An AMA recipe.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="The merge recipe to write; NAME-alpha0.2.yaml and so on for a list.", show_default=False)
    ],
    fresh: Annotated[bool, typer.Option("--fresh", help="Learn again what an earlier run has written.")] = False,
    device: Annotated[str | None, typer.Option(help="Of the live model: cpu, cuda, ...", show_default=False)] = None,
    settings: Settings = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Learn each block's ratio of SFT to RLHF from answers of high reward, and write it as a merge recipe."""
    from mergetool.ama import load_ama_recipe, run_ama

    with naming(recipe):
        loaded = load_ama_recipe(recipe, settings or ())
    with naming(recipe), progress_bar("learning") as update:
        results = run_ama(loaded, out, device=device, progress=update, note=note, fresh=fresh)
    if json:
        emit_json([_facts(result) for result in results])
        return
    _print(results)
    for result in results:
        echo(result.path)


def _facts(result: AmaResult) -> dict:
    learned = result.learned
    return {
        "path": str(result.path),
        "alpha": learned.alpha,
        "shares": list(learned.shares),
        "nll": learned.nll,
        "uniform_nll": learned.uniform_nll,
        "measured": learned.measured,
        "already_done": result.already_done,
    }


def _print(results: list[AmaResult]) -> None:
    from rich.table import Table

    first = results[0]
    count = first.parts.count
    table = Table(title="share of SFT in each block", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("mean", justify="right")
    if count <= 12:
        for part, label in enumerate(_labels(first)):
            table.add_column(f"layers\n{label}" if part == 0 else f"\n{label}", justify="right")
    else:
        table.add_column("from first to last layer")
    table.add_column(f"nats/token\nuniform, {first.learned.measured}", justify="right")
    table.add_column("\nlearned", justify="right")
    for result in results:
        learned = result.learned
        shares = [f"{share:.3f}" for share in learned.shares]
        cells = shares if count <= 12 else [" ".join(shares)]
        table.add_row(f"{learned.alpha:g}", *cells, f"{learned.uniform_nll:.4f}", f"{learned.nll:.4f}")
    print_table(table)
    if done := sum(result.already_done for result in results):
        note(f"{done} of {len(results)} learned by an earlier run of this recipe; --fresh learns them again")


def _labels(result: AmaResult) -> list[str]:
    """0-9, 10-19: the layers of each block."""
    layers = result.parts.layers
    ends = [(layers.index(part), len(layers) - 1 - layers[::-1].index(part)) for part in range(result.parts.count)]
    return [str(low) if low == high else f"{low}-{high}" for low, high in ends]
