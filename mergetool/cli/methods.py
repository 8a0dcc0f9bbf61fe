"""mergetool methods: the method table."""

from __future__ import annotations

from typing import Annotated

import typer

from mergetool.cli.shell import echo, emit_json, print_table


def methods(json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False) -> None:
    """Show the methods that run natively, their parts, their optimizers, and their papers."""
    from mergetool.methods import METHODS

    rows = [
        {
            "method": m.name, "sparsifier": m.sparsifier.name, "consensus": m.consensus.name,
            "parameters": sorted(m.parameters), "source": m.source, "use": m.use,
            "optimizer": m.online.optimizer if m.online else None,
        }
        for m in METHODS.values()
    ]  # fmt: skip
    if json:
        emit_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("method", "sparsifier", "consensus", "online", "when to use it", "source"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["method"], row["sparsifier"], row["consensus"], row["optimizer"], row["use"], row["source"])
    print_table(table)
    echo("A method that a later mergekit adds runs through it: mergetool merge --engine mergekit.")
