"""mergetool check: everything about a recipe that can be known without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import echo, emit_json, naming, size


def check(
    recipe: Annotated[Path, typer.Argument(help="A merge, align, AMA or study recipe.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check a recipe from headers alone: exit 0, or 2 and one line."""
    from mergetool.recipe_kinds import check as run

    with naming(recipe):
        found = run(recipe)
    if json:
        emit_json(found)
        return
    echo(f"{recipe}: a valid {found['kind']} recipe")
    for key, value in found.items():
        if key in ("recipe", "kind"):
            continue
        echo(f"  {key.replace('_', ' ')}: {size(value) if key.startswith('bytes_') else _shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else str(value)
