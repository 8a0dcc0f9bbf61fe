"""mergetool methods: the method table."""

from __future__ import annotations

from typing import Annotated

import typer

from mergetool.cli.shell import emit_json


def methods(json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False) -> None:
    """Show the offline methods that run natively, their parts, and their papers."""
    from mergetool.methods import METHODS

    rows = [
        {
            "method": m.name, "sparsifier": m.sparsifier, "consensus": m.consensus,
            "parameters": sorted(m.parameters), "source": m.source, "use": m.use,
        }
        for m in METHODS.values()
    ]  # fmt: skip
    if json:
        emit_json(rows)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("method", "sparsifier", "consensus", "when to use it", "source"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(row["method"], row["sparsifier"], row["consensus"], row["use"], row["source"])
    Console().print(table)
    typer.echo("Other merge_method names of mergekit are handed to mergekit.")
