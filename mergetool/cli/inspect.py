"""mergetool inspect: what a checkpoint holds and how far it is from another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import echo, emit_json, note, print_table, progress_bar
from mergetool.errors import plain


def inspect(
    model: Annotated[str, typer.Argument(help="A model directory, lab:NAME or a Hub id.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="Show the task vector: model minus this one.", show_default=False)] = None,
    other: Annotated[
        str | None, typer.Option("--with", help="A second model: do both task vectors agree in sign?", show_default=False)
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Of BASE, from `mergetool calibrate`: the share of the task vector that its rows see.", show_default=False
        ),
    ] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="One row per tensor instead of one per layer.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw layers × modules into this PNG.", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print every tensor as JSON.")] = False,
) -> None:
    """Show shapes, dtypes, delta norms and sign agreement, layer by layer."""
    from mergetool.errors import RecipeError
    from mergetool.merge.inspection import by_layer, heat_map
    from mergetool.merge.inspection import inspect as run

    if other and not base:
        raise RecipeError("--with compares two task vectors and needs --base", "add --base BASE")
    if calibration and not base:
        raise RecipeError("--calibration is of the model that a task vector starts from", "add --base BASE, the SFT model")
    with progress_bar("reading") as update:
        facts = run(model, base, other, update, calibration)
    if plot:
        heat_map(facts, plot, _name(model) + (f" − {_name(base)}" if base else ""))
        note(f"drew {plot}")
    if json:
        emit_json([f.to_dict() for f in facts])
        return
    rows = [_tensor_row(f.to_dict()) for f in facts] if tensors else by_layer(facts)
    _table(rows)
    total = sum(f.numel for f in facts)
    echo(f"{len(facts)} tensors, {total:,} parameters, {', '.join(sorted({f.dtype for f in facts}))}")


def _name(model: str) -> str:
    """What a picture calls a model: the last part of its path or id."""
    return Path(model.removeprefix("lab:")).name


def _tensor_row(fact: dict[str, Any]) -> dict[str, Any]:
    return {k: "×".join(map(str, v)) if k == "shape" else v for k, v in fact.items() if k != "numel" and v is not None}


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    columns = list(dict.fromkeys(k for row in rows for k in row))
    for column in columns:
        left = column in ("layer", "name", "dtype", "shape")
        table.add_column(column.replace("_", " "), justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(c)) for c in columns))
    print_table(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else plain(str(value))
